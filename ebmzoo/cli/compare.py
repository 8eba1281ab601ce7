"""``ebmzoo compare``: finished runs side by side, on the terminal, in Markdown and as one HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from ebmzoo.cli.arguments import OneLineParser, check_writable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

    from ebmzoo.report.compare import Column, Table

_HEADING = 18  # letters of a heading's line


def run(verb: str, arguments: Sequence[str]) -> None:
    """Read the runs, print the table, and write it with its page where asked for."""
    parser = OneLineParser(
        verb, "Put finished runs side by side: mean and spread over seeds, one protocol to a column."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or folders with runs below them")
    parser.add_argument("--out", type=Path, help="folder for compare.md and compare.html")
    parser.add_argument("--separate", action="store_true", help="a column for each protocol, instead of refusing")
    options = parser.parse_args(arguments)
    if options.out is not None:
        check_writable(options.out)

    from ebmzoo.report.compare import compare
    from ebmzoo.report.results import load

    table = compare(load(options.runs), separate=options.separate)
    present(table, options.out, f"ebmzoo {verb} {shlex.join(arguments)}")


def present(table: Table, out: Path | None, command: str) -> None:
    """Print a comparison; write compare.md and compare.html into a folder, if one is given.

    Args:
        table: the comparison.
        out: the folder.
        command: what makes the page again.
    """
    from rich.console import Console

    console = Console()
    _show(console, table, written=out is not None)
    if out is None:
        return
    from ebmzoo.report.page import page

    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(table.markdown() + "\n")
    (out / "compare.html").write_text(page(table, command))
    for name in ("compare.md", "compare.html"):
        console.print(f"{out / name}", markup=False, highlight=False, soft_wrap=True)


def _show(console: Console, table: Table, written: bool = False) -> None:
    """One table: on a terminal of the columns that fit, those looked for first; else of all, in aligned lines."""
    chosen: list[Column | str] = [*table.first, *table.FACTS, *table.further]
    shown, best = len(chosen), "is bold"
    if console.is_terminal:
        endless = console.options.update(max_width=10_000)
        while shown > 1 and console.measure(_grid(table, chosen[:shown]), options=endless).maximum > console.width:
            shown -= 1
        console.print(_grid(table, chosen[:shown]))
    else:
        print("\n".join(_lines(table, chosen)))
        best = "has a star"
    if hidden := chosen[shown:]:
        where = "in the files" if written else "with --out FOLDER or in a pipe"
        said = f"{len(hidden)} more, {where}: {'; '.join(map(_heading, hidden))}."
        console.print(said, markup=False, highlight=False)
    measured = [one for one in chosen[:shown] if not isinstance(one, str)]
    for line in [*table.notes(best), *table.protocols(measured)]:
        # A terminal breaks lines within words; a pipe shall have each as one.
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _heading(one: Column | str) -> str:
    return one if isinstance(one, str) else one.heading


def _cells(table: Table, row: str, chosen: Sequence[Column | str], bold: Callable[[str], str]) -> list[str]:
    facts = dict(zip(table.FACTS, table.facts(row), strict=True))
    return [facts[one] if isinstance(one, str) else table.text(one, row, bold) for one in chosen]


def _grid(table: Table, chosen: Sequence[Column | str]) -> Grid:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid()
    grid.add_column("run", overflow="fold")
    for one in chosen:
        grid.add_column(fill(_heading(one), _HEADING), justify="left" if one == "sampler" else "right", overflow="fold")
    for row in table.rows:
        name = escape(table.name(row).replace(" (", "\n("))
        grid.add_row(name, *_cells(table, row, chosen, lambda text: f"[bold]{text}[/bold]"))
    return grid


def _lines(table: Table, chosen: Sequence[Column | str]) -> list[str]:
    """As wide as needed, two spaces between columns; the best has a star, since nothing here is bold."""
    rows = [["run", *map(_heading, chosen)]]
    rows += [[table.name(row), *_cells(table, row, chosen, lambda text: f"{text} *")] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
