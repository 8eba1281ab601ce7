"""The command line of the scripts beside this one: groups of experiments in, Markdown tables out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ebmzoo.report.cells import Cell
from ebmzoo.report.commands import Commands
from ebmzoo.report.results import numbers_of
from ebmzoo.report.runs import Experiment, run

ROOT = Path("runs/bench")
Remark = Callable[[Experiment, int, Path], str | None]


def bench(
    description: str | None,
    groups: Mapping[str, Sequence[Experiment]],
    metrics: Mapping[str, Sequence[str]],
    *,
    remark: Remark | None = None,
) -> None:
    """Train, test and print the groups named on the command line, all by default.

    Finished runs in ``runs/bench`` are not repeated. Two runs of one thread each go at a time.

    Args:
        description: for ``--help``; the caller's docstring.
        groups: experiments by name of the group.
        metrics: columns of each group's table; those of "" where a group has none of its own.
        remark: a line about one run from its results file, printed below the table.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(groups)}; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of each experiment's own")
    options = parser.parse_args()
    if unknown := [name for name in options.groups if name not in groups]:
        parser.error(f"no group {unknown[0]!r}: choose from {', '.join(groups)}")
    with Commands() as commands:
        for group in options.groups or groups:
            experiments = groups[group]
            if options.seeds:
                experiments = [replace(experiment, seeds=options.seeds) for experiment in experiments]
            done = run(experiments, ROOT, commands)
            print(f"\n{group}\n\n{markdown(done, metrics.get(group, metrics.get('', [])))}\n", flush=True)
            for line in (remark(*one) for one in done) if remark else ():
                if line:
                    print(line, flush=True)


def markdown(done: Iterable[tuple[Experiment, int, Path]], names: Sequence[str]) -> str:
    """A Markdown table: experiments down, metrics across, mean ± standard deviation and each seed.

    Args:
        done: what has results: experiment, seed, path of the results file.
        names: of the metrics; what no seed has, such as the cost of training of what is only tested, is an empty cell.
    """
    rows: dict[str, list[dict[str, float | None]]] = {}
    for experiment, _, path in done:
        found = {name: number.value for name, number in numbers_of(path.parent).items()}
        rows.setdefault(experiment.name, []).append(found)
    lines = ["| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, seeds in rows.items():
        lines.append(f"| {row} | " + " | ".join(_cell(seeds, name) for name in names) + " |")
    return "\n".join(lines)


def _cell(seeds: Sequence[Mapping[str, float | None]], name: str) -> str:
    values = [seed[name] for seed in seeds if name in seed]
    if not values:
        return ""
    return Cell(values).each() + (f" for {len(values)} of {len(seeds)} seeds" if len(values) < len(seeds) else "")
