"""Callbacks that go by a measured value: the one they see was measured at this very iteration, or they wait."""

from __future__ import annotations

import re
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from ebmzoo.callbacks.evaluate import Evaluate


class MonitoredCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose figure is always that of the weights in the file.

    Where optimisation is manual Lightning's own goes by the figure of the validation before, looks at no
    ``train_time_interval``, and gives values of any age as a file's name. This one saves at once what goes by no
    monitor, or by one that was measured in this iteration; else it saves at the next validation that measures it. A
    name in ``filename`` that was not measured with these weights stands in it as nan; slashes become underscores.

    `ebmzoo fit` takes it for every ModelCheckpoint. Needs one of our methods, which note when they log. Its
    settings are Lightning's.

    Example:
        >>> best = MonitoredCheckpoint(monitor="val/fid_2k", filename="{step}-{val/fid_2k:.1f}")
        >>> best.format_checkpoint_name({"step": torch.tensor(8), "val/fid_2k": torch.tensor(7.25)})
        'step=8-val_fid_2k=7.2.ckpt'
    """

    _waits = False  # for the validation that measures its figure

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse, before a training begins, a FID that no callback measures."""
        super().setup(trainer, pl_module, stage)
        _check_fid(trainer, pl_module, stage, self.monitor, "ModelCheckpoint")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_time_checked = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every so many iterations, or after so much time."""
        due = self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
        if self._train_time_interval is not None:
            now = time.monotonic()
            assert self._last_time_checked is not None
            late = now - self._last_time_checked >= self._train_time_interval.total_seconds()
            if due := trainer.strategy.broadcast(late):  # the first process's clock, so that all save together
                self._last_time_checked = now
        if due and not self._should_skip_saving_checkpoint(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what waited for this validation, or what is due at each of them."""
        if self._waits and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)
        super().on_validation_end(trainer, pl_module)

    def _save(self, trainer: Trainer) -> None:
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "waits": self._waits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._waits = state_dict["waits"]

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self.monitor is None or _measured(trainer, self.monitor):
            self._waits = False
            super()._save_topk_checkpoint(trainer, monitor_candidates)
            return
        self._waits = True
        if trainer.validating:
            _check_measured_at_times(trainer, self.monitor, "ModelCheckpoint")

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        found: dict[str, Tensor] = super()._monitor_candidates(trainer)
        own = {"epoch", "step"}
        return {name: value for name, value in found.items() if name in own or _measured(trainer, name)}

    def format_checkpoint_name(
        self,
        metrics: dict[str, Tensor],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Lightning's, without a figure that nobody measured and without folders that nobody asked for."""
        names = re.findall(r"\{([^:}]+)", filename or self.filename or "")
        metrics = {**{name: torch.tensor(torch.nan) for name in names}, **metrics}
        path: str = super().format_checkpoint_name(metrics, filename, ver, prefix)
        for name in names:
            equals = self.CHECKPOINT_EQUALS_CHAR
            path = path.replace(name + equals, name.replace("/", "_") + equals)
        return path


class MonitoredStopping(EarlyStopping):
    """Lightning's EarlyStopping, which spends its patience on measurements alone, and says why it stops.

    `ebmzoo fit` takes it for every EarlyStopping. Needs one of our methods, which note when they log. Its
    settings are Lightning's.

    Example:
        >>> MonitoredStopping("val/fid_2k", patience=5).patience
        5
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse, before a training begins, a FID that no callback measures."""
        super().setup(trainer, pl_module, stage)
        _check_fid(trainer, pl_module, stage, self.monitor, "EarlyStopping")

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        if not _measured(trainer, self.monitor):
            if self.strict:
                _check_measured_at_times(trainer, self.monitor, "EarlyStopping")
            return
        self.stopping_reason_message = None
        super()._run_early_stopping_check(trainer)
        if self.stopping_reason_message and trainer.is_global_zero:
            words = " ".join(self.stopping_reason_message.split()).removesuffix(" Signaling Trainer to stop.")
            print(f"stopping early at step {trainer.global_step}: {words}", flush=True)


def monitored(callback: Callback) -> Callback:
    """Ours in place of Lightning's callback that goes by a monitor, with the same settings; any other as it is."""
    kinds: dict[type[Callback], type[Callback]] = {
        ModelCheckpoint: MonitoredCheckpoint,
        EarlyStopping: MonitoredStopping,
    }
    ours = kinds.get(type(callback))
    if ours is None:
        return callback
    made = ours.__new__(ours)
    vars(made).update(vars(callback))
    return made


def _measured(trainer: Trainer, name: str) -> bool:
    method: Any = trainer.lightning_module
    return bool(method.measured_now(name))


def _check_measured_at_times(trainer: Trainer, name: str, who: str) -> None:
    """Refuse a name that is not only not measured now, but never.

    Raises:
        ValueError: nothing measures it.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    # A callback that measures more rarely than validations run says so by this name, as Evaluate does.
    known = {*trainer.callback_metrics, *(one.val_name for one in callbacks if hasattr(one, "val_name"))}
    if name not in known:
        raise ValueError(f"{who} goes by {name!r}, which nothing measures: there are {', '.join(sorted(known))}")


def _fids(trainer: Trainer, pl_module: LightningModule) -> list[str]:
    """Names of the streaming FIDs that validations will have, at times at least."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [one.val_name for one in callbacks if isinstance(one, Evaluate) and one.measures_fid(trainer, pl_module)]


def _check_fid(trainer: Trainer, pl_module: LightningModule, stage: str, name: str | None, who: str) -> None:
    """Refuse at once what would end a training at its first validation, hours later: another n_val is another name.

    Raises:
        ValueError: nothing will measure it.
    """
    found = _fids(trainer, pl_module)
    if stage != "fit" or name is None or not name.startswith("val/fid_") or name in found:
        return
    measured = f"Evaluate measures {', '.join(found)}" if found else "no Evaluate measures any FID here"
    raise ValueError(
        f"{who} goes by {name}, and {measured}: give it another monitor, or leave it out with "
        f"--trainer.callbacks.{who} null"
    )
