"""How a method answers who asks it from outside its training: with its networks at rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from ebmzoo.mcmc import frozen, unguarded
from ebmzoo.networks.layers import in_range

# What a method is asked: the functions of the capabilities, and what some methods have besides.
_ANSWERS = (
    "base_sample",
    "decode",
    "denoise",
    "draw_latents",
    "elbo",
    "encode",
    "energy",
    "forward",
    "log_density",
    "log_likelihood_bound",
    "log_prior",
    "reconstruct",
    "refit_statistics",
    "sample",
    "score",
    "white_energy",
)


class AnswersAtRest:
    """Mixin that makes a module's answers those of the trained model, at any time, and leaves no trace of them.

    ``sample``, ``energy``, ``encode`` and what else `capabilities` name run with all networks in eval mode and without
    gradients of the parameters (those of their arguments stay), as `frozen` has it. Within ``training_step`` they run
    with the networks as training needs them, and so do those that another one calls. This holds for every subclass,
    wherever in it or its mixins they are defined.

    Images that ``sample`` gives to who asks are in [-1, 1]: a linear decoder or a chain may leave that range, and what
    is made of an image elsewhere takes it for granted. States that a callback sees are the chain's own.
    """

    image_shape: tuple[int, ...]
    _asked = False  # within an answer or a training step
    _clamps = True

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        for name in _ANSWERS:
            if (function := getattr(cls, name, None)) is not None:
                setattr(cls, name, _outermost(function, frozen, _in_range if name == "sample" else _as_it_is))
        cls.training_step = _outermost(cls.training_step, lambda _: nullcontext())  # type: ignore[attr-defined]


@contextmanager
def unclamped(model: Any) -> Iterator[None]:
    """Within, ``sample`` gives images as decoder or chain left them: what energies and the health of chains are of."""
    before, model._clamps = getattr(model, "_clamps", True), False
    try:
        yield
    finally:
        model._clamps = before


def _in_range(module: Any, samples: Tensor) -> Tensor:
    """Images in [-1, 1]; what is not finite stays so, lest a divergence look like an image."""
    return torch.where(samples.isinf(), samples, in_range(samples)) if module._clamps else samples


def _as_it_is(_: Any, answer: Any) -> Any:
    return answer


def _outermost(
    function: Callable[..., Any], context: Callable[[Any], Any], finish: Callable[[Any, Any], Any] = _as_it_is
) -> Callable[..., Any]:
    """The function within a context of its module and finished, but for calls within another such function."""
    if hasattr(function, "outermost"):
        return function  # a base class's

    @wraps(function)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._asked:
            return function(self, *args, **kwargs)
        self._asked = True
        try:
            with context(self), unguarded():  # what diverged shows in the answer, and who trains has a guard
                return finish(self, function(self, *args, **kwargs))
        finally:
            self._asked = False

    wrapped.outermost = True  # type: ignore[attr-defined]
    return wrapped
