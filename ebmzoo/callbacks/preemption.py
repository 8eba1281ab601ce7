"""A run that is told to end saves itself first: SIGTERM from a cluster, or from `kill`."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ebmzoo.callbacks.last import LastCheckpoint

__all__ = ["SaveOnTermination"]


class SaveOnTermination(Callback):
    """On SIGTERM: finish the batch, save a checkpoint, and leave by Lightning's ``SIGTERMException``.

    A run that is told in its last batch just ends.

    Under several processes the signal may reach any of them: all save and leave after the same batch. Lightning's own
    answer to the signal saves nothing, and talks to the other processes from within the signal handler.

    Args:
        last: what saves.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        super().__init__()
        self.last = last
        self.told = self.saved = False
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal over while batches are trained on."""
        self.told = self.saved = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.told = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if any process was told to end."""
        told = self.told
        if trainer.world_size > 1:
            told = bool(trainer.strategy.reduce(torch.tensor(float(told), device=pl_module.device), reduce_op="max"))
        if not told:
            return
        self.last.save(trainer)
        self.saved = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave, now that what the last batch reported is logged too."""
        if self.saved:
            raise SIGTERMException(f"terminated at step {trainer.global_step}: saved {self.last.path}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
