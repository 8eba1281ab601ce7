"""The newest state of a training, whatever else is kept of it."""

from __future__ import annotations

from pathlib import Path
from weakref import proxy

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

__all__ = ["LastCheckpoint"]


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
