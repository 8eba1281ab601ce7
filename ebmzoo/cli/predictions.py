"""What ``ebmzoo predict`` leaves: one array per quantity, one row per example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ebmzoo.files import written_whole
from ebmzoo.methods.resuming import gathered


class Predictions(Callback):
    """Collects the dicts of ``predict_step`` and writes them to ``predictions.npz`` in the data's order.

    Several processes share a global batch as `OrderedBatches` cuts it: the first has its first rows, and so on. Each
    batch is joined again in that order, and the first process alone keeps and writes the rows.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path):
        self.path = folder / "predictions.npz"
        self._parts: dict[str, list[Tensor]] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the values of all processes' batches in main memory."""
        shares = gathered({name: values.detach().float().cpu() for name, values in outputs.items()})
        for share in shares if trainer.is_global_zero else []:
            for name, values in share.items():
                self._parts.setdefault(name, []).append(values)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, whole or not at all."""
        if not trainer.is_global_zero:
            return
        values = {name: torch.cat(parts).numpy() for name, parts in self._parts.items()}
        with written_whole(self.path) as file:
            np.savez_compressed(file, allow_pickle=False, **values)
        shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in values.items())
        print(f"{self.path}: {shapes}")
