"""Experiments as commands of the command line: trained and tested once, never repeated, never hidden."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebmzoo.files import written_whole

from .commands import Commands

RESULTS, TIMES, BUDGET = "results.json", "times.json", "budget.json"


@dataclass(frozen=True)
class Experiment:
    """One row of a table: a config, what is changed of it, and its seeds.

    Args:
        name: of the row and of its folder.
        config: path of a yaml config.
        overrides: command-line options for `ebmzoo fit`, such as ``{"model.kl_weight": 0.5}``.
        test: command-line options for `ebmzoo test`.
        seeds: each is ``seed_everything`` and the seed of the data's order.
        of: name of another experiment: this one trains nothing and tests that one's checkpoints with its own options.
    """

    name: str
    config: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    test: Mapping[str, object] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    of: str | None = None

    def fit_command(self, seed: int, folder: Path) -> list[str]:
        """The words that train one seed, from its newest checkpoint where it was cut off.

        Example:
            >>> Experiment("vae", "configs/vae_digits.yaml").fit_command(1, Path("out"))[1:]
            ['fit', '--config', 'configs/vae_digits.yaml', '--seed_everything', '1', '--data.seed', '1', ...]
        """
        seeds = {"seed_everything": seed, "data.seed": seed}
        place = {"run_dir": folder, "resume": "auto"}
        return ["ebmzoo", "fit", "--config", self.config, *_options({**seeds, **place, **self.overrides})]

    def test_command(self, folder: Path) -> list[str]:
        """The words that evaluate a trained seed.

        Example:
            >>> Experiment("mean", "vaebm.yaml", test={"model.output": "mean"}, of="vaebm").test_command(
            ...     Path("bench/mean/seed_0"))[2:]
            ['--ckpt_path', 'bench/vaebm/seed_0/checkpoints/last.ckpt', '--run_dir', 'bench/mean/seed_0', ...]
        """
        trained = folder if self.of is None else folder.parent.parent / self.of / folder.name
        checkpoint = trained / "checkpoints" / "last.ckpt"
        return ["ebmzoo", "test", "--ckpt_path", str(checkpoint), "--run_dir", str(folder), *_options(self.test)]

    def commands(self, seed: int, folder: Path) -> list[list[str]]:
        """What one seed runs, in order."""
        test = self.test_command(folder)
        return [test] if self.of else [self.fit_command(seed, folder), test]


def finished(folder: Path) -> bool:
    """Whether a run has numbers: the guard too writes a results file, without any, when a training diverges."""
    path = folder / RESULTS
    return path.is_file() and bool(read(path).get("results"))


def read(path: Path) -> dict[str, Any]:
    """What a file of a benchmark's bookkeeping holds.

    Raises:
        ValueError: it is not a whole one.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is cut off or not ours: delete it, and give the same command again") from error


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write such a file: killed at any moment, a benchmark leaves whole ones."""
    with written_whole(path) as file:
        file.write(json.dumps(found, indent=2).encode())


def run(
    experiments: Iterable[Experiment],
    root: Path,
    commands: Commands,
    ended: Callable[[Experiment, int, bool], None] | None = None,
) -> list[tuple[Experiment, int, Path]]:
    """Train and test every seed that has no results yet, as many at a time as there are ``commands.jobs``.

    A failed run is reported and does not stop the others; its log lies beside its folder.

    Args:
        experiments: in the order of the table.
        root: folder of all runs.
        commands: what runs them.
        ended: told of every seed that has results, or could not get them, and which of the two.

    Returns:
        What has results: experiment, seed, path of the results file.
    """
    everything = list(experiments)
    done: list[tuple[Experiment, int, Path]] = []
    with ThreadPoolExecutor(commands.jobs) as pool:
        # What is only tested waits until all that is trained has ended.
        for group in ([e for e in everything if not e.of], [e for e in everything if e.of]):
            runs = [(e, seed, root / e.name / f"seed_{seed}") for e in group for seed in e.seeds]

            def one(job: tuple[Experiment, int, Path]) -> bool:
                try:
                    ok = _one(*job, commands)
                except ValueError as error:
                    print(f"{job[0].name} seed {job[1]}: {error}", flush=True)
                    ok = False
                if ended is not None:
                    ended(job[0], job[1], ok)
                return ok

            well = list(pool.map(one, runs))
            done += [(e, seed, folder / RESULTS) for (e, seed, folder), ok in zip(runs, well, strict=True) if ok]
    return sorted(done, key=lambda one: everything.index(one[0]))


def _one(experiment: Experiment, seed: int, folder: Path, commands: Commands) -> bool:
    if finished(folder):
        return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    log, times = folder.with_suffix(".log"), _times(folder)
    for words in experiment.commands(seed, folder):
        if words[1] in times:
            continue
        resumed = folder.is_dir() and words[1] == "fit"
        code, time = commands(words, log)
        if code:
            print(f"{experiment.name} seed {seed}: {words[1]} ended with {code}, see {log}", flush=True)
            return False
        # What it took was a part of it alone where it went on; the imports had been made before.
        times[words[1]] = {**time, "imports": False} | ({"resumed": True} if resumed else {})
        write(folder / TIMES, times)
    spent = ", ".join(f"{verb} {time['cpu_s']:.0f} s" for verb, time in times.items())
    print(f"{experiment.name} seed {seed}: {spent} of CPU time", flush=True)
    return True


def _times(folder: Path) -> dict[str, dict[str, float]]:
    """What the commands took that have ended well; a training among them is not repeated when its test is."""
    times: dict[str, dict[str, float]] = read(folder / TIMES) if (folder / TIMES).is_file() else {}
    times.pop("test", None)
    return times


def _options(settings: Mapping[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
