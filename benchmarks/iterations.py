"""Training iterations of whole methods, as this package runs them against as they are plainly written.

    python benchmarks/iterations.py configs/ecvae_digits.yaml ...      # or: digits, cifar10; both by default

Images are uniform noise of the config's shape: only the time is looked at. "digits" are the configs as they are,
"cifar10" the networks for CIFAR-10 with batches of 2 and chains of 5 steps. One run of each changes between both ways
every few iterations; a ratio is the median of its rounds' own, with quartiles, of CPU time with one thread. Beside it
stands the largest relative difference of the losses of the first iteration of two runs with one seed. (Adam's
first update follows the sign of a gradient: where one is nearly zero, later iterations drift apart by rounding alone.)
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser
from plainly import plainly
from torch.utils.data import DataLoader

from ebmzoo.checkpoints import models  # noqa: F401 - what the parser needs to know samplers
from ebmzoo.cli.configs import load_all
from ebmzoo.data.base import DataModule
from ebmzoo.methods import Method

ROOT = Path(__file__).resolve().parent.parent / "configs"
METHODS = ("bidvl", "denoising_ebm", "dual_mcmc", "ebm", "ecvae", "vaebm")
GROUPS = {
    "digits": [ROOT / f"{name}_digits.yaml" for name in METHODS],
    "cifar10": [ROOT / f"{name}_cifar.yaml" for name in METHODS],
}
SAMPLERS = ("Langevin", "MALA", "HMC", "AnnealedLangevin")


class Alternate(L.Callback):
    """Changes between the two ways after every ``period`` iterations and keeps the CPU time of each period."""

    def __init__(self, period: int, rounds: int) -> None:
        # Each round in the other order, and one before them that warms up: traces, caches, allocations.
        self.turns = [plain for turn in range(rounds + 1) for plain in ((True, False) if turn % 2 else (False, True))]
        self.period = period
        self.seconds: list[float] = []
        self._way: AbstractContextManager[None] = nullcontext()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        if index % self.period == 0:
            self._way = plainly(pl_module) if self.turns[index // self.period] else nullcontext()
            self._way.__enter__()
            self._began = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if (_[-1] + 1) % self.period == 0:
            self.seconds.append(time.process_time() - self._began)
            self._way.__exit__(None, None, None)

    def ratios(self) -> list[float]:
        """Plain time over ours, of each round but the first."""
        pairs = list(zip(self.turns, self.seconds, strict=True))
        rounds = [dict(pairs[at : at + 2]) for at in range(2, len(pairs), 2)]
        return [one[True] / one[False] for one in rounds]


class Losses(L.Callback):
    """What every iteration logged as losses."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *_: Any) -> None:
        self.found.append({name: float(value) for name, value in pl_module.watched.items() if "loss" in name})


def short(model: Any, steps: int) -> Any:
    """A copy of a model's config with chains of so many steps, in its last stage from the first iteration."""
    if isinstance(model, list):
        return [short(item, steps) for item in model]
    if not isinstance(model, dict):
        return model
    found = {key: short(value, steps) for key, value in model.items()}
    if found.get("class_path") in SAMPLERS and steps:
        found["init_args"] = {**found["init_args"], "steps": steps}
    return {key: 0 if key in ("vae_steps", "contrast_start") else value for key, value in found.items()}


def train(
    config: dict[str, Any], batch: int, steps: int, iterations: int, callback: L.Callback, logs: int = 50
) -> None:
    """Fit a fresh model of a config to noise; 0 steps leaves its chains as they are."""
    torch.manual_seed(0)
    load_all()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    parser.add_subclass_arguments(Method, "model")
    shape = parser.instantiate_classes(parser.parse_object({"data": config["data"]}, defaults=False)).data.image_shape
    model = short(config["model"], steps)
    model["init_args"]["image_shape"] = list(shape)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "model")
    method = parser.instantiate_classes(parser.parse_object({"model": model})).model
    images = torch.rand(batch * iterations, *shape) * 2 - 1
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[callback], log_every_n_steps=logs, **quiet)
    trainer.fit(method, DataLoader(images, batch))


def measure(path: Path, small: bool, rounds: int) -> str:
    """One line of the table."""
    config = yaml.safe_load(path.read_text())
    batch, steps, period = (config["data"]["init_args"]["batch_size"], 0, 12) if small else (2, 5, 3)
    alternate = Alternate(period, rounds)
    train(config, batch, steps, period * len(alternate.turns), alternate)
    ratios = alternate.ratios()
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    ours = statistics.median(s for s, plain in zip(alternate.seconds, alternate.turns, strict=True) if not plain)
    both = []
    for plain in (False, True):
        losses = Losses()
        both.append(losses.found)
        with plainly(torch.nn.Module()) if plain else nullcontext():
            train(config, batch, steps, 1, losses, logs=1)
    differences = [abs(a[name] - b[name]) / max(abs(b[name]), 1e-3) for a, b in zip(*both, strict=True) for name in b]
    milliseconds = 1e3 * ours / period
    return f"| {path.stem} | {milliseconds:.3g} | {median:.2f} [{low:.2f}, {high:.2f}] | {max(differences):.0e} |"


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(GROUPS), help="files, digits, cifar10")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print("| config | ms an iteration | plain / ours | losses |\n|---|---|---|---|")
    for word in options.configs:
        for path in GROUPS.get(word, [Path(word)]):
            print(measure(path, not path.stem.endswith("_cifar"), options.rounds), flush=True)


if __name__ == "__main__":
    main()
