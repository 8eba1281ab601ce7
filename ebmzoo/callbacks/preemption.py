"""A run that is told to end saves itself first: SIGTERM from a cluster or from `kill`, SIGINT from Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ebmzoo.callbacks.last import LastCheckpoint

__all__ = ["SaveOnTermination", "Terminated"]

_WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
_HEARD = b"\ninterrupted: saving after this iteration; Ctrl-C again ends at once\n"


class Terminated(SIGTERMException):
    """The end of a run that was told to end and has been saved; its code is the one that shells know the signal by.

    Attributes:
        step: the iteration that was saved.
    """

    def __init__(self, number: int, step: int, saved: str):
        super().__init__(f"{_WORDS[signal.Signals(number)]} at step {step}: saved {saved}")
        self.code, self.step = 128 + number, step


class SaveOnTermination(Callback):
    """On SIGTERM or Ctrl-C: finish the iteration, save a checkpoint, and leave by `Terminated`.

    A second Ctrl-C ends at once, without saving. A run that is told in its last batch just ends.

    Under several processes the signal may reach any of them: all save and leave after the same batch. Lightning's own
    answer to the signals saves nothing, and talks to the other processes from within the signal handler.

    Args:
        last: what saves.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        super().__init__()
        self.last = last
        self.told = 0  # the signal's number
        self.saved = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over while batches are trained on."""
        self.told, self.saved = 0, False
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _WORDS}

    def _note(self, number: int, frame: Any) -> None:
        self.told = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(sys.stderr.fileno(), _HEARD)  # print() may be what was interrupted

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if any process was told to end."""
        if trainer.world_size > 1:
            told = torch.tensor(float(self.told), device=pl_module.device)
            self.told = int(trainer.strategy.reduce(told, reduce_op="max"))
        if not self.told:
            return
        self.last.save(trainer)
        self.saved = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave, now that what the last batch reported is logged too."""
        if self.saved:
            raise Terminated(self.told, trainer.global_step, str(self.last.path))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
