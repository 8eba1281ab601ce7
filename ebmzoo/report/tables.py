"""Tables of results files: one row per experiment, mean and spread over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .runs import TIMES, Experiment


def values(path: Path) -> dict[str, float]:
    """The numbers of a results file by name; of a name with several protocols, the last.

    With them, where a `runs.run` wrote down that of the whole, the CPU time of training: "fit_cpu_s".
    """
    found = {row["name"]: row["value"] for row in json.loads(path.read_text())["results"]}
    times = path.parent / TIMES
    if times.is_file() and (fit := json.loads(times.read_text()).get("fit")) and not fit.get("resumed"):
        found["fit_cpu_s"] = fit["cpu_s"]
    return found


def spread(numbers: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± standard deviation of the seeds, and each of them; None is a number that was not finite.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        '2 ± 1 (1, 2, 3)'
    """
    found = [number for number in numbers if number is not None]
    if len(found) < len(numbers) or not found:
        return f"not finite for {len(numbers) - len(found)} of {len(numbers)} seeds"
    mean = sum(found) / len(found)
    deviation = math.sqrt(sum((number - mean) ** 2 for number in found) / max(len(found) - 1, 1))
    each = ", ".join(f"{number:.{digits}g}" for number in found)
    return f"{mean:.{digits}g} ± {deviation:.{max(digits - 1, 1)}g} ({each})"


def markdown(done: Iterable[tuple[Experiment, int, Path]], names: Sequence[str]) -> str:
    """A Markdown table: experiments down, metrics across, ``mean ± sd (each seed)``."""
    rows: dict[str, list[dict[str, float]]] = {}
    for experiment, _, path in done:
        rows.setdefault(experiment.name, []).append(values(path))
    lines = ["| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, found in rows.items():
        # What no seed has, such as the cost of training of what is only tested, is an empty cell.
        columns = ([one.get(name) for one in found] if any(name in one for one in found) else None for name in names)
        cells = [spread(column) if column else "" for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
