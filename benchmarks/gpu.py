"""Whole training iterations and a chain's step on a GPU, beside the ceilings of the card in the same run.

    sh benchmarks/gpu.sh                 # all, on CUDA, at most 8 minutes
    sh benchmarks/gpu.sh --tiny          # on a CPU, with narrow networks and two images: that it runs

Images are uniform noise of the config's shape and batch. A time is the median of the iterations that fit into so many
seconds, after those in which chains are captured; of VAEBM it is stage two, of Denoising-EBM an iteration with chains.
"before" is what one H200 took before chains were captured whole, "to reach" what was set (docs/speed.md).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.utils.data import DataLoader

from ebmzoo.cli.speed import made
from ebmzoo.mcmc import Langevin
from ebmzoo.networks import VAEBMEnergy
from ebmzoo.precision import decide

TINY = 4  # width
WARM_UP = 4  # iterations as they are, those in which chains and losses are captured, one that replays


class Row(NamedTuple):
    """A case: ms at the last measurement, ms to reach."""

    before: float
    reach: float


CONFIGS = {
    "ecvae_cifar": Row(459, 120),
    "vaebm_cifar": Row(1508, 350),
    "dual_mcmc_cifar": Row(1363, 150),
    "denoising_ebm_cifar": Row(3697, 1000),
    "ebm_cifar": Row(623, 100),
    "bidvl_cifar": Row(33, 12),
}
CHAIN = Row(8.4, 5)


class Stopwatch(L.Callback):
    """Times iterations after the first ones, until its seconds are over."""

    def __init__(self, seconds: float, device: torch.device) -> None:
        self.found: list[float] = []
        self._until, self._device = time.perf_counter() + seconds, device

    def on_train_batch_start(self, *_: Any) -> None:
        self._began = now(self._device)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        ended = now(self._device)
        self.found.append(ended - self._began)
        trainer.should_stop = len(self.found) > WARM_UP and ended > self._until


def now(device: torch.device) -> float:
    """The time when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def repeated(run: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Median seconds of a run."""
    for _ in range(WARM_UP):
        run()
    found: list[float] = []
    until = time.perf_counter() + seconds
    while not found or time.perf_counter() < until:
        began = now(device)
        run()
        found.append(now(device) - began)
    return statistics.median(found)


def ceilings(device: torch.device, tiny: bool) -> str:
    """What the device does at its best: products in three precisions, and a copy."""
    size, words = 256 if tiny else 8192, []
    for name, dtype, tf32 in (("bf16", torch.bfloat16, False), ("TF32", torch.float32, True), ("fp32", None, False)):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        a, b = torch.randn(2, size, size, device=device, dtype=dtype)
        each = repeated(lambda a=a, b=b: a @ b, device, 0.1 if tiny else 1.0)
        words.append(f"{name} {2 * size**3 / each / 1e12:.3g} TFLOP/s")
    torch.set_float32_matmul_precision("highest")
    x = torch.empty(2**20 if tiny else 2**28, device=device)
    y = torch.empty_like(x)
    each = repeated(lambda: y.copy_(x), device, 0.1 if tiny else 1.0)
    return f"{', '.join(words)}; memory {2 * x.numel() * 4 / each / 1e9:.4g} GB/s"


def iteration(name: str, device: torch.device, tiny: bool, seconds: float) -> float:
    """Median seconds of an iteration of a config."""
    torch.manual_seed(0)
    model, batch = made(name, TINY if tiny else None)
    for setting, value in {"vae_steps": 0, "contrast_every": 1}.items():
        if hasattr(model, setting):
            setattr(model, setting, value)
    if tiny:
        batch = 2
        for setting in ("sampler", "latent_sampler", "semantic_sampler"):
            if (sampler := getattr(model, setting, None)) is not None:
                setattr(model, setting, replace(sampler, steps=2))
    images = torch.rand(batch, *model.image_shape) * 2 - 1
    watch = Stopwatch(seconds, device)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed",
        max_steps=WARM_UP + 1 if tiny else 1000,
        log_every_n_steps=10**6,
        callbacks=[watch],
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(model, DataLoader([images] * 1000, batch_size=None))  # type: ignore[arg-type]
    return statistics.median(watch.found[WARM_UP:])


def step(device: torch.device, tiny: bool, seconds: float) -> float:
    """Seconds of a step of Table 7's chain, c=128, batch 512."""
    net = VAEBMEnergy((3, 32, 32), width=TINY if tiny else 128).to(device, memory_format=torch.channels_last)
    x, sampler = torch.randn(2 if tiny else 512, 3, 32, 32, device=device), Langevin(4 if tiny else 30, 1e-2, 1e-2)
    with torch.autocast(device.type, torch.bfloat16):
        return repeated(lambda: sampler(net, x, noise=0), device, seconds) / sampler.steps


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, in tiny sizes")
    parser.add_argument("--seconds", type=float, default=25, help="of timed iterations, a config (25)")
    parser.add_argument("configs", nargs="*", default=list(CONFIGS), help="some of them")
    options = parser.parse_args(words)
    device = torch.device("cpu" if options.tiny else "cuda")
    seconds = 0.0 if options.tiny else options.seconds
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    began = time.perf_counter()
    name = "CPU, tiny" if options.tiny else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}: {ceilings(device, options.tiny)}")
    print(f"precision of all: {decide(device, 'bf16-mixed')}\n")
    print("| case | ms | before, H200 | to reach | peak MiB |\n|---|---|---|---|---|")
    cases: dict[str, tuple[Row, Callable[[], float]]] = {
        name: (CONFIGS[name], lambda name=name: iteration(name, device, options.tiny, seconds))
        for name in options.configs
    }
    cases["Table 7, c=128, b512: a step"] = CHAIN, lambda: step(device, options.tiny, seconds / 5)
    for case, (row, run) in cases.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            found = f"{1e3 * run():.4g}"
        except Exception as error:  # the others are to be measured all the same
            found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        peak = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if device.type == "cuda" else ""
        print(f"| {case} | {found} | {row.before:g} | {row.reach:g} | {peak} |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
