"""Whole methods that compute as they are plainly written: what iterations.py compares with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from torch import nn

from ebmzoo.mcmc import Potential
from ebmzoo.mcmc import sampler as kernel
from ebmzoo.networks import ConvMeanPool
from ebmzoo.report.speed_others import convolve_and_pool


@contextmanager
def plainly(net: nn.Module) -> Iterator[None]:
    """Inside, a whole method computes as it is plainly written, networks and chains as in `ebmzoo.report.speed_others`.

    Chains then take ``autograd.grad`` of live parameters in eval mode, and compute weight norm at every step.

    Example:
        >>> import torch
        >>> from ebmzoo.mcmc import Langevin
        >>> from ebmzoo.networks import MLPEnergy
        >>> net, x = MLPEnergy((2,)), torch.zeros(3, 2)
        >>> with plainly(net):
        ...     plain = Langevin(steps=5)(net, x, noise=0).x
        >>> torch.equal(plain, Langevin(steps=5)(net, x, noise=0).x)
        True
    """

    @contextmanager
    def eager(backend: str, potential: Potential, *rest: Any) -> Iterator[tuple[Potential, Potential, Any]]:
        yield potential, potential, lambda *_: None

    ordered: list[Any] = [module for module in net.modules() if getattr(module, "channels_last", False)]
    for module in ordered:
        module.channels_last = False
    try:
        with (
            patch.object(kernel, "engine", eager),
            patch.object(kernel, "frozen", _in_eval_mode),
            patch.object(kernel, "parametrize", SimpleNamespace(cached=nullcontext)),
            patch.object(ConvMeanPool, "forward", convolve_and_pool),
        ):
            yield
    finally:
        for module in ordered:
            module.channels_last = True


@contextmanager
def _in_eval_mode(*modules: nn.Module) -> Iterator[None]:
    parts = [part for module in modules for part in module.modules()]
    training = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part, flag in zip(parts, training, strict=True):
            part.training = flag
