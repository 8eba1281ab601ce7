"""Hamiltonian Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .chain import Callback, Sampler, Target, select_, squared_norm
from .noise import Noise


@dataclass(frozen=True)
class HMC(Sampler):
    """Hamiltonian Monte Carlo with a unit mass matrix; one leapfrog is exactly a MALA step.

    Args:
        steps: number of proposals.
        step_size: the square of the leapfrog step, so that it means what it means for Langevin.
        temperature: T; momenta are drawn from N(0, T·I).
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        leapfrogs: leapfrog steps a proposal; each costs one gradient.

    Example:
        >>> import torch
        >>> chain = HMC(steps=50, step_size=0.2)(lambda x: 0.5 * x.square().sum(1), torch.zeros(500, 2), noise=0)
        >>> abs(float(chain.state.var()) - 1) < 0.1
        True
    """

    metropolis: ClassVar[bool] = True
    leapfrogs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leapfrogs < 1:
            raise ValueError(f"a proposal has at least one leapfrog, not {self.leapfrogs}")

    def _run(
        self, target: Target, leaves: list[Tensor], steps: int, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        energy, grads = target.value_and_grad(leaves)
        accepted = torch.zeros_like(energy)
        epsilon = math.sqrt(self.step_size)
        for step in range(steps):
            if callback is not None:
                callback(step, target.pack(leaves), energy)
            momenta = [noise.normal(leaf.shape, leaf).mul_(math.sqrt(self.temperature)) for leaf in leaves]
            before = energy + 0.5 * squared_norm(momenta)
            proposed, new_grads = [leaf.clone() for leaf in leaves], grads
            for leapfrog in range(self.leapfrogs):
                for index, momentum in enumerate(momenta):
                    momentum.sub_(new_grads[index], alpha=epsilon / 2 if leapfrog == 0 else epsilon)
                    proposed[index].add_(momentum, alpha=epsilon)
                if leapfrog < self.leapfrogs - 1:
                    new_grads = target.gradient(proposed)
                else:
                    new_energy, new_grads = target.value_and_grad(proposed)
            for momentum, grad in zip(momenta, new_grads, strict=True):
                momentum.sub_(grad, alpha=epsilon / 2)
            log_ratio = (before - new_energy - 0.5 * squared_norm(momenta)) / self.temperature
            accept = noise.uniform(energy.shape, energy).log() < log_ratio
            energy = torch.where(accept, new_energy, energy)
            select_(accept, [*leaves, *grads], [*proposed, *new_grads])
            accepted += accept
        return energy, squared_norm(grads).sqrt(), accepted / max(steps, 1)
