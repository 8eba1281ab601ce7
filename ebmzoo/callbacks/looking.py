"""Looking at a model without disturbing it: what the callbacks that sample have in common."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ebmzoo.callbacks.ema import averaged_weights
from ebmzoo.mcmc import GeneratorNoise
from ebmzoo.methods.at_rest import unclamped
from ebmzoo.methods.capabilities import Samples

__all__ = ["batches_of_samples", "chain_steps", "looking_at", "run_folder", "sampler_settings", "spooled"]

_PRIME = 1_000_003  # keeps (seed, batch) pairs apart for up to a million batches


@contextmanager
def looking_at(trainer: Trainer, pl_module: LightningModule) -> Iterator[bool]:
    """In eval mode, without gradients, with averaged weights if there are any, sparing torch's generators.

    Samples are as chains left them, not clamped: figures of chains and energies are of those, and bytes clamp anyway.

    Afterwards the model is as it was, each network in its own mode, also after an exception.

    Yields:
        Whether the model has averaged weights meanwhile.
    """
    modes = [(module, module.training) for module in pl_module.modules()]
    devices = [pl_module.device] if pl_module.device.type == "cuda" else []
    with averaged_weights(trainer, pl_module) as ema, torch.random.fork_rng(devices=devices):
        pl_module.eval()
        try:
            with torch.no_grad(), unclamped(pl_module):
                yield ema
        finally:
            for module, training in modes:
                module.training = training


def batches_of_samples(
    model: Samples,
    n: int,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    steps: int | None = None,
) -> Iterator[Tensor]:
    """Draw ``n`` samples batch by batch, each batch from a generator of its own.

    Since a batch's noise depends on (seed, its number) only, several processes together draw the samples that
    one would: process r of w takes the batches r, r + w, r + 2w, ... ``steps`` is what ``model.sample`` is told.

    Yields:
        Samples ``(batch_size or fewer, ...)`` in the data's units.
    """
    for number in range(rank, -(-n // batch_size), world_size):
        generator = torch.Generator(device).manual_seed(seed * _PRIME + number)
        size = min(batch_size, n - number * batch_size)
        yield model.sample(size, steps=steps, noise=GeneratorNoise(generator))


def sampler_settings(model: Any, steps: int | None = None) -> dict[str, Any]:
    """What a protocol says of how ``model.sample`` draws: its sampler with every setting of it.

    Args:
        model: the method.
        steps: what ``model.sample`` is told; None is the test-time sampler's own number.

    Returns:
        "sampler", "steps", "step_size", "temperature", and "details", the sampler's own fields as plain data;
        all None (and no details) for a model that does not say.

    Example:
        >>> class OneStep:
        ...     def test_sampler(self):
        ...         return None, 0
        >>> sampler_settings(OneStep())["sampler"]
        'none (one step)'
    """
    if not hasattr(model, "test_sampler"):
        return {"sampler": None, "steps": None, "step_size": None, "temperature": None, "details": {}}
    sampler, own = model.test_sampler()
    if steps is None:
        steps = own
    elif steps and sampler is None:
        sampler = getattr(model, "sampler", None)  # one-step methods run their training chain where they are asked to
    if sampler is None or not steps:
        found = {"sampler": "none (one step)", "steps": 0, "step_size": None, "temperature": None}
        return {**found, "details": {}}
    details = asdict(sampler) if is_dataclass(sampler) and not isinstance(sampler, type) else {}
    return {
        "sampler": type(sampler).__name__,
        "steps": steps,
        "step_size": getattr(sampler, "step_size", None),
        "temperature": getattr(sampler, "temperature", None),
        "details": {**details, "steps": steps} if details else {},
    }


def chain_steps(model: Any) -> int:
    """Steps of the chain that samples are made by, else of the one that training runs; 0 if there is none."""
    steps = model.test_sampler()[1] if hasattr(model, "test_sampler") else 0
    return int(steps or getattr(getattr(model, "sampler", None), "steps", 0))


def spooled(n: int, like: Tensor, folder: Path) -> Tensor:
    """Room for ``n`` examples like one, in a file that goes away by itself: memory does not grow with their number.

    Args:
        n: number of examples.
        like: one of them.
        folder: where there is space on a disk.

    Returns:
        ``(n, *like.shape)`` of its dtype, on the CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".samples.")
    os.close(handle)
    try:
        room = torch.from_file(name, shared=True, size=n * like.numel(), dtype=like.dtype)
    finally:
        # The mapping outlives the name; a system where it does not keeps the file until it is deleted by hand.
        with suppress(OSError):
            os.unlink(name)
    return room.view(n, *like.shape)


def run_folder(trainer: Trainer) -> Path:
    """Where a run's files go: the ``default_root_dir`` that the trainer was given, or its logger's folder.

    All processes must call it.
    """
    log_dir = trainer.log_dir  # a broadcast: every process takes part, whatever becomes of the value
    root = trainer.default_root_dir
    if log_dir is None or os.path.realpath(root) != os.path.realpath(os.getcwd()):
        return Path(root)
    return Path(log_dir)
