"""Exponential moving averages of weights, as a callback.

Lightning's `WeightAveraging` is none of it: it averages a deep copy of the whole model, in the weights' own precision,
writes averages where checkpoints have raw weights, leaves them in after training, and swaps neither for tests and
predictions nor back after an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ebmzoo.factories import parameters_of

Weights = dict[str, Tensor]


class EMA(Callback):
    """Averages the parameters of named networks, and puts the averages in where the model is looked at.

    After every training batch: average <- d * average + (1 - d) * parameter, in float32 (in float64 for
    float64 parameters), with d = ``decay``, or min(decay, (1 + t) / (10 + t)) with ``warmup``, t being the
    batches averaged so far. Buffers are not averaged: the model keeps the ones it has.

    The averages are swapped in for validation, test and prediction and back afterwards, also when an
    exception ends them, and the model's ``ema_active`` says so meanwhile. Other callbacks swap them in by
    `averaged_weights`. A model that comes with averaged weights (``ema_active`` set by `ebmzoo.load`) is
    left as it is. Put this callback before those that look at the model after a training batch.

    A checkpoint holds both sets: ``state_dict`` the raw weights, whatever is swapped in while it is
    written, and ``checkpoint["ema"]`` the averages under their names in the ``state_dict``. Under several
    processes each averages the same weights, so that nothing needs to be sent.

    Args:
        decay: d, at least 0 and below 1.
        networks: names of the networks to average, as attributes of the model (``encoder``, or
            ``blocks.0``); None takes those of all players.
        start_step: training steps (of the clock) before which the average just follows the weights.
        warmup: whether the decay grows from 0.1 to ``decay``, so that the first weights are soon forgotten.

    Raises:
        ValueError: if a number is out of range, or (when training begins) the model has no such network.

    Example:
        >>> EMA(decay=0.99, networks=["decoder"]).decay_at(0)
        0.99
        >>> EMA(decay=0.99, warmup=True).decay_at(0)
        0.1
    """

    def __init__(
        self,
        decay: float = 0.999,
        networks: Sequence[str] | None = None,
        start_step: int = 0,
        warmup: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1 or start_step < 0:
            raise ValueError(f"EMA needs 0 <= decay < 1 and start_step >= 0, not {decay} and {start_step}")
        self.decay, self.networks, self.start_step, self.warmup = decay, networks, start_step, warmup
        self.updates = 0
        self.averages: Weights | None = None
        self._raw: Weights | None = None
        self._hook: RemovableHandle | None = None

    def decay_at(self, t: int) -> float:
        """The decay of the update after ``t`` updates."""
        return min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay

    # -- training ---------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights themselves, or go on with a checkpoint's averages."""
        _mark(pl_module, False)  # weights that are trained are raw, wherever they came from
        wanted = self._parameters(pl_module)
        if self.averages is None:
            self.averages = {name: _copy(parameter) for name, parameter in wanted.items()}
        if self.averages.keys() != wanted.keys():
            odd = sorted(self.averages.keys() ^ wanted.keys())
            raise ValueError(
                f"EMA averages {len(wanted)} weights and the checkpoint {len(self.averages)} ({odd[0]}, ... "
                f"only in one of them): give EMA the networks that it had"
            )
        for name, parameter in wanted.items():
            self.averages[name] = self.averages[name].to(parameter.device, _wide(parameter))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages, once per training batch whatever the number of optimiser steps in it."""
        assert self.averages is not None
        parameters = self._parameters(pl_module)
        weight = 1.0
        if trainer.global_step > self.start_step:
            weight = 1 - self.decay_at(self.updates)
            self.updates += 1
        with torch.no_grad():
            averages = [self.averages[name] for name in parameters]
            current = [p.detach().to(a.dtype) for a, p in zip(averages, parameters.values(), strict=True)]
            torch._foreach_lerp_(averages, current, weight)

    # -- swapping ---------------------------------------------------------------------------------------

    def swap_in(self, pl_module: LightningModule) -> bool:
        """Put the averages into the model, if there are any and the model does not have them already.

        Returns:
            Whether this call did it; if so, `swap_out` must follow.
        """
        if self.averages is None or self._raw is not None or getattr(pl_module, "ema_active", False):
            return False
        parameters = self._parameters(pl_module)
        # Copies made in Lightning's inference mode could not be trained on again.
        with torch.inference_mode(False), torch.no_grad():
            self._raw = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            for name, parameter in parameters.items():
                parameter.copy_(self.averages[name])
        self._hook = pl_module.register_state_dict_post_hook(partial(self._give_raw))
        _mark(pl_module, True)
        return True

    def swap_out(self, pl_module: LightningModule) -> None:
        """Put the raw weights back, if they are out."""
        if self._raw is None:
            return
        parameters = self._parameters(pl_module)
        with torch.inference_mode(False), torch.no_grad():
            for name, raw in self._raw.items():
                parameters[name].copy_(raw)
        if self._hook is not None:
            self._hook.remove()
        self._raw = self._hook = None
        _mark(pl_module, False)

    def _give_raw(self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        if self._raw is None:
            return
        shared = {state[prefix + name].data_ptr(): raw for name, raw in self._raw.items()}
        for name, value in state.items():
            if isinstance(value, Tensor) and value.data_ptr() in shared:
                state[name] = shared[value.data_ptr()].clone()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.swap_out(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.swap_out(pl_module)

    # -- checkpoints ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the averages under their names in the ``state_dict``, tied weights under each of theirs."""
        if self.averages is None:
            return
        of = {id(parameter): self.averages[name] for name, parameter in self._parameters(pl_module).items()}
        named = pl_module.named_parameters(remove_duplicate=False)
        checkpoint["ema"] = {name: of[id(parameter)].clone() for name, parameter in named if id(parameter) in of}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take a checkpoint's averages; one without any starts them anew from its weights."""
        stored = checkpoint.get("ema")
        self.averages = None
        if stored is not None:
            first = dict(pl_module.named_parameters())
            self.averages = {name: value.clone() for name, value in stored.items() if name in first}

    # -- which weights ----------------------------------------------------------------------------------

    def _parameters(self, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        named = dict(pl_module.named_parameters())
        if self.networks is None:
            wanted = set(map(id, parameters_of(_of_players(pl_module))))
        else:
            wanted = set()
            for network in self.networks:
                try:
                    found = pl_module.get_submodule(network)
                except AttributeError as error:
                    known = ", ".join(name for name, _ in pl_module.named_children())
                    raise ValueError(f"EMA: the model has no network {network!r}; it has {known}") from error
                wanted |= set(map(id, found.parameters()))
        return {name: parameter for name, parameter in named.items() if id(parameter) in wanted}


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[bool]:
    """Look at the model with its averaged weights, if the trainer averages any.

    Its samples begin with the statistics of prior draws under those weights (`Method.refit_statistics`).

    Yields:
        Whether the model has averaged weights meanwhile, by this call or already before.
    """
    callbacks: list[Any] = list(getattr(trainer, "callbacks", []))
    swapped = [ema for ema in callbacks if isinstance(ema, EMA) and ema.swap_in(pl_module)]
    try:
        with _refitted(pl_module):
            yield bool(getattr(pl_module, "ema_active", False))
    finally:
        for ema in swapped:
            ema.swap_out(pl_module)


@contextmanager
def _refitted(model: Any) -> Iterator[None]:
    if not hasattr(model, "refit_statistics"):
        yield
        return
    before = model.of_draws, model.statistics
    model.refit_statistics()
    try:
        yield
    finally:
        model.of_draws, model.statistics = before


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().to(_wide(parameter), copy=True)


def _wide(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _mark(pl_module: LightningModule, active: bool) -> None:
    pl_module.ema_active = active  # type: ignore[assignment]


def _of_players(pl_module: LightningModule) -> list[nn.Module | nn.Parameter]:
    """The networks of all players; a model that declares none is one network."""
    players = getattr(pl_module, "players", None)
    if players is None:
        return [pl_module]
    # A player is its networks, or a tuple that begins with them.
    found = [player[0] if isinstance(player, tuple) else player for player in players().values()]
    return [network for networks in found for network in networks]
