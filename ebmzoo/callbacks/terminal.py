"""An evaluation as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ebmzoo.metrics import Results


def show(
    results: Results, about: Mapping[str, Any], sampler: Mapping[str, Any], ends: Sequence[int], path: Path
) -> None:
    """Print the numbers of this evaluation, a line for each part that was left out, and where the file is.

    Args:
        results: the numbers.
        about: facts about the run.
        sampler: `ebmzoo.figures.look.sampler_settings`.
        ends: how many numbers there were after each figure.
        path: of the file.
    """
    kind, steps = sampler["sampler"], sampler["steps"]
    sampled = f"{steps} steps of {kind}" if steps else "one-step samples" if kind else "samples"
    table = Table(title=f"{about['method']}, {about['weights']} weights, {sampled}")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("against", overflow="fold")
    for k, entry in enumerate(results.added):
        if k in ends:
            table.add_section()
        if entry.name.startswith("class_share_") and entry.name != "class_share_min":
            continue  # ten rows for the file; the least says whether to look there
        protocol = entry.protocol
        reference, extractor = protocol["reference"], protocol["extractor"]
        parts = [f"{reference} ({protocol['n_reference']:,})" if reference else "", extractor or ""]
        against = ", ".join(filter(None, parts))
        value = "not finite" if entry.value is None else f"{entry.value:.4g}"
        table.add_row(entry.name, value, f"{protocol['n']:,}", against)
    console = Console()
    console.print(table)
    for words in about["skipped"]:
        console.print(f"skipped {words}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"each number with its protocol: {path}", markup=False, highlight=False, soft_wrap=True)
