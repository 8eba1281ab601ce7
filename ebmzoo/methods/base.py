"""What every method shares: the contract, the optimiser steps, and what a checkpoint must hold to be exact."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ebmzoo.factories import ImageShape, OptimizerFactory, ScheduleFactory, build, parameters_of, plain
from ebmzoo.mcmc import GlobalNoise, Noise, Sampler, State, Watch, as_noise, unguarded
from ebmzoo.optim import ready
from ebmzoo.parts.energy import Energy
from ebmzoo.parts.processes import average_gradients
from ebmzoo.parts.statistics import fitted, normalising_by

from .at_rest import AnswersAtRest
from .capabilities import HasEnergy, Reconstructs, Scores
from .reports import Reports
from .resuming import Resumes

Players = dict[str, tuple[list[Any], OptimizerFactory, ScheduleFactory | None]]
Logged = Mapping[str, Tensor | float]
Updates = Iterator[tuple[str, Tensor] | tuple[str, Tensor, Logged | Callable[[], Logged]]]
"""What `Method.algorithm` yields: a player, its loss, and what is logged of it, or what makes that on demand."""

_REFIT_BATCH, _REFIT_BATCHES = 64, 20


class Method(AnswersAtRest, Reports, Resumes):
    """Base of the methods: a method is a constructor and an algorithm box.

    The constructor calls ``super().__init__(image_shape)`` first (which also saves the subclass's own arguments as
    hyper-parameters), builds its parts, and says with `trains` who learns how. The box, `algorithm`, is one iteration
    in the paper's order: it yields a player and its loss, and the player has been updated when the box goes on.

    Rules of a box:
        * A loss is made after the update before it: its graph must hold the weights as they are.
        * No yield stands within a ``with``: what it switches would hold for the update.
        * How often it yields, and for whom, is decided by ``self.iteration`` and settings alone, never by data: all
          processes make the same updates.

    Samples are where chains on `potential` end that `begin` begins, as `emit` shows them: of ``refine`` at test or, for
    steps that are asked for, of ``sampler``. What a method is asked from outside (`sample`, `energy`, …) it answers in
    eval mode, see `AnswersAtRest`; what it tells by `report` is logged where somebody looks, see `Reports`.

    Args:
        image_shape: shape of one example, ``(C, H, W)`` or ``(2,)``.
        grad_clip: largest norm of a player's gradient; None leaves it alone.

    Raises:
        ValueError: the shape is of neither images nor points.

    Attributes:
        noise: the source of every random number of training.
        iteration: the number of this training iteration, from 0.
        sampler: the training chain, if any.
        refine: the test-time chain, if any.
        ema_active: whether averaged weights are swapped in now (set by the EMA callback and by `ebmzoo.load`).
        of_draws: the statistics that BatchNorm has while samples begin, see `refit_statistics`; None: not yet fitted;
            empty: the training's.
        statistics: what those are of, in the words of a protocol; None: the training's, or there are none.
    """

    shows: ClassVar[tuple[str, ...]] = ()
    """Names that stand in the progress bar."""
    sampler: Any = None
    refine: Any = None

    def __init__(self, image_shape: ImageShape, grad_clip: float | None = None):
        super().__init__()
        self.save_hyperparameters()
        if len(image_shape) not in (1, 3) or min(image_shape) < 1:
            raise ValueError(f"an example is (C, H, W) or (D,), not {tuple(image_shape)}")
        self.automatic_optimization = False
        self.image_shape = tuple(image_shape)
        self.grad_clip = grad_clip
        self.noise: Noise = GlobalNoise()
        self.iteration = 0
        self.ema_active = False
        self.of_draws: dict[str, Tensor] | None = {}
        self.statistics: str | None = None
        self._players: Players = {}
        self._grad_norm: Tensor | None = None
        self._has_scales = False

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, with what it saves turned into plain data (see `plain`), whoever made the module."""
        frame = inspect.currentframe()
        kwargs["frame"] = kwargs.get("frame") or (frame.f_back if frame else None)
        with warnings.catch_warnings():  # a network given as an instance becomes plain data below
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            super().save_hyperparameters(*args, **kwargs)
        stored = {key: plain(value) for key, value in self.hparams.items() if not key.startswith("_")}
        self.hparams.clear()
        self.hparams.update(stored)
        self._hparams_initial = copy.deepcopy(self.hparams)

    def trains(self, **players: tuple[Any, OptimizerFactory, ScheduleFactory | None]) -> None:
        """Say who learns: name of each player to (its module, or modules and parameters; its optimiser; its schedule).

        A schedule counts the iterations in which its player was updated.
        """
        for name, (parts, optimizer, schedule) in players.items():
            self._players[name] = (parts if isinstance(parts, list) else [parts], optimizer, schedule)

    def players(self) -> Players:
        """Name of each player to (its networks, its optimiser, its learning-rate schedule)."""
        return self._players

    # -- written by a method ----------------------------------------------------------------------------------------

    def algorithm(self, x: Tensor) -> Updates:
        """One training iteration on a batch of data, ``(B, *image_shape)``."""
        raise TypeError(f"{type(self).__name__} has no algorithm")

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Where the chains of ``n`` samples begin; the samples themselves where there are none."""
        raise TypeError(f"{type(self).__name__} does not say where its samples begin")

    def potential(self, state: Tensor, sampler: Sampler) -> Callable[[Tensor], Tensor]:
        """What chains of ``sampler`` from ``state`` walk on."""
        raise TypeError(f"{type(self).__name__} has no chain")

    def emit(self, state: Tensor, steps: int) -> Tensor:
        """The data ``(B, *image_shape)`` of a state that so many steps have left."""
        return state

    def walk(
        self,
        sampler: Sampler,
        potential: Callable[[Tensor], Tensor],
        state: Tensor,
        noise: Noise,
        steps: int,
        watch: Watch | None = None,
    ) -> Tensor:
        """Where chains of a sampler end that begin at ``state``: how `sample` runs them."""
        return sampler(potential, state, noise, steps=steps, watch=watch).x

    def test_sampler(self) -> tuple[Any, int]:
        """The sampler that `sample` runs, if any, and its number of steps: the protocol of a number names both."""
        return self.refine, self.refine.steps if self.refine else 0

    def advice(self) -> list[str]:
        """What `ebmzoo doctor` says of settings that go together and yet, by a law that is known, go badly."""
        return []

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """What is logged of held-out data as ``val/…``: all that the parts have to say of them."""
        parts: list[Any] = [part for part in self.children() if hasattr(part, "validate")]
        return {name: value for part in parts for name, value in part.validate(x, noise).items()}

    # -- sampling ---------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw ``n`` samples, ``(n, *image_shape)``.

        Args:
            n: number of samples.
            steps: chain steps; 0 gives what the chains begin with; None is the test-time number.
            noise: where all random numbers come from.
            watch: sees the chain, its state as data.

        Raises:
            ValueError: fewer than no samples, or steps of a method without a chain.
        """
        if n < 0:
            raise ValueError(f"a number of samples is 0 or more, not {n}")
        sampler, own = self.test_sampler()
        sampler, steps = sampler or self.sampler, own if steps is None else steps
        if steps and sampler is None:
            raise ValueError(f"{type(self).__name__} samples in one step: it has no chain, so it takes no steps")
        source = as_noise(noise, self.device)

        def see(step: int, state: State) -> None:
            if watch is not None:
                watch(step, state._replace(x=self.emit(state.x, 0)))

        with torch.inference_mode(False), torch.no_grad():
            if self.of_draws is None:
                self.refit_statistics()
            with normalising_by(self, self.of_draws or {}):
                state = self.begin(n, source)
            if steps:
                potential, seen = self.potential(state, sampler), None if watch is None else see
                state = self.walk(sampler, potential, state, source, steps, seen)
            return self.emit(state, steps)

    def refit_statistics(self) -> None:
        """Give BatchNorm the statistics of prior draws under the weights as they are, for samples' beginnings alone.

        In training BatchNorm normalises prior codes by their batch and posterior codes by theirs, and its running
        statistics are of both: right for neither. Samples begin with those fitted here; all else, reconstructions and
        bounds, keeps the training's. The draws are the same at every call, and without such layers nothing happens.
        """
        self.of_draws, self.statistics = {}, None
        if type(self).begin is not Method.begin:
            noise = as_noise(0, self.device)
            self.of_draws = fitted(self, lambda: self.begin(_REFIT_BATCH, noise), _REFIT_BATCHES)
            self.statistics = f"{_REFIT_BATCHES * _REFIT_BATCH:,} prior draws" if self.of_draws else None

    # -- optimisation -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """One optimiser per player, in the players' order; a schedule counts its player's own iterations."""
        optimizers, schedules = [], []
        for player, (networks, make_optimizer, make_schedule) in self.players().items():
            try:
                optimizers.append(ready(build(make_optimizer, parameters_of(networks)), self.device))
                if make_schedule is not None:
                    schedules.append(build(make_schedule, optimizers[-1]))
            except (TypeError, ValueError) as error:
                raise ValueError(f"the optimiser or schedule of {player} cannot be made: {error}") from error
        return optimizers, schedules

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One run of the box."""
        x = self.data(batch)
        self.iteration = self.global_step
        if not self._has_scales:  # asked once: a network's flag lies on the device
            self._has_scales = True
            for part in self.modules():
                if isinstance(part, Energy):
                    part.take_scales(x, self.all_gather)
        updated: dict[str, None] = {}
        for player, loss, *values in self.algorithm(x):
            self._update(player, loss, first=not updated)
            updated[player] = None
            for seen in values:
                if not callable(seen):
                    self.report(seen, show=self.shows)
                elif self.logs_now():
                    self.report(seen(), show=self.shows)
        if not updated:
            raise RuntimeError(f"{type(self).__name__}.algorithm updated nobody in iteration {self.iteration}")
        self._step_schedules(updated)

    def losses(self, x: Tensor, iteration: int = 0) -> Iterator[tuple[str, Tensor]]:
        """Players and losses of one run of the box without a training: no weights are updated.

        What the box itself keeps (λ, pairs, chains) moves as in training.

        Args:
            x: a batch of data.
            iteration: which one it is to be.
        """
        self.iteration, before, self._asked = iteration, self._asked, True
        try:
            with unguarded():
                for player, loss, *_ in self.algorithm(x):
                    yield player, loss
        finally:
            self._asked = before

    def _update(self, player: str, loss: Tensor, *, first: bool) -> None:
        """Zero the player's gradients, go backward, clip, and step: one path under AMP and DDP alike."""
        if player not in self._players:
            known = ", ".join(self._players)
            raise ValueError(f"{type(self).__name__} has no player {player!r}: it trains {known}")
        optimizer = _listed(self.optimizers())[list(self._players).index(player)]
        learning = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad()
        if self.world_size == 1:
            self.manual_backward(loss)
        else:  # DDP would reduce the gradients of all players at each update
            with self.trainer.strategy.block_backward_sync():
                self.manual_backward(loss)
            average_gradients(learning)
        if all(p.grad is None for p in learning):
            raise RuntimeError(f"no gradient reached {player} in iteration {self.iteration}: frozen at the yield?")
        if first:
            optimizer.step()  # the step that Lightning counts as the training iteration
        else:
            # The same path as above without Lightning's step counter, which would count every player.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        if self._grad_norm is not None:
            # Not within the hook: Lightning forgets what an epoch's first step logged when another hook logs as well.
            self.report({f"train/grad_norm_{player}": self._grad_norm})
            self._grad_norm = None

    def _step_schedules(self, updated: Container[str]) -> None:
        """A schedule counts the iterations in which its player was updated, when they are over."""
        scheduled = [name for name, (_, _, schedule) in self._players.items() if schedule is not None]
        for player, schedule in zip(scheduled, _listed(self.lr_schedulers()), strict=True):
            if player in updated:
                try:
                    schedule.step()
                except ArithmeticError as error:
                    raise ValueError(f"{type(schedule).__name__} cannot take a step: {error}") from error

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip and measure: gradients are unscaled here under every precision."""
        raw = getattr(optimizer, "optimizer", optimizer)
        parameters = [p for group in raw.param_groups for p in group["params"] if p.grad is not None]
        if self.grad_clip is not None:
            self._grad_norm = nn.utils.clip_grad_norm_(parameters, self.grad_clip)
        elif self.logs_now():
            self._grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Lightning's, and a note of when."""
        super().log(name, value, *args, **kwargs)
        self.note(name)

    # -- data -------------------------------------------------------------------------------------------------------

    @property
    def like(self) -> Tensor:
        """An empty tensor of the weights' dtype and on their device: what a first noise is drawn like."""
        return torch.empty(0, device=self.device).to(self.dtype)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log what `validate` has to say of held-out data.

        Its noise is seeded by the batch alone, so that it repeats and leaves the training's random numbers alone.
        """
        for name, value in self.validate(self.data(batch), as_noise(batch_idx, self.device)).items():
            self.log(f"val/{name}", value.mean(), sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing for a batch: a test measures samples, which the Evaluate callback draws when the data are through."""

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Score, energy and reconstruction of every example, as far as the method has them."""
        x = self.data(batch)
        asked = (
            ("score", Scores, "score"),
            ("energy", HasEnergy, "energy"),
            ("reconstruction", Reconstructs, "reconstruct"),
        )
        return {name: getattr(self, answer)(x) for name, kind, answer in asked if isinstance(self, kind)}


def _listed(found: Any) -> list[Any]:  # Lightning gives a list, one alone, or None
    return [] if found is None else found if isinstance(found, list) else [found]
