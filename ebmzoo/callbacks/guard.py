"""The divergence guard: watches a training, and stops it with the reason, or says where it should go on from."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ebmzoo.callbacks.eval_mode import run_folder
from ebmzoo.mcmc import Sampler
from ebmzoo.metrics import Results
from ebmzoo.seeds import PROCESS, ROLLBACK, mixed

_STOPPED = "stopped"
_SCALE = "the energy's scale"
_DEAD = 1e-6  # of its largest scale in the last looks


class Diverged(RuntimeError):
    """A training went wrong; every process raises it together.

    Attributes:
        step: training iteration at which it was seen.
        reason: in words.
        history: what the guard did in this run, this included, as ``results.json`` has it.
        checkpoint: the last healthy checkpoint; None if there is none.
    """

    def __init__(self, step: int, reason: str, history: list[dict[str, Any]], checkpoint: Path | None = None):
        super().__init__(f"training diverged at step {step}: {reason}")
        self.step, self.reason, self.history, self.checkpoint = step, reason, history, checkpoint

    @property
    def again(self) -> bool:
        """Whether the guard has a rollback left."""
        return self.history[-1]["action"] != _STOPPED


class Guard(Callback):
    """Stops a training that diverges, with the reason, instead of letting it go on with nonsense.

    Every few iterations it looks at what the method reports, averaged over the processes: the energy gap, the scale of
    the energies, the norms of the gradients, how far the chains move and how many of their values lie at the edge of
    the data's range; at anything that is not finite, and at the batches of data themselves. What is wrong is raised as
    `Diverged` on every process, and noted in ``results.json`` under ``run.guard``. Nothing is ever clipped, skipped or
    replaced.

    With ``rollbacks`` it also keeps its own checkpoints, one of which is ``checkpoint_every`` iterations old at least
    when trouble is seen. ``ebmzoo fit`` then goes on from it with a new seed, half the learning rates and half the
    chains' step sizes, at most so many times in a run. In Python, whoever catches `Diverged` decides.

    Args:
        every_n_steps: iterations between looks.
        rollbacks: how often ``ebmzoo fit`` may go back to a healthy checkpoint.
        checkpoint_every: iterations between the guard's own checkpoints.
        growth: alarm at an energy or a gradient so many times its largest in the last looks; all limits: see `Limits`.
        energy: alarm at a mean energy beyond this.
        gradient: alarm at a player's gradient norm beyond this, and beyond 1,000 times that of the first look.
        saturation: alarm at this share of a chain's values at the edge of the data's range.
        stillness: alarm at chains that move less than this.
        patience: looks in a row before a chain, or an energy without a gap or at 0, alarms.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> Guard(rollbacks=2).rollbacks
        2
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        rollbacks: int = 0,
        checkpoint_every: int = 500,
        growth: float = 100.0,
        energy: float = 1e4,
        gradient: float = 1e6,
        saturation: float = 0.98,
        stillness: float = 1e-5,
        patience: int = 3,
    ) -> None:
        super().__init__()
        if every_n_steps < 1 or rollbacks < 0 or checkpoint_every < 1 or patience < 1:
            raise ValueError(
                f"Guard needs every_n_steps, checkpoint_every and patience >= 1 and rollbacks >= 0, not "
                f"{every_n_steps}, {checkpoint_every}, {patience} and {rollbacks}"
            )
        self.every_n_steps, self.rollbacks, self.checkpoint_every = every_n_steps, rollbacks, checkpoint_every
        self.limits = Limits(growth, energy, gradient, saturation, stillness, patience)
        self.history: list[dict[str, Any]] = []
        self._applied = 0  # rollbacks whose halved steps are in the optimisers' state already
        self._divergence: Divergence | None = None
        self._bad_batch: Tensor | None = None
        self._folder = Path()

    # -- a run that goes on -----------------------------------------------------------------------------------------

    def go_on(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Tell a fresh guard what happened before: called once between a rollback and the next fit."""
        self.history = [dict(entry) for entry in history]

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "applied": self._halvings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._applied = state_dict["applied"]
        if len(state_dict["history"]) > len(self.history):
            self.history = state_dict["history"]

    @property
    def _halvings(self) -> int:
        return sum(entry["action"] != _STOPPED for entry in self.history)

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self._folder = run_folder(trainer) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin to look; after a rollback, with other random numbers and smaller steps than those that failed."""
        pl_module.watch_every = self.every_n_steps
        shape = tuple(pl_module.image_shape)
        self._divergence = Divergence(len(shape) == 3, self.limits)
        self._bad_batch = torch.full((), math.inf, device=pl_module.device)
        halvings = self._halvings
        if not halvings:
            return
        _halve_chains(pl_module, halvings)
        _halve_rates(trainer, halvings - self._applied)
        if halvings > self._applied:
            pl_module.forget_random_state()
            torch.manual_seed(mixed(self.history[-1]["seed"], trainer.global_rank, PROCESS))

    # -- looking ----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the first batch that is not finite, without waiting for the device."""
        assert self._bad_batch is not None
        x = pl_module.data(batch)
        step = torch.full_like(self._bad_batch, trainer.global_step)
        bad = torch.where(x.isfinite().all(), torch.inf, step)
        self._bad_batch = torch.minimum(self._bad_batch, bad)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look, if it is time, and keep a checkpoint of what is healthy."""
        iteration = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        keep = self.rollbacks > 0 and iteration % self.checkpoint_every == 0
        if not keep and iteration % self.every_n_steps:
            return
        complaint = self._look(trainer, pl_module)
        if complaint:
            self._raise(trainer, complaint)
        if keep:
            self._keep(trainer)

    def _look(self, trainer: Trainer, pl_module: Any) -> str | None:
        """The complaint of all processes together: decided on reduced values, so that none stops alone."""
        assert self._divergence is not None and self._bad_batch is not None
        watched, pl_module.watched = pl_module.watched, {}
        names = sorted(watched)
        parameters = [p for p in pl_module.parameters() if p.requires_grad or p.grad is not None]
        broken = torch.stack([~p.detach().isfinite().all() for p in parameters]).any().float()
        device = pl_module.device
        own = torch.stack([*(watched[name].to(device) for name in names), broken.to(device)])
        values = torch.as_tensor(trainer.strategy.reduce(own, reduce_op="mean")).tolist()
        bad_batch = -float(trainer.strategy.reduce(-self._bad_batch, reduce_op="max"))
        if math.isfinite(bad_batch):
            return f"the batch of data of step {int(bad_batch)} holds values that are not finite"
        complaint = self._divergence.complaint(dict(zip(names, values[:-1], strict=True)))
        return complaint or ("weights are not finite" if values[-1] else None)

    # -- what follows -----------------------------------------------------------------------------------------------

    @property
    def _healthy(self) -> Path:
        return self._folder / "guard_healthy.ckpt"

    @property
    def _candidate(self) -> Path:
        return self._folder / "guard_newest.ckpt"

    def _keep(self, trainer: Trainer) -> None:
        """A checkpoint is called healthy when the training was still so ``checkpoint_every`` iterations after it."""
        if trainer.is_global_zero and self._candidate.exists():
            os.replace(self._candidate, self._healthy)
        trainer.save_checkpoint(self._candidate, weights_only=False)

    def _raise(self, trainer: Trainer, reason: str) -> None:
        step, halvings = trainer.global_step, self._halvings + 1
        healthy = trainer.strategy.broadcast(self._healthy if self._healthy.exists() else None)
        entry: dict[str, Any] = {"step": step, "reason": reason, "action": _STOPPED}
        if halvings <= self.rollbacks:
            entry["action"] = "rolled back" if healthy else "began anew"
            own = mixed(torch.initial_seed(), halvings, ROLLBACK) >> 32  # seed_everything takes 32 bits
            entry["seed"] = trainer.strategy.broadcast(own)
            entry["steps_times"] = 0.5**halvings
        self.history.append(entry)
        if trainer.is_global_zero:
            if entry["action"] != _STOPPED:  # of what diverged; the next attempt must not call it healthy
                self._candidate.unlink(missing_ok=True)
            results = Results(self._folder.parent / "results.json")
            results.note(guard=self.history)
            results.write()
            print(f"guard: step {step}: {reason}: {entry['action']}", file=sys.stderr, flush=True)
        raise Diverged(step, reason, self.history, healthy)


@dataclass(frozen=True)
class Limits:
    """Where an alarm begins; the defaults left healthy runs of all small configs alone by a factor of three and more.

    Args:
        growth: an energy's scale, or a gradient's norm, that is so many times its largest in the last looks.
        energy: a mean energy, in its own unit; what an energy is far from before it has diverged.
        gradient: the norm of a player's gradient; 1,000 times that of the first look where it is more, its loss's unit.
        saturation: share of a chain's values at the edge of the data's range, for images.
        stillness: root mean square movement of a chain in a value of the data within [-1, 1]; a grey level is 8e-3.
        patience: looks in a row that a saturated or frozen chain, or a flat or dead energy, is watched before.
    """

    growth: float = 100.0
    energy: float = 1e4
    gradient: float = 1e6
    saturation: float = 0.98
    stillness: float = 1e-5
    patience: int = 3


@dataclass
class Divergence:
    """Holds the values of one look against those of the last ones.

    Args:
        images: whether examples are images, whose range is [-1, 1].
        limits: see `Limits`.

    Example:
        >>> signs = Divergence(images=True)
        >>> signs.complaint({"train/energy_gap": 0.1, "mcmc/movement": 0.05})
        >>> signs.complaint({"train/energy_gap": float("nan")})
        'train/energy_gap is nan'
    """

    images: bool
    limits: Limits = field(default_factory=Limits)
    _first: dict[str, float] = field(default_factory=dict)
    _past: dict[str, deque[float]] = field(default_factory=dict)
    _streaks: dict[str, int] = field(default_factory=dict)

    def complaint(self, values: Mapping[str, float]) -> str | None:
        """What is wrong with the values of a look, in words; None if nothing is."""
        for name, value in values.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
        return self._dead(values) or self._grown(values) or self._flat(values) or self._chain(values)

    def _dead(self, values: Mapping[str, float]) -> str | None:
        """An energy after a blow, at the far end of its softplus or of dead units: 0 everywhere, without a gradient."""
        scale, usual = _scale(values), max(self._past.get(_SCALE, ()), default=0.0)
        if self._lasts("dead", scale is not None and scale < _DEAD * usual):
            return f"the energy has died: its scale is {scale:.3g}, and was {usual:.3g} before"
        return None

    def _grown(self, values: Mapping[str, float]) -> str | None:
        limits = self.limits
        scales = {name: abs(value) for name, value in values.items() if "grad_norm" in name}
        if (energy := _scale(values)) is not None:
            scales[_SCALE] = energy
        if "train/energy_gap" in values:
            scales["the energy gap"] = abs(values["train/energy_gap"])
        for name, scale in scales.items():
            first = self._first.setdefault(name, scale)
            most = max(limits.gradient, 1000 * first) if "grad_norm" in name else limits.energy
            if scale > most:
                return f"{name} is {scale:.3g}, more than {most:.3g}"
            past = self._past.setdefault(name, deque(maxlen=20))
            usual = max(past, default=0.0)
            # The first looks are of untrained networks, and a small number may double often.
            if len(past) >= 5 and scale > limits.growth * usual and scale > most / 1000:
                return f"{name} is {scale:.3g}, and was {usual:.3g} at most before"
            past.append(scale)
        return None

    def _flat(self, values: Mapping[str, float]) -> str | None:
        gap, energy = values.get("train/energy_gap"), values.get("train/energy_data")
        flat = gap is not None and energy is not None and abs(gap) <= 1e-6 * abs(energy)
        if self._lasts("flat", flat):
            return f"the energy is flat: train/energy_gap is {gap:.3g} where train/energy_data is {energy:.3g}"
        return None

    def _chain(self, values: Mapping[str, float]) -> str | None:
        limits = self.limits
        edge = values.get("mcmc/saturation")
        if self._lasts("saturated", self.images and edge is not None and edge > limits.saturation):
            return f"the chain is saturated: {edge:.1%} of its values are at the edge of the data's range"
        moved = values.get("mcmc/movement")
        if self._lasts("frozen", moved is not None and moved < limits.stillness):
            return f"the chain is frozen: mcmc/movement is {moved:.3g}"
        return None

    def _lasts(self, what: str, now: bool) -> bool:
        self._streaks[what] = self._streaks.get(what, 0) + 1 if now else 0
        return self._streaks[what] >= self.limits.patience


def _scale(values: Mapping[str, float]) -> float | None:
    energies = [abs(values[name]) for name in ("train/energy_data", "train/energy_model") if name in values]
    return max(energies, default=None)


def _halve_chains(method: Any, times: int) -> None:
    """Make the step size of every sampler of a method, and what its checkpoints say of it, 2^times smaller."""
    factor = 0.5**times
    for name, value in list(vars(method).items()):
        samplers = value if isinstance(value, list | tuple) else [value]
        if not samplers or not all(isinstance(one, Sampler) and is_dataclass(one) for one in samplers):
            continue
        smaller = [replace(one, step_size=one.step_size * factor) for one in samplers]
        setattr(method, name, smaller if isinstance(value, list | tuple) else smaller[0])
        stored = method.hparams.get(name)
        for one in stored if isinstance(stored, list) else [stored]:
            if isinstance(one, dict) and "step_size" in one.get("init_args", {}):
                one["init_args"]["step_size"] *= factor


def _halve_rates(trainer: Trainer, times: int) -> None:
    """Make every optimiser's learning rate, and those that its schedule goes by, 2^times smaller."""
    factor = 0.5**times
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for key in ("lr", "initial_lr"):
                if key in group:
                    group[key] *= factor
    for config in trainer.lr_scheduler_configs:
        for schedule in _all_of(config.scheduler):
            schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]


def _all_of(schedule: Any) -> list[Any]:
    inner = [one for each in getattr(schedule, "_schedulers", []) for one in _all_of(each)]
    return [*([schedule] if hasattr(schedule, "base_lrs") else []), *inner]
