"""How long an iteration of a config takes here, by taking a few."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from ebmzoo.methods.base import Method

_MEASURED = 2  # after one that warms up


class _Stopwatch(Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._began = _now(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(_now(pl_module) - self._began)


def seconds_an_iteration(model: Method, batch_size: int, **trainer: Any) -> float:
    """Seconds of an iteration of the method's main stage, on noise: the mean of two, after one that warms up.

    The model is trained by them.

    Args:
        model: the method.
        batch_size: examples of an iteration.
        trainer: settings of Lightning's Trainer: accelerator, precision.
    """
    for stage in ("vae_steps", "flow_steps"):
        if hasattr(model, stage):
            setattr(model, stage, 0)
    watch = _Stopwatch()
    batches: Any = [torch.rand(batch_size, *model.image_shape) * 2 - 1] * (1 + _MEASURED)
    fit = Trainer(
        max_steps=1 + _MEASURED,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
        **trainer,
    )
    fit.fit(model, DataLoader(batches, batch_size=None))
    return sum(watch.seconds[1:]) / _MEASURED


def duration(seconds: float) -> str:
    """A time in words, of two digits.

    Example:
        >>> duration(0.456), duration(75), duration(9_000), duration(260_000)
        ('460 ms', '1.2 min', '2.5 h', '3 days')
    """
    units = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms"))
    size, unit = next((one for one in units if seconds >= one[0]), units[-1])
    return f"{float(f'{seconds / size:.2g}'):,g} {unit}"


def _now(module: LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()
