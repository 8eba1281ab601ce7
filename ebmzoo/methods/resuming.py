"""What a checkpoint must hold for a resumed training to be exact, and what a training begins with."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

import ebmzoo
from ebmzoo.factories import build, class_path, parameters_of, plain
from ebmzoo.mcmc import ReplayBuffer
from ebmzoo.networks.layers import order_for_gpu
from ebmzoo.parts.latent_vae import load_vae
from ebmzoo.precision import decide
from ebmzoo.seeds import PROCESS, mixed

from .lightning_contract import LightningContract

Settings = dict[str, dict[str, Any]]


class Resumes(LightningContract):
    """A module whose trainings go on to the bit: checkpoints hold random states, kept chains, and how it is set.

    Attributes:
        vae_ckpt: a checkpoint whose VAE is taken at the start, for methods with one, called ``vae``.
    """

    players: Any
    of_draws: dict[str, Tensor] | None
    statistics: str | None
    vae_ckpt: str | None = None
    _rng_to_restore: list[dict[str, Any]] | None = None

    @property
    def world_size(self) -> int:
        """Number of processes that train; 1 without a Trainer."""
        return self.trainer.world_size if self._trainer else 1

    def setup(self, stage: str) -> None:
        """Become double where the trainer is to make this so, before it restores weights, which it would round.

        On a GPU, also decide on TF32, and bring networks into the order of memory that is fast there.
        """
        device = self.trainer.strategy.root_device
        words = decide(device, self.trainer.precision)
        if device.type == "cuda":
            order_for_gpu(cast(nn.Module, self))
            if stage == "fit":
                rank_zero_info(f"precision: {words}{'' if 'TF32' in words else ', fp32 without TF32'}")
        if self.trainer.precision == "64-true":
            self.double()
        # Before callbacks look at weights, and before a resumed run restores its own.
        if stage == "fit" and self.vae_ckpt and Path(self.vae_ckpt).is_file():
            load_vae(cast(nn.Module, self.vae), self.vae_ckpt)

    def on_fit_start(self) -> None:
        """Give every process its own random numbers: one seed for all would make all draw the same."""
        self._range_known = False
        self.of_draws, self.statistics = {}, None
        precision = str(self.trainer.precision)
        if precision.endswith("-true") and precision not in ("32-true", "64-true"):
            raise ValueError(
                f"precision {precision} keeps the weights in half precision, whose steps are coarser than a chain's "
                f"and an optimiser's: most updates are rounded away. Use bf16-mixed, which keeps weights in fp32"
            )
        if self.vae_ckpt and self._rng_to_restore is None and not Path(self.vae_ckpt).is_file():
            here = ", or vae_steps to train the VAE here" if hasattr(self, "vae_steps") else ""
            raise FileNotFoundError(
                f"no stage-one checkpoint at {self.vae_ckpt} (vae_ckpt, looked from {Path.cwd()}): give one of VAE or "
                f"VAEBM{here}"
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
            checkpoint["rng"] = gathered(_random_state())
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
        """The replay buffers of the method and its parts, by name."""
        parts = [(f"{name}." if name else "", vars(part)) for name, part in self.named_modules()]
        return [
            (prefix + name, value)
            for prefix, own in parts
            for name, value in own.items()
            if isinstance(value, ReplayBuffer)
        ]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restore the random state of a resumed run."""
        super().on_train_batch_start(batch, batch_idx)
        if self._rng_to_restore is not None:
            states, self._rng_to_restore = self._rng_to_restore, None
            if len(states) == self.world_size:
                _restore_random_state(states[self.global_rank])
            else:
                rank_zero_warn(
                    f"the checkpoint was written by {len(states)} process(es), now there are {self.world_size}: kept "
                    f"chains are dealt out anew, and random numbers begin anew"
                )

    def forget_random_state(self) -> None:
        """Go on from a checkpoint with other random numbers than those it was written with."""
        self._rng_to_restore = None


def _mend_epochs(loop: dict[str, Any]) -> None:
    """Take back an epoch that was broken off: Lightning counts it as done where a training ends within it.

    A resumed training with ``max_epochs`` would end that much earlier, and validate at other iterations.
    """
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    if epochs["completed"] == epochs["ready"] and batches["current"]["ready"] and not batches["is_last_batch"]:
        epochs["processed"] = epochs["completed"] = epochs["ready"] - 1


def _random_state() -> dict[str, Any]:
    """This process's global random state, as tensors and numbers."""
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
    }


def _restore_random_state(state: Mapping[str, Any]) -> None:
    """Set what `_random_state` gave."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def gathered(state: Any) -> list[Any]:
    """The state of every process, in rank order: checkpoints are written by rank 0 alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


# -- optimisers and schedules: the config's settings hold, where torch would take the checkpoint's ---------------------


def configured(players: Mapping[str, Any]) -> Settings:
    """What the optimiser and the schedule of each player begin with, as plain data: a checkpoint keeps it.

    Args:
        players: those of a method.
    """
    found: Settings = {}
    for name in players:
        optimizer, schedule = _made(players[name])
        found[name] = {"optimizer": class_path(type(optimizer)), "settings": plain(optimizer.defaults)}
        if schedule is not None:
            found[name] |= {"schedule": class_path(type(schedule)), "begin": plain(schedule.state_dict())}
    return found


def put_into(checkpoint: dict[str, Any], players: Mapping[str, Any]) -> None:
    """Change the states of a checkpoint's optimisers and schedules to what the players are set to now.

    A changed schedule is then where it would be if it had been so from the start. A changed learning rate keeps the
    halvings of a guard. What is set as it was stays bit for bit as it is; so does all of a checkpoint that does not say
    how it was set.

    Args:
        checkpoint: changed in place.
        players: those of the method that goes on from it.

    Raises:
        ValueError: a player has an optimiser of another class, has a schedule and had none, or the other way round.
    """
    before: Settings | None = checkpoint.get("ebmzoo", {}).get("settings")
    if before is None or not checkpoint.get("optimizer_states"):
        return
    after = configured(players)
    if list(before) != list(after):
        raise ValueError(f"the checkpoint trained {', '.join(before)}, this method trains {', '.join(after)}")
    schedules = iter(checkpoint["lr_schedulers"])
    for (name, now), state in zip(after.items(), checkpoint["optimizer_states"], strict=True):
        was, groups = before[name], state["param_groups"]
        if was["optimizer"] != now["optimizer"] or ("schedule" in was) != ("schedule" in now):
            raise ValueError(
                f"the checkpoint trained {name} by {_words(was)}: it cannot go on by {_words(now)}: their states differ"
            )
        schedule = next(schedules) if "schedule" in was else None
        if was == now:
            continue
        old, new = was["settings"], now["settings"]
        changed = {key: new[key] for key in new if key in old and old[key] != new[key]}
        _set(groups, schedule, players[name], old, changed)
        words = [f"{key} {old[key]} -> {value}" for key, value in changed.items()]
        if _schedule_of(was) != _schedule_of(now):
            words.append(f"another {_words(now).rpartition(' ')[2]}")
        rank_zero_info(f"{name} goes on with other settings than before: {', '.join(words)}")


def _set(
    groups: list[dict[str, Any]],
    schedule: dict[str, Any] | None,
    player: Any,
    old: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> None:
    """Put what was changed into the parameter groups and the schedule's state."""
    before = old.get("lr")
    numbers = isinstance(before, float | int) and before > 0
    for group in groups:
        group |= {key: value for key, value in changed.items() if key != "lr" or not numbers}
        if schedule is None and numbers and "lr" in changed:
            group["lr"] *= changed["lr"] / before
    if schedule is None:
        return
    halvings = groups[0]["initial_lr"] / before if numbers else 1.0  # a guard's
    optimizer, fresh = _made(player, halvings)
    assert fresh is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(schedule["last_epoch"]):
            fresh.step()
    schedule.clear()
    schedule |= fresh.state_dict()
    for group, now in zip(groups, optimizer.param_groups, strict=True):
        group |= {key: now[key] for key in ("lr", "initial_lr")}


def _made(player: Any, scale: float = 1.0) -> tuple[Optimizer, Any]:
    """A player's optimiser and its schedule, if any, before any step, at so many times the learning rate."""
    networks, make_optimizer, make_schedule = player
    optimizer = build(make_optimizer, parameters_of(networks))
    if scale != 1:
        for group in optimizer.param_groups:
            group["lr"] *= scale
    return optimizer, None if make_schedule is None else build(make_schedule, optimizer)


def _words(settings: Mapping[str, Any]) -> str:
    kinds = [settings[part].rpartition(".")[2] for part in ("optimizer", "schedule") if part in settings]
    return " with ".join(kinds) if len(kinds) == 2 else f"{kinds[0]} without a schedule"


def _schedule_of(settings: Mapping[str, Any]) -> Any:
    """A schedule apart from the learning rates that it was made at."""
    begin = settings.get("begin", {})
    return settings.get("schedule"), {key: value for key, value in begin.items() if key not in ("base_lrs", "_last_lr")}
