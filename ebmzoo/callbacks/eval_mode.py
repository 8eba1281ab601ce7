"""A model in eval mode, undisturbed, and where what it gives is put: what the callbacks that sample have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from ebmzoo.callbacks.ema import averaged_weights
from ebmzoo.methods.at_rest import unclamped


@contextmanager
def eval_mode(trainer: Trainer, pl_module: LightningModule) -> Iterator[bool]:
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


def run_folder(trainer: Trainer) -> Path:
    """Where a run's files go: the ``default_root_dir`` that the trainer was given, or its logger's folder.

    All processes must call it.
    """
    log_dir = trainer.log_dir  # a broadcast: every process takes part, whatever becomes of the value
    root = trainer.default_root_dir
    if log_dir is None or os.path.realpath(root) != os.path.realpath(os.getcwd()):
        return Path(root)
    return Path(log_dir)


def logged_step(iterations: int) -> int:
    """Where on the loggers' axis stands what is so after that many iterations: Lightning counts them from 0.

    Example:
        >>> logged_step(200)  # the losses of the 200th iteration stand there too
        199
    """
    return max(iterations - 1, 0)


def log_picture(trainer: Trainer, name: str, picture: Tensor, iterations: int) -> None:
    """Hand a picture, uint8 ``(3, H, W)``, made after so many iterations, to every logger that takes images."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # W&B
            caption = f"{name}, after {iterations:,} iterations"
            image = Image.fromarray(picture.permute(1, 2, 0).numpy())
            logger.log_image(key=f"pictures/{name}", images=[image], step=logged_step(iterations), caption=[caption])
            continue
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):  # TensorBoard
            experiment.add_image(f"pictures/{name}", picture.numpy(), logged_step(iterations))
