"""``ebmzoo sweep``: every combination of some settings over seeds, here or as a SLURM array, and one page of them."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from ebmzoo.cli.arguments import OneLineParser, check_writable
from ebmzoo.cli.benchmark import present_all, run_shown
from ebmzoo.cli.configs import config_path
from ebmzoo.cli.errors import UserError
from ebmzoo.report.commands import Commands
from ebmzoo.report.runs import Experiment

_UNSAFE = re.compile(r"[^\w.+-]+")  # in the name of a folder
_SCRIPT = """\
#!/usr/bin/env bash
# Written by: {command}
# Start with sbatch, and again for what was cut off: finished runs are not repeated.
# The page of all is then made by the command above without --slurm.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={logs}/%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
{options}
mapfile -t tasks < {tasks}
srun bash -c "${{tasks[$SLURM_ARRAY_TASK_ID]}}"
"""


def run(verb: str, arguments: Sequence[str]) -> None:
    """Train and test every combination, or write what a cluster is to run, and present the comparison."""
    parser = OneLineParser(
        verb, "Train and test a config with every combination of some settings, over seeds. Finished runs are kept."
    )
    parser.add_argument("--config", required=True, help="a config, or the name of a shipped one")
    parser.add_argument(
        "--set",
        nargs="+",
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a setting and its values: --set model.sampler.steps 5 15; a single one holds for all; may be repeated",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 0, 1, ... (3)")
    parser.add_argument("--first_seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--out", type=Path, help="folder of runs, table and page (runs/sweep/<config>)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (1)")
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="OPTION",
        help="run nothing: write an sbatch script with these options, such as --slurm gpus=1 time=24:00:00",
    )
    options = parser.parse_args(arguments)
    if min(options.seeds, options.jobs, options.threads) < 1 or options.first_seed < 0:
        raise UserError("--seeds, --jobs and --threads are at least 1, --first_seed at least 0")
    config = config_path(options.config)
    out = options.out or Path("runs", "sweep", Path(config).stem)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    experiments = combinations(config, _settings(options.set), seeds)
    check_writable(out)
    command = f"ebmzoo {verb} {shlex.join(arguments)}"
    with Commands(options.jobs, options.threads) as commands:
        _check(experiments, out, commands)
        if options.slurm is not None:
            print(f"next: sbatch {_write(experiments, out, command, options.slurm)}")
            return
        failed = run_shown(experiments, out, commands)
    present_all(experiments, out, failed, command)


def combinations(config: str, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[Experiment]:
    """A row for each combination, named after the config and what differs.

    Example:
        >>> found = combinations("vae.yaml", {"model.vae.sigma": ["0.1", "0.3"], "trainer.max_steps": ["50"]}, [0])
        >>> [(one.name, dict(one.overrides)) for one in found][0]
        ('vae_sigma=0.1', {'model.vae.sigma': '0.1', 'trainer.max_steps': '50'})
    """
    varied = [key for key, values in settings.items() if len(values) > 1]
    rows = []
    for values in product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        parts = [f"{_short(key, varied)}={_UNSAFE.sub('-', chosen[key])}" for key in varied]
        rows.append(Experiment("_".join([Path(config).stem, *parts]), config, chosen, seeds=seeds))
    return rows


def _settings(given: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, *values in given:
        name = key.lstrip("-")
        if not values:
            raise UserError(f"--set {key} has no value: give one for all runs, or several to try")
        if name in found or len(set(values)) < len(values):
            raise UserError(f"--set {key} is given twice" if name in found else f"--set {key} has a value twice")
        found[name] = values
    return found


def _short(key: str, others: Sequence[str]) -> str:
    """The last words of a key that no other one ends with."""
    words = key.split(".")
    for count in range(1, len(words)):
        tail = ".".join(words[-count:])
        if sum(f".{other}".endswith(f".{tail}") for other in others) == 1:
            return tail
    return key


def _check(experiments: Sequence[Experiment], out: Path, commands: Commands) -> None:
    """Refuse before the first training what the command line refuses of any combination."""
    with tempfile.TemporaryDirectory() as folder:
        for one in experiments:
            log = Path(folder) / one.name
            code, _ = commands([*one.fit_command(one.seeds[0], out / one.name), "--print_config"], log)
            if code:
                said = log.read_text().strip().splitlines()
                raise UserError(f"{one.name}: {said[-1].removeprefix('ebmzoo: error: ') if said else 'refused'}")


def _write(experiments: Sequence[Experiment], out: Path, command: str, options: Sequence[str]) -> Path:
    """The script of an array with a task for each run, and the tasks' commands, a line each."""
    out.mkdir(parents=True, exist_ok=True)
    script, tasks = out / "sweep.sbatch", out / "tasks.txt"
    lines = [
        " && ".join(shlex.join(words) for words in one.commands(seed, (out / one.name / f"seed_{seed}").resolve()))
        for one in experiments
        for seed in one.seeds
    ]
    tasks.write_text("\n".join(lines) + "\n")
    places = {"logs": out.resolve(), "tasks": shlex.quote(str(tasks.resolve()))}
    directives = "\n".join(f"#SBATCH --{one.lstrip('-')}" for one in options)
    name = experiments[0].config.rpartition("/")[2].removesuffix(".yaml")
    script.write_text(_SCRIPT.format(command=command, name=name, last=len(lines) - 1, options=directives, **places))
    return script
