"""What every method shares: the contract, the optimiser steps, and what a checkpoint must hold to be exact."""

from __future__ import annotations

import copy
import inspect
import time
import warnings
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

import ebmzoo
from ebmzoo.mcmc import GlobalNoise, Noise, ReplayBuffer, Sampler, as_noise
from ebmzoo.seeds import PROCESS, mixed

from .at_rest import AnswersAtRest
from .capabilities import (
    BoundsLikelihood,
    Decodes,
    Encodes,
    HasEnergy,
    HasLogDensity,
    InfersByChain,
    Reconstructs,
    Samples,
    Scores,
    Tilts,
)
from .factories import (
    DecoderFactory,
    DistanceFactory,
    EncoderFactory,
    EnergyFactory,
    FlowFactory,
    ImageShape,
    OptimizerFactory,
    PriorFactory,
    ScheduleFactory,
    build,
    class_path,
    parameters_of,
    plain,
    spec,
)
from .lightning_contract import LightningContract
from .random_state import gathered, random_state, restore_random_state
from .reports import Reports
from .settings import configured, put_into

__all__ = [
    "BoundsLikelihood",
    "DecoderFactory",
    "Decodes",
    "DistanceFactory",
    "EncoderFactory",
    "Encodes",
    "EnergyFactory",
    "FlowFactory",
    "HasEnergy",
    "HasLogDensity",
    "ImageShape",
    "InfersByChain",
    "Method",
    "OptimizerFactory",
    "PriorFactory",
    "Reconstructs",
    "Samples",
    "ScheduleFactory",
    "Scores",
    "Tilts",
    "build",
    "gathered",
    "parameters_of",
    "plain",
    "spec",
]


class Method(AnswersAtRest, Reports, LightningContract):
    """Base of the methods: a LightningModule with named players and one way to update them.

    A subclass calls ``super().__init__(image_shape)`` first (which also saves the subclass's own arguments as
    hyper-parameters), builds its networks, and declares its `players`. Its `training_step` calls `update` once per
    player and step, exactly one of the calls with ``clock=True``: that one counts as the training iteration for
    ``max_steps``, checkpoints, logs and schedules. What it is asked from outside (`sample`, `energy`, …) it answers in
    eval mode, see `AnswersAtRest`; what it tells by `report` is logged where somebody looks, see `Reports`.

    Args:
        image_shape: shape of one example, ``(C, H, W)`` or ``(2,)``.
        grad_clip: largest norm of a player's gradient; None leaves it alone.

    Attributes:
        noise: the source of every random number of training.
        ema_active: whether averaged weights are swapped in now (set by the EMA callback and by `ebmzoo.load`).
    """

    def __init__(self, image_shape: ImageShape, grad_clip: float | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.image_shape = tuple(image_shape)
        self.grad_clip = grad_clip
        self.noise: Noise = GlobalNoise()
        self.ema_active = False
        self._grad_norm: Tensor | None = None
        self._rng_to_restore: list[dict[str, Any]] | None = None

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

    # -- declared by subclasses -------------------------------------------------------------------------------------

    def players(
        self,
    ) -> dict[str, tuple[list[nn.Module | nn.Parameter], OptimizerFactory, ScheduleFactory | None]]:
        """Name of each player to (its networks, its optimiser, its learning-rate schedule)."""
        raise TypeError(f"{type(self).__name__} declares no players")

    def test_sampler(self) -> tuple[Sampler | None, int]:
        """The sampler that `sample` runs, if any, and its number of steps: the protocol of a number names both."""
        return None, 0

    # -- optimisation -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """One optimiser per player, in the players' order; schedules step once per training iteration."""
        optimizers, schedules = [], []
        for player, (networks, make_optimizer, make_schedule) in self.players().items():
            try:
                optimizers.append(build(make_optimizer, parameters_of(networks)))
                _check_one_loss(optimizers[-1])
                if make_schedule is not None:
                    schedules.append(build(make_schedule, optimizers[-1]))
            except (TypeError, ValueError) as error:
                raise ValueError(f"the optimiser or schedule of {player} cannot be made: {error}") from error
        return optimizers, schedules

    def update(self, player: str, loss: Tensor, *, clock: bool = False) -> None:
        """Zero the player's gradients, go backward, clip, and step: one path under AMP and DDP alike.

        Args:
            player: its name in `players`.
            loss: a scalar.
            clock: whether this step is the training iteration that Lightning counts.
        """
        optimizer = self._optimizer(player)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clock:
            optimizer.step()
            with warnings.catch_warnings():
                # Schedules count training iterations, also those in which their player still waits (a warm start).
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for schedule in self._schedules():
                    try:
                        schedule.step()
                    except ArithmeticError as error:
                        raise ValueError(f"{type(schedule).__name__} cannot take a step: {error}") from error
        else:
            # The same path as above without Lightning's step counter, which would count every player.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        if self._grad_norm is not None:
            # Not within the hook: Lightning forgets what an epoch's first step logged when another hook logs as well.
            self.report({f"train/grad_norm_{player}": self._grad_norm})
            self._grad_norm = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip and measure: gradients are unscaled here under every precision."""
        raw = getattr(optimizer, "optimizer", optimizer)
        parameters = [p for group in raw.param_groups for p in group["params"] if p.grad is not None]
        if self.grad_clip is not None:
            self._grad_norm = nn.utils.clip_grad_norm_(parameters, self.grad_clip)
        elif self.logs_now():
            self._grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _optimizer(self, player: str) -> LightningOptimizer:
        return self._all_optimizers()[list(self.players()).index(player)]

    def _all_optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]

    def _schedules(self) -> list[Any]:
        schedules = self.lr_schedulers()
        if schedules is None:
            return []
        return schedules if isinstance(schedules, list) else [schedules]

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Lightning's, and a note of when."""
        super().log(name, value, *args, **kwargs)
        self.note(name)

    # -- data -------------------------------------------------------------------------------------------------------

    @property
    def like(self) -> Tensor:
        """An empty tensor of the weights' dtype and on their device: what a first noise is drawn like."""
        return torch.empty(0, device=self.device).to(self.dtype)

    def validation_noise(self, batch_idx: int) -> Noise:
        """Seeded by the batch alone, so that validation repeats and leaves the training's random numbers alone."""
        return as_noise(batch_idx, self.device)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing for a batch: a test measures samples, which the Evaluate callback draws when the data are through."""

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Score, energy and reconstruction of every example, as far as the method has them."""
        x = self.data(batch)
        found: dict[str, Tensor] = {}
        if isinstance(self, Scores):
            found["score"] = self.score(x)
        if isinstance(self, HasEnergy):
            found["energy"] = self.energy(x)
        if isinstance(self, Reconstructs):
            found["reconstruction"] = self.reconstruct(x)
        return found

    @property
    def world_size(self) -> int:
        """Number of processes that train; 1 without a Trainer."""
        return self.trainer.world_size if self._trainer else 1

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Become double where the trainer is to make this so, before it restores weights, which it would round."""
        if self.trainer.precision == "64-true":
            self.double()

    def on_fit_start(self) -> None:
        """Give every process its own random numbers: one seed for all would make all draw the same."""
        self._range_known = False
        precision = str(self.trainer.precision)
        if precision.endswith("-true") and precision not in ("32-true", "64-true"):
            raise ValueError(
                f"precision {precision} keeps the weights in half precision, whose steps are coarser than a chain's "
                f"and an optimiser's: most updates are rounded away. Use bf16-mixed, which keeps weights in fp32"
            )
        if self.world_size > 1 and (self._rng_to_restore is None or len(self._rng_to_restore) != self.world_size):
            torch.manual_seed(mixed(torch.initial_seed(), self.global_rank, PROCESS))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out: random states and buffers of every process, and what rebuilds this module.

        Weights without a training's state get what callbacks add to a checkpoint, averages and the config among it:
        Lightning asks no callback then, and such a file would lack the very weights that it was chosen by.
        """
        if "optimizer_states" in checkpoint:
            _mend_epochs(checkpoint["loops"]["fit_loop"])
            checkpoint["rng"] = gathered(random_state())
            checkpoint |= {name: gathered(buffer.state_dict()) for name, buffer in self._buffers_kept()}
        else:
            for callback in getattr(self._trainer, "callbacks", []):
                callback.on_save_checkpoint(self._trainer, self, checkpoint)
        about = checkpoint.setdefault("ebmzoo", {})
        about |= {"class_path": class_path(type(self)), "version": ebmzoo.__version__, "written": time.time()}
        about["settings"] = configured(self.players())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the buffers; keep the random state until the first batch: what happens before must not move it."""
        if self._trainer and self.trainer.state.fn == "fit":
            put_into(checkpoint, self.players())
        self._rng_to_restore = checkpoint.get("rng")
        for name, buffer in self._buffers_kept():
            if name in checkpoint:
                buffer.load_share(checkpoint[name], self.global_rank, self.world_size)

    def _buffers_kept(self) -> list[tuple[str, ReplayBuffer]]:
        """The replay buffers among the attributes, by name."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, ReplayBuffer)]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restore the random state of a resumed run."""
        super().on_train_batch_start(batch, batch_idx)
        if self._rng_to_restore is not None:
            states, self._rng_to_restore = self._rng_to_restore, None
            if len(states) == self.world_size:
                restore_random_state(states[self.global_rank])
            else:
                rank_zero_warn(
                    f"the checkpoint was written by {len(states)} process(es), now there are {self.world_size}: kept "
                    f"chains are dealt out anew, and random numbers begin anew"
                )

    def forget_random_state(self) -> None:
        """Go on from a checkpoint with other random numbers than those it was written with."""
        self._rng_to_restore = None


def _check_one_loss(optimizer: Optimizer) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} evaluates its loss several times a step, and a player has one loss a step: "
            f"take one that does not, such as Adam"
        )


def _mend_epochs(loop: dict[str, Any]) -> None:
    """Take back an epoch that was broken off: Lightning counts it as done where a training ends within it.

    A resumed training with ``max_epochs`` would end that much earlier, and validate at other iterations.
    """
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    if epochs["completed"] == epochs["ready"] and batches["current"]["ready"] and not batches["is_last_batch"]:
        epochs["processed"] = epochs["completed"] = epochs["ready"] - 1
