"""``ebmzoo compare``: finished runs side by side, on the terminal, in Markdown and as one HTML page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ebmzoo.cli.arguments import check_writable

if TYPE_CHECKING:
    from rich.console import Console

    from ebmzoo.report.compare import Table

_FIRST, _AT_ONCE = 2, 4  # columns of a table on the terminal: beside the facts about a row, and alone


def run(verb: str, arguments: Sequence[str]) -> None:
    """Read the runs, print the table, and write it with its page where asked for."""
    parser = argparse.ArgumentParser(
        prog=f"ebmzoo {verb}",
        description="Put finished runs side by side: mean and spread over seeds, one protocol to a column.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or folders with runs below them")
    parser.add_argument("--out", type=Path, help="folder for compare.md and compare.html")
    parser.add_argument("--separate", action="store_true", help="a column for each protocol, instead of refusing")
    options = parser.parse_args(arguments)
    if options.out is not None:
        check_writable(options.out)

    from ebmzoo.report.compare import compare
    from ebmzoo.report.results import load

    command = f"ebmzoo {verb} {' '.join(map(str, arguments))}"
    present(compare(load(options.runs), separate=options.separate), options.out, command)


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
    from rich.markup import escape
    from rich.table import Table as Grid

    def bold(text: str) -> str:
        return f"[bold]{text}[/bold]"

    starts = [0, *range(_FIRST, len(table.columns), _AT_ONCE)]
    for start in starts:
        columns = table.columns[start : start + (_AT_ONCE if start else _FIRST)]
        grid = Grid()
        grid.add_column("run", overflow="fold")
        if start == 0:
            for name in ("seeds", "iterations"):
                grid.add_column(name, justify="right")
            grid.add_column("sampler", overflow="fold")
        for column in columns:
            grid.add_column(column.heading, justify="right", overflow="fold")
        for row in table.rows:
            facts = table.facts(row) if start == 0 else []
            grid.add_row(escape(row), *facts, *(table.text(column, row, bold) for column in columns))
        console.print(grid)
    for line in [*table.notes(), *table.protocols()]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
