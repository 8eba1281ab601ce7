"""``ebmzoo compare``: finished runs side by side, on the terminal, in Markdown and as one HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
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
    _show(console, table)
    if out is None:
        return
    from ebmzoo.report.page import page

    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(table.markdown() + "\n")
    (out / "compare.html").write_text(page(table, command))
    for name in ("compare.md", "compare.html"):
        console.print(f"{out / name}", markup=False, highlight=False, soft_wrap=True)


def _show(console: Console, table: Table) -> None:
    """As many tables as it takes to fit the terminal's width."""
    endless = console.options.update(max_width=10_000)
    left = list(table.columns)
    facts = True
    while left or facts:
        fits = 1
        while fits < len(left):
            wider = _grid(table, left[: fits + 1], facts)
            if console.measure(wider, options=endless).maximum > console.width:
                break
            fits += 1
        console.print(_grid(table, left[:fits], facts))
        left, facts = left[fits:], False
    for line in [*table.notes(), *table.protocols()]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _grid(table: Table, columns: Sequence[Column], facts: bool) -> Grid:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid()
    grid.add_column("run", overflow="fold")
    if facts:
        grid.add_column("seeds", justify="right")
        grid.add_column("iterations", justify="right")
        grid.add_column("sampler", overflow="fold")
    for column in columns:
        grid.add_column(fill(column.heading, _HEADING), justify="right", overflow="fold")
    for row in table.rows:
        cells = [table.text(column, row, lambda text: f"[bold]{text}[/bold]") for column in columns]
        grid.add_row(escape(row), *(table.facts(row) if facts else []), *cells)
    return grid
