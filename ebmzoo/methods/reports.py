"""What a training says of itself: losses, energies and chains, its learning rates and its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_BAR_SECONDS = 0.2  # between looks at what stands in a progress bar
_DEAR = ("mcmc/", "train/grad_norm_")  # names that are computed only where `logs_now` says so


class Reports:
    """Mixin that logs what a training reports, where somebody looks at it.

    Lightning's ``log`` costs a tenth of a millisecond a value, a large part of an iteration of a small network, and a
    value in a progress bar makes a GPU wait in every iteration. So loggers get all values of the iterations that they
    take and of the last one, a bar of Lightning's its own five times a second (`Progress` asks for them), and a
    callback that monitors one gets it in every iteration. The learning rate of each player is ``lr/PLAYER``;
    ``time/steps_per_second`` and ``time/examples_per_second``, of all processes, are of the time since they were logged
    last, without validation.

    Attributes:
        latest: what this iteration has reported until now, as it was given.
        watch_every: iterations between looks that a callback takes of its own; 0 for none.
        watched: the tensors of the last look at all by name, this process's own means.
    """

    trainer: Any
    _trainer: Any
    log: Any
    players: Any
    data: Any
    world_size: Any

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[str, Tensor | float] = {}
        self.watch_every = 0
        self.watched: dict[str, Tensor] = {}
        self._shown: set[str] = set()
        self._monitored: set[str] = set()
        self._logged_at: dict[str, int] = {}
        self._optimizers: dict[str, Optimizer] = {}
        self._clock = _Clock(0.0)

    def measured_now(self, name: str) -> bool:
        """Whether what is logged under a name was measured in this training iteration or the validation after it."""
        return self._logged_at.get(name) == self._iteration

    def logs_now(self) -> bool:
        """Whether a logger or a watching callback looks at all values of this iteration.

        Compute what is only logged and not cheap if so.
        """
        if self._trainer is None:  # the box is run by itself
            return False
        every = (self.trainer.log_every_n_steps, self.watch_every)
        if any(n > 0 and self._iteration % n == 0 for n in every) or self.trainer.should_stop:
            return True
        return any(name.startswith(_DEAR) for name in self._monitored)

    def report(self, values: Mapping[str, Tensor | float], *, show: Iterable[str] = ()) -> None:
        """Log the means of ``values`` where they are looked at; names in ``show`` also stand in the progress bar."""
        everything, bar_due = self.logs_now(), self._clock.bar_due
        self._shown.update(show)
        for name, value in values.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self.latest[name] = value
            shown = name in self._shown
            if everything or name in self._monitored or (shown and bar_due):
                scalar = _mean(value)
                if everything and isinstance(value, Tensor):
                    self.watched[name] = scalar
                # Lightning turns what stands in a bar into a number in every iteration: a GPU would wait each time.
                self.log(name, scalar.cpu() if shown else scalar, prog_bar=shown)

    def shown_now(self) -> dict[str, float]:
        """The values of this iteration that stand in a progress bar."""
        return {name: float(_mean(value)) for name, value in self.latest.items() if name in self._shown}

    def note(self, name: str) -> None:
        """Say that a value is measured now: Lightning keeps old ones beside it, and monitors must tell them apart."""
        self._logged_at[name] = self._iteration

    @property
    def _iteration(self) -> int:
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1

    # -- Lightning's hooks ------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """See who looks at what."""
        monitors = [getattr(callback, "monitor", None) for callback in self.trainer.callbacks]
        self._monitored = {name for name in monitors if isinstance(name, str)}
        self._optimizers = {
            f"lr/{player}": o for player, o in zip(self.players(), self.trainer.optimizers, strict=True)
        }
        bar = self.trainer.progress_bar_callback
        self._clock = _Clock(math.inf if bar is None or getattr(bar, "asks_the_model", False) else 0.0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin an iteration, with the learning rates that it takes."""
        super().on_train_batch_start(batch, batch_idx)  # type: ignore[misc]
        self._clock.tick(len(self.data(batch)) * self.world_size, self.trainer.current_epoch)
        self.latest.clear()
        self.latest.update({name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()})

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add learning rates and speed where loggers take the iteration."""
        every, stops = self.trainer.log_every_n_steps, self.trainer.should_stop
        if stops:  # said only after the training step: Lightning logs the iteration all the same
            self.report(self.latest.copy())
        self._clock.logged = stops or every == 0 or self._iteration % every == 0
        if self._clock.logged:
            self.report({**{name: self.latest[name] for name in self._optimizers}, **self._clock.speed()})

    def on_validation_start(self) -> None:
        """Stop the clock."""
        self._clock.pause()

    def on_validation_end(self) -> None:
        """Go on."""
        self._clock.go_on()

    def on_train_end(self) -> None:
        """Let loggers have the last iteration: a short run has no other that they take."""
        if self._clock.logged:
            return
        values = {name: float(_mean(value)) for name, value in {**self.latest, **self._clock.speed()}.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({**values, "epoch": self._clock.epoch}, step=self._iteration - 1)
            logger.save()


class _Clock:
    """Where training is, how fast, and when a bar is due: a module's own attributes cost more to set."""

    def __init__(self, bar_at: float) -> None:
        self.bar_at, self.bar_due = bar_at, False
        self.epoch, self.logged = 0, True
        self.steps = self.examples = 0
        self.since = self.paused = time.perf_counter()

    def tick(self, examples: int, epoch: int) -> None:
        """An iteration begins."""
        now = time.perf_counter()
        self.bar_due = now >= self.bar_at
        if self.bar_due:
            self.bar_at = now + _BAR_SECONDS
        self.epoch = epoch
        self.steps += 1
        self.examples += examples

    def pause(self) -> None:
        self.paused = time.perf_counter()

    def go_on(self) -> None:
        self.since += time.perf_counter() - self.paused

    def speed(self) -> dict[str, float]:
        """Iterations and examples a second since the last call."""
        seconds = time.perf_counter() - self.since
        found = {"time/steps_per_second": self.steps / seconds, "time/examples_per_second": self.examples / seconds}
        self.steps, self.examples, self.since = 0, 0, self.since + seconds
        return found


def _mean(value: Tensor | float) -> Tensor:
    # Numbers stay as they are: a learning rate of 0.001 is to be read as that.
    return value.float().mean() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
