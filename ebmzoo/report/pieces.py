"""What the sections of the page are made of: figures with their caption and command, cards, legends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from .compare import Table
from .results import Run
from .svg import COLOURS

__all__ = ["anchor", "arrays_of", "cards", "charts", "details", "figure", "first_seeds", "measured", "seed_of"]


def anchor(name: str) -> str:
    """A section's name in addresses."""
    return name.lower().replace(" ", "-")


def details(summary: str, commands: Iterable[str]) -> str:
    """Commands, each once, below a line that opens them."""
    lines = "\n".join(map(escape, dict.fromkeys(commands)))
    return f"<details><summary>{summary}</summary><pre>{lines}</pre></details>" if lines else ""


def figure(heading: str, inside: str, said: str, commands: Iterable[str]) -> str:
    """A picture with its heading, its protocol in words, and the commands that make it again."""
    caption = f"<figcaption>{escape(said)}{details('command', commands)}</figcaption>"
    return f"<figure><h3>{escape(heading)}</h3>{inside}{caption}</figure>"


def cards(figures: Iterable[str], least: str = "20rem") -> str:
    """Figures beside each other, as many as fit with this least width."""
    inside = "".join(filter(None, figures))
    return f'<div class="cards" style="--least: {least}">{inside}</div>' if inside else ""


def charts(rows: Sequence[str], shown: Iterable[str], figures: Iterable[str]) -> str:
    """Charts below the legend that they share."""
    found = cards(figures)
    return found and _legend(rows, shown) + found


def _legend(rows: Sequence[str], shown: Iterable[str]) -> str:
    present = set(shown)
    items = []
    for k, row in enumerate(rows):
        if row in present:
            line = f"border-color: var(--c{k % COLOURS}); border-top-style: {'dashed' if k >= COLOURS else 'solid'}"
            items.append(f'<li><span style="{line}"></span>{escape(row)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def measured(runs: Iterable[Run], part: str) -> list[str]:
    """What measures runs again."""
    return [f"ebmzoo test --ckpt_path '{run.folder}/checkpoints/last.ckpt' --only {part}" for run in runs]


def first_seeds(table: Table) -> list[Run]:
    """The first seed of every row."""
    return [table.of(row)[0] for row in table.rows]


def arrays_of(run: Run) -> dict[str, Any]:
    """What the evaluation left to be drawn."""
    path = run.folder / "arrays.npz"
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return dict(file)


def seed_of(run: Run) -> str:
    """Which of a row's runs it is, in words."""
    return f"{run.folder.name.replace('_', ' ')}" if run.folder.name != run.row else "its only run"
