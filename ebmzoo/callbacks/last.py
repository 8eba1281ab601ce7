"""The newest state of a training, whatever else is kept of it; SIGTERM and Ctrl-C save it before they end a run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from weakref import proxy

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

_WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
_HEARD = b"\ninterrupted: saving after this iteration; Ctrl-C again ends at once\n"


class LastCheckpoint(Checkpoint):
    """Saves the state after every validation and at the end of training.

    Lightning's ``ModelCheckpoint(monitor=..., save_last=True)`` writes ``last.ckpt`` only when it keeps a new best: the
    file is then the best, and what was trained after it is lost.

    Args:
        path: the checkpoint, usually ``last.ckpt`` of the run.

    Example:
        >>> LastCheckpoint("runs/mine/checkpoints/last.ckpt").path.name
        'last.ckpt'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing of this training is saved yet."""
        self._saved = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was validated."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what has been trained since."""
        if self._saved != trainer.global_step:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now; to be called by all processes."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        others = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
        for callback in others:
            callback.last_model_path = str(self.path)  # or its own last.ckpt would count versions beside this one
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero and others:
            for logger in trainer.loggers:  # one that keeps checkpoints looks for their paths in such a callback
                logger.after_save_checkpoint(proxy(others[0]))


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
