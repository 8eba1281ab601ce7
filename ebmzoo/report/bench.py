"""The command line of the scripts in ``benchmarks/``: groups of experiments in, Markdown tables out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .runs import Experiment, run
from .tables import markdown

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
    for group in options.groups or groups:
        experiments = groups[group]
        if options.seeds:
            experiments = [replace(experiment, seeds=options.seeds) for experiment in experiments]
        done = run(experiments, ROOT)
        print(f"\n{group}\n\n{markdown(done, metrics.get(group, metrics.get('', [])))}\n", flush=True)
        for line in (remark(*one) for one in done) if remark else ():
            if line:
                print(line, flush=True)
