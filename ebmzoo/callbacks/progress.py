"""What the terminal shows of a training: its networks before it, and one progress bar over the whole."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ebmzoo.methods.base import Method

_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 60.0
_LINE_SHARE = 0.1
# A narrow bar without a title: the losses at its end must not fall off an 80-column terminal first.
_BAR = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}, {remaining} left, {rate_noinv_fmt}{postfix}"


class Progress(TQDMProgressBar):
    """Progress of the whole training, in steps, with the time left and what the method shows of its losses.

    Lightning's bars begin anew every epoch, which says nothing where an epoch takes a second. This one runs
    to ``max_steps`` or the last batch of ``max_epochs``, whichever comes first. Without a terminal it
    prints a line every tenth of the way, and at least one a minute. Values are those that a `Method` shows of this
    iteration, and others logged with ``prog_bar=True``, without their ``train/``. Each validation leaves a line with
    its figures, and the best one of what a checkpoint goes by.

    Example:
        >>> line(250, 1000, 20.0, 250, {"loss_vae": 1.5})
        'step 250/1000 (25%), 1:00 left, 12.5 steps/s, loss_vae=1.5'
    """

    asks_the_model = True  # when it draws: a `Method` need not log what it shows

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self._terminal = False
        self._steps = self._first = 0
        self._total: int | None = None
        self._began = self._drawn = self._spoke = 0.0
        self._spoke_at = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look where the output goes: each verb may have its own."""
        super().setup(trainer, pl_module, stage)
        self._terminal = sys.stdout.isatty()

    # -- training ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, where the checkpoint ended if the run is resumed."""
        self._total = total_steps(trainer)
        self._steps = self._first = self._spoke_at = trainer.global_step
        self._began = self._drawn = self._spoke = time.monotonic()
        self.train_progress_bar = Tqdm(
            total=self._total,
            initial=self._first,
            disable=self.is_disabled or not self._terminal,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0.05,
            bar_format=_BAR,
        )

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Nothing: the bar goes on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw, five times a second at most: reading a loss makes a GPU wait."""
        self._steps = trainer.global_step
        now = time.monotonic()
        if not self.is_enabled:
            return
        if self._terminal:
            if now - self._drawn >= _REDRAW_SECONDS or self._steps == self._total:
                self._drawn = now
                self._show(trainer, pl_module)
            if self._steps == self._total:  # what Lightning says at the end begins a line of its own
                self.train_progress_bar.close()
            return
        share = (self._steps - self._spoke_at) / self._total if self._total else 0.0
        if share >= _LINE_SHARE or now - self._spoke >= _LINE_SECONDS or self._steps == self._total:
            self._spoke, self._spoke_at = now, self._steps
            self._say(trainer, pl_module, now)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the bar goes on."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last state, and leave it on the screen."""
        if self.is_enabled and self._terminal and not self.train_progress_bar.disable:
            self._show(trainer, pl_module)
        elif self.is_enabled and not self._terminal and self._spoke_at != self._steps:
            self._say(trainer, pl_module, time.monotonic())
        self.train_progress_bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the bar's line to what is said of it."""
        if self._train_progress_bar is not None:
            self._train_progress_bar.close()

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bar = self.train_progress_bar
        if bar.disable:  # it is closed
            return
        bar.set_postfix(fitting(bar, self.get_metrics(trainer, pl_module)), refresh=False)
        bar.update(self._steps - bar.n)  # through tqdm's own count of time, which the time left rests on
        bar.refresh()

    def _say(self, trainer: Trainer, pl_module: LightningModule, now: float) -> None:
        values = self.get_metrics(trainer, pl_module)
        done = self._steps - self._first
        print(line(self._steps, self._total, now - self._began, done, values), flush=True)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What the method shows, by short names, with four digits."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        if isinstance(pl_module, Method) and trainer.training:
            shown |= pl_module.shown_now()  # of this very iteration
        return {
            name.removeprefix("train/"): f"{value:.4g}" if isinstance(value, float) else value
            for name, value in shown.items()
        }

    # -- validation -------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave a line."""
        super().on_validation_end(trainer, pl_module)
        if self.is_disabled or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # A module that does not say when it measured is taken at its word.
        of_now = pl_module.measured_now if isinstance(pl_module, Method) else lambda _: True
        goes_by = {one.monitor: one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)}
        names = [name for name in trainer.callback_metrics if name.startswith("val/") and of_now(name)]
        parts = [f"step {trainer.global_step}"]
        for name in sorted(names, key=lambda name: (name not in goes_by, name)):
            value = float(trainer.callback_metrics[name])
            parts.append(f"{name} {value:.4g}")
            if (saver := goes_by.get(name)) is not None:
                better = min if saver.mode == "min" else max
                # The checkpoint of this validation is kept after this hook.
                known = [float(score) for score in saver.best_k_models.values()]
                parts[-1] += f" (best {better([value, *known]):.4g})"
        if len(parts) > 1:
            self._write_above(parts)

    def _write_above(self, parts: Sequence[str]) -> None:
        """A line above the bar: as many of the parts as the terminal has room for, none cut."""
        if not self._terminal:
            print("  ".join(parts), flush=True)
            return
        width = shutil.get_terminal_size().columns
        room = [n for n in range(1, len(parts) + 1) if n == 1 or len("  ".join(parts[:n])) < width]
        self.train_progress_bar.write("  ".join(parts[: room[-1]]), file=sys.stdout)

    # -- the rest ---------------------------------------------------------------------------------------

    def init_sanity_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def init_validation_tqdm(self) -> Tqdm:
        """A bar for `validate` alone: between training steps it would only flicker."""
        if self._terminal and self.trainer.state.fn == "validate":
            return super().init_validation_tqdm()
        return Tqdm(disable=True)

    def on_test_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """After the last batch, what is measured begins lines of its own."""
        super().on_test_batch_end(trainer, *rest)
        if self._test_progress_bar is not None and self.test_progress_bar.n == self.test_progress_bar.total:
            self.test_progress_bar.close()

    def init_test_tqdm(self) -> Tqdm:
        return super().init_test_tqdm() if self._terminal else Tqdm(disable=True)

    def init_predict_tqdm(self) -> Tqdm:
        return super().init_predict_tqdm() if self._terminal else Tqdm(disable=True)


def total_steps(trainer: Trainer) -> int | None:
    """Steps at which training ends, by ``max_steps`` or ``max_epochs``; None if neither is set."""
    ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
    batches = trainer.num_training_batches
    if trainer.max_epochs is not None and trainer.max_epochs >= 0 and batches != float("inf"):
        ends.append(trainer.max_epochs * int(batches))
    return min(ends, default=None)


def fitting(bar: Tqdm, values: Mapping[str, Any]) -> dict[str, Any]:
    """The first of the values that a bar has room for: a number cut in the middle reads as another.

    Args:
        bar: as wide as its terminal.
        values: in the order in which they are dear.
    """
    width, shown = bar.ncols or shutil.get_terminal_size().columns, dict[str, Any]()
    for name, value in values.items():
        words = ", ".join(f"{key}={one}" for key, one in {**shown, name: value}.items())
        if len(bar.format_meter(**{**bar.format_dict, "postfix": words, "ncols": None})) >= width:
            break
        shown[name] = value
    return shown


def line(steps: int, total: int | None, seconds: float, done: int, values: dict[str, Any]) -> str:
    """A line of progress.

    Args:
        steps: steps so far, a resumed run's earlier ones included.
        total: steps at the end, if that is known.
        seconds: since this command began to train.
        done: steps in that time.
        values: what to show beside.
    """
    rate = done / seconds if seconds > 0 else 0.0
    words = [f"step {steps}"]
    if total:
        words = [f"step {steps}/{total} ({100 * steps // total}%)"]
        if rate and steps < total:
            words.append(f"{Tqdm.format_interval((total - steps) / rate).removeprefix('0')} left")
    if rate:
        words.append(f"{rate:.3g} steps/s" if rate >= 1 else f"{1 / rate:.3g} s/step")
    return ", ".join([*words, *(f"{name}={value}" for name, value in values.items())])


class Summary(ModelSummary):
    """Name, class and parameters of each network, in a line each.

    Lightning's own also has a column of FLOPs, which is 0 wherever no example input is stored: `ebmzoo doctor` counts
    what an iteration costs. ``max_depth``, Lightning's, is that of the networks' parts that are listed.

    Example:
        >>> Summary.summarize([("Name", ["encoder"]), ("Type", ["MLP"]), ("FLOPs", ["0"])], 20_000, 20_000, 0.1, {}, 0)
        encoder  MLP
        20,000 parameters
    """

    @staticmethod
    @rank_zero_only
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Print the table."""
        shown = [[str(cell) for cell in cells] for title, cells in summary_data if title in ("Name", "Type", "Params")]
        widths = [max(map(len, cells), default=0) for cells in shown]
        for row in zip(*shown, strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print("  ".join(cells).rstrip())
        frozen = total_parameters - trainable_parameters
        print(f"{total_parameters:,} parameters" + (f", {frozen:,} of them frozen" if frozen else ""), flush=True)
