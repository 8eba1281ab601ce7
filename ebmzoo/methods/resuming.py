"""What a checkpoint must hold for a resumed training to be exact, and what a training begins with."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

import ebmzoo
from ebmzoo.factories import class_path
from ebmzoo.mcmc import ReplayBuffer
from ebmzoo.networks.order import order_for_gpu
from ebmzoo.parts.latent_vae import load_vae
from ebmzoo.precision import decide
from ebmzoo.seeds import PROCESS, mixed

from .lightning_contract import LightningContract
from .settings import configured, put_into

__all__ = ["Resumes", "gathered"]


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
