"""Chains as others write them, on networks as the papers write them: what `ebmzoo.report.speed` compares with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.mcmc import HMC, Langevin, Sampler, as_noise
from ebmzoo.networks import ConvMeanPool


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
            part.forward = partial(convolve_and_pool, module)
        if hasattr(part, "channels_last"):
            part.channels_last = False
    return net


def convolve_and_pool(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What `ConvMeanPool` computes, one after the other."""
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
