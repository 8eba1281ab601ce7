"""``ebmzoo benchmark``: train and test all methods of a suite under one budget, and put them side by side."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from ebmzoo.cli.arguments import OneLineParser, check_writable
from ebmzoo.cli.compare import present
from ebmzoo.cli.configs import FOLDER
from ebmzoo.cli.errors import Stopped, UserError
from ebmzoo.report import suites
from ebmzoo.report.commands import Commands
from ebmzoo.report.compare import compare
from ebmzoo.report.results import load
from ebmzoo.report.runs import BUDGET, RESULTS, Experiment, finished, write
from ebmzoo.report.runs import run as run_all


def run(verb: str, arguments: Sequence[str]) -> None:
    """Plan, run what has no results yet, and present the comparison."""
    parser = OneLineParser(
        verb, "Train and test the methods of a suite under one budget. Finished runs are not repeated."
    )
    parser.add_argument("--suite", required=True, choices=suites.SUITES)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="by their configs' names (one of each class)")
    steps, samples = suites.QUICK
    first_look = f"a first look: {steps} iterations and one seed of each, tests of {samples} samples"
    parser.add_argument("--quick", action="store_true", help=first_look)
    parser.add_argument("--seeds", type=int, help="number of seeds: 0, 1, ... (3; 1 with --quick)")
    parser.add_argument("--first_seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--budget", choices=suites.BUDGETS, help="the same of it for each (each config's own length)")
    parser.add_argument("--amount", type=float, help="of the budget, for each training (what EC-VAE's config has)")
    parser.add_argument("--mode", choices=("paper", "same"), default="paper", help="own networks, or EC-VAE's for all")
    parser.add_argument("--data", type=Path, help="a config whose data take the place of the configs'")
    parser.add_argument("--configs", type=Path, help="folder of the configs (configs, or those that ship)")
    parser.add_argument("--out", type=Path, help="folder of runs, table and page (runs/benchmark/<suite>_...)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (1)")
    options = parser.parse_args(arguments)
    options.seeds = (1 if options.quick else 3) if options.seeds is None else options.seeds
    if options.quick and options.budget is None:
        options.budget, options.amount = "iterations", steps if options.amount is None else options.amount
    if min(options.seeds, options.jobs, options.threads) < 1 or options.first_seed < 0:
        raise UserError("--seeds, --jobs and --threads are at least 1, --first_seed at least 0")
    if options.amount is not None and (options.budget is None or options.amount <= 0):
        raise UserError("--amount is of a --budget, and above 0")
    own = Path("configs")
    folder = options.configs or (own if own.is_dir() else FOLDER)
    found = suites.find(options.suite, options.methods, folder)
    out = options.out or _folder(options)
    check_writable(out)
    if options.data is not None and not options.data.is_file():
        raise UserError(f"--data {options.data}: there is no such file")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with Commands(options.jobs, options.threads) as commands:
        terms = options.budget, options.amount, options.mode
        plans = suites.plan(options.suite, found, out, *terms, commands, options.quick, options.data)
        experiments = suites.experiments(plans, options.suite, seeds, options.quick)
        costs = {one.name: plan.evaluations for one, plan in zip(experiments, plans.values(), strict=True)}
        failed = run_shown(experiments, out, commands, costs)
    present_all(experiments, out, failed, f"ebmzoo {verb} {shlex.join(arguments)}")


def _folder(options: argparse.Namespace) -> Path:
    """Runs under other budgets or with other networks lie apart."""
    parts = [options.suite, *(["quick"] if options.quick else []), options.mode]
    if options.budget:
        parts += [options.budget, "own" if options.amount is None else f"{options.amount:g}"]
    return Path("runs", "benchmark", "_".join(parts))


def run_shown(
    experiments: Sequence[Experiment], out: Path, commands: Commands, costs: Mapping[str, float | None] | None = None
) -> list[str]:
    """Run what has no results, showing how far it is; the runs that failed.

    Args:
        experiments: the rows.
        out: folder of their runs.
        commands: what runs them.
        costs: network evaluations of a training by its row's name, where they are counted.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    everything = [(one, seed) for one in experiments for seed in one.seeds]
    ready = {(one.name, seed) for one, seed in everything if finished(out / one.name / f"seed_{seed}")}
    failed: list[str] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[left]}")) as progress:
        task = progress.add_task("runs", total=len(everything) - len(ready), left="")
        began = monotonic()

        def ended(experiment: Experiment, seed: int, ok: bool) -> None:
            if not ok:
                failed.append(f"{experiment.name} seed {seed}")
            else:
                _record(experiment, seed, (costs or {}).get(experiment.name), out)
            if (experiment.name, seed) not in ready:
                progress.advance(task)
                done, total = progress.tasks[0].completed, progress.tasks[0].total or 0
                minutes = (monotonic() - began) / 60 * (total - done) / done
                left = f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
                progress.update(task, left=left if done < total else "")

        run_all(experiments, out, commands, ended)
    return failed


def present_all(experiments: Sequence[Experiment], out: Path, failed: Sequence[str], command: str) -> None:
    """Present the comparison of what was run.

    Args:
        experiments: the rows.
        out: folder of their runs.
        failed: the runs that did, see `run_shown`.
        command: what makes the page again.

    Raises:
        Stopped: a run failed, or none has numbers.
    """
    done = [out / one.name / f"seed_{seed}" for one in experiments for seed in one.seeds]
    if not any(map(finished, done)):
        raise Stopped(f"no run has ended well; their logs lie in {out}")
    measured = load(folder for folder in done if (folder / RESULTS).is_file())
    present(compare(measured, separate=True), out, command)
    if failed:
        raise Stopped(
            f"{len(failed)} of {len(done)} runs failed ({', '.join(failed)}); the same command tries them again"
        )


def _record(experiment: Experiment, seed: int, evaluations: float | None, out: Path) -> None:
    """Keep with a run what its training cost by count, and how it was made."""
    folder = out / experiment.name / f"seed_{seed}"
    commands = [shlex.join(words) for words in experiment.commands(seed, folder)]
    write(folder / BUDGET, {"network_evaluations": evaluations, "commands": commands})
