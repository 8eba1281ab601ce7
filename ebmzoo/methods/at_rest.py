"""How a method answers who asks it from outside its training: with its networks at rest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

from ebmzoo.mcmc import frozen

__all__ = ["AnswersAtRest"]

# What a method is asked: the functions of the capabilities, and what some methods have besides.
_ANSWERS = (
    "base_sample",
    "decode",
    "denoise",
    "draw_latents",
    "elbo",
    "encode",
    "energy",
    "log_density",
    "log_likelihood_bound",
    "log_prior",
    "reconstruct",
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
    """

    _asked = False  # within an answer or a training step

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        for name in _ANSWERS:
            if (function := getattr(cls, name, None)) is not None:
                setattr(cls, name, _outermost(function, frozen))
        cls.training_step = _outermost(cls.training_step, lambda _: nullcontext())  # type: ignore[attr-defined]


def _outermost(function: Callable[..., Any], context: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function within a context of its module, but for calls within another such function."""
    if hasattr(function, "outermost"):
        return function  # a base class's

    @wraps(function)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._asked:
            return function(self, *args, **kwargs)
        self._asked = True
        try:
            with context(self):
                return function(self, *args, **kwargs)
        finally:
            self._asked = False

    wrapped.outermost = True  # type: ignore[attr-defined]
    return wrapped
