"""Experiments as subprocesses of the command line: trained and tested once, never repeated, never hidden."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = "results.json"


@dataclass(frozen=True)
class Experiment:
    """One row of a table: a config, what is changed of it, and its seeds.

    Args:
        name: of the row and of its folder.
        config: path of a yaml config.
        overrides: command-line options for `ebmzoo fit`, such as ``{"model.kl_weight": 0.5}``.
        test: command-line options for `ebmzoo test`.
        seeds: each is ``seed_everything`` and the seed of the data's order.
    """

    name: str
    config: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    test: Mapping[str, object] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)

    def fit_command(self, seed: int, folder: Path) -> list[str]:
        """The words that train one seed.

        Example:
            >>> Experiment("vae", "configs/vae_digits.yaml").fit_command(1, Path("out"))[1:]
            ['fit', '--config', 'configs/vae_digits.yaml', '--seed_everything', '1', '--data.seed', '1', ...]
        """
        words = [
            "ebmzoo",
            "fit",
            "--config",
            self.config,
            "--seed_everything",
            str(seed),
            "--data.seed",
            str(seed),
        ]
        return [*words, "--run_dir", str(folder), *_options(self.overrides)]

    def test_command(self, folder: Path) -> list[str]:
        """The words that evaluate a trained seed."""
        return [
            "ebmzoo",
            "test",
            "--ckpt_path",
            str(folder / "checkpoints" / "last.ckpt"),
            *_options(self.test),
        ]


def run(
    experiments: Iterable[Experiment], root: Path, jobs: int = 2, threads: int = 1
) -> list[tuple[Experiment, int, Path]]:
    """Train and test every seed that has no results yet, ``jobs`` at a time with so many ``threads`` each.

    A failed run is reported and does not stop the others; its log lies beside its folder.

    Returns:
        What has results: experiment, seed, path of the results file.
    """
    runs = [
        (experiment, seed, root / experiment.name / f"seed_{seed}")
        for experiment in experiments
        for seed in experiment.seeds
    ]
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda one: _one(one[0], one[1], one[2], threads), runs))
    return [
        (experiment, seed, folder / RESULTS) for (experiment, seed, folder), ok in zip(runs, done, strict=True) if ok
    ]


def _one(experiment: Experiment, seed: int, folder: Path, threads: int) -> bool:
    if (folder / RESULTS).is_file():
        return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    began, log = time.monotonic(), folder.with_suffix(".log")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("w") as out:
        for words in (experiment.fit_command(seed, folder), experiment.test_command(folder)):
            command = [sys.executable, "-m", "ebmzoo.cli.main", *words[1:]]
            code = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False
            ).returncode
            if code:
                print(f"{experiment.name} seed {seed}: {words[1]} ended with {code}, see {log}", flush=True)
                return False
    print(f"{experiment.name} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def _options(settings: Mapping[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
