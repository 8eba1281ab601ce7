"""Chains as others write them, on networks as the papers write them: what `ebmzoo.report.speed` compares with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.mcmc import HMC, Langevin, Potential, Sampler, as_noise
from ebmzoo.mcmc import sampler as kernel
from ebmzoo.networks import ConvMeanPool

__all__ = ["as_written", "loop", "plainly", "torchebm"]


def as_written(net: nn.Module) -> nn.Module:
    """A copy that computes as the papers' code does: convolution, then pooling, in channels-first order.

    Example:
        >>> from ebmzoo.networks import VAEBMEnergy
        >>> net = VAEBMEnergy((1, 8, 8), column="stacked_mnist", width=8).eval()
        >>> x = torch.randn(2, 1, 8, 8)
        >>> torch.allclose(as_written(net)(x), net(x), atol=1e-5)
        True
    """
    net = copy.deepcopy(net)
    for module in net.modules():
        part: Any = module
        if isinstance(module, ConvMeanPool):
            part.forward = partial(_convolve_and_pool, module)
        if hasattr(part, "channels_last"):
            part.channels_last = False
    return net


def _convolve_and_pool(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=layer.padding), 2)


def loop(net: nn.Module, x: Tensor, sampler: Langevin, backward: bool) -> Tensor:
    """Langevin as it is commonly written, its parameters live; eval mode, as the chain of the kernel is."""
    net.eval()
    x, noise = x.clone(), as_noise(0, x.device)
    scale = (sampler.step_size * sampler.temperature) ** 0.5
    for _ in range(sampler.steps):
        x.requires_grad_(True)
        energy = net(x).sum()
        if backward:
            energy.backward()
            gradient = x.grad
            assert gradient is not None
        else:
            (gradient,) = torch.autograd.grad(energy, x)
        x = x.detach()
        x.add_(gradient, alpha=-sampler.step_size / 2)
        x.add_(noise.normal(x.shape, x), alpha=scale)
        net.zero_grad()
    return x


@contextmanager
def plainly(net: nn.Module) -> Iterator[None]:
    """Inside, a whole method computes as it is plainly written, networks as in `as_written`, chains as in `loop`.

    Chains then take ``autograd.grad`` of live parameters in eval mode, and compute weight norm at every step.

    Example:
        >>> from ebmzoo.networks import MLPEnergy
        >>> net, x = MLPEnergy((2,)), torch.zeros(3, 2)
        >>> with plainly(net):
        ...     plain = Langevin(steps=5)(net, x, noise=0).x
        >>> torch.equal(plain, Langevin(steps=5)(net, x, noise=0).x)
        True
    """

    @contextmanager
    def eager(backend: str, potential: Potential, *rest: Any) -> Iterator[tuple[Potential, Potential]]:
        yield potential, potential

    ordered: list[Any] = [module for module in net.modules() if getattr(module, "channels_last", False)]
    for module in ordered:
        module.channels_last = False
    try:
        with (
            patch.object(kernel, "engine", eager),
            patch.object(kernel, "frozen", _in_eval_mode),
            patch.object(kernel, "parametrize", SimpleNamespace(cached=nullcontext)),
            patch.object(ConvMeanPool, "forward", _convolve_and_pool),
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


def torchebm(sampler: Sampler, net: nn.Module, x: Tensor) -> Callable[[], Tensor] | None:
    """A run of torchebm's sampler of the same kind; None where it is not installed or has none such."""
    precision = torch.get_float32_matmul_precision()
    try:
        from torchebm import samplers
        from torchebm.core import BaseModel
    except ImportError:
        return None
    torch.set_float32_matmul_precision(precision)  # its import changes it

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__(device=x.device)
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Wrapped().eval()
    if isinstance(sampler, Langevin):
        scale = sampler.temperature**0.5
        theirs = samplers.LangevinDynamics(model, sampler.step_size / 2, scale, device=x.device)
    elif isinstance(sampler, HMC) and x.dim() == 2:
        theirs = samplers.HamiltonianMonteCarlo(
            model, sampler.step_size**0.5, n_leapfrog_steps=sampler.leapfrogs, device=x.device
        )
    else:
        return None
    return lambda: theirs.sample(x=x.clone(), n_steps=sampler.steps)
