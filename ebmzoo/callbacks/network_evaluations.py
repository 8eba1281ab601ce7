"""What a training has cost in network evaluations, logged beside what it has reached."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ebmzoo.figures.cost import Tally

_NAME = "train/network_evaluations"


class NetworkEvaluations(Callback):
    """Logs ``train/network_evaluations``: those of the training until now, all processes and resumed parts together.

    One is a forward of one example through one network, and its gradient one more. It stands in the rows of training
    and in those of validation, so that ``val/fid_*`` can be drawn over it: an iteration of one method may cost twenty
    times that of another. Validation and pictures are not counted; to leave out what other callbacks do at the end of a
    batch, this one comes first among them, as it does in ``ebmzoo fit``.

    Example:
        >>> NetworkEvaluations().spent
        0
    """

    def __init__(self) -> None:
        super().__init__()
        self.spent = 0
        self._tally: Tally | None = None
        self._before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._tally = Tally(pl_module).__enter__()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave out what came before."""
        assert self._tally is not None
        self._before = self._tally.total

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the batch's."""
        assert self._tally is not None
        self.spent += (self._tally.total - self._before) * trainer.world_size
        pl_module.report({_NAME: float(self.spent)})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it beside the figures of validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            pl_module.log(_NAME, float(self.spent), sync_dist=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count no more, whatever ended the training."""
        if self._tally is not None:
            self._tally.__exit__(None, None, None)
            self._tally = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = state_dict["spent"]
