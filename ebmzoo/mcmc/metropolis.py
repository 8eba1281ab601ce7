"""Metropolis-adjusted samplers: proposals accepted so that exp(−U/T) is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .backend import Walked
from .noise import Noise
from .potential import per_example, squared_norm
from .sampler import Metropolis, State


@dataclass(frozen=True)
class MALA(Metropolis):
    """Metropolis-adjusted Langevin: the Langevin step as a proposal, accepted so that exp(−U/T) is exact.

    One forward and backward a step: state, energy and gradient are carried and selected together.

    Args:
        steps: number of proposals.
        step_size: s of the normal form, see `Sampler`; with a warm-up, where the search for it begins.
        temperature: T, above 0.
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        warmup: steps of each call that find the step size by dual averaging, see `Metropolis`.
        target_acceptance: that they aim at; 0.574 is best where many coordinates are independent and alike (Roberts and
            Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions", 1998).

    Example:
        >>> import torch
        >>> chain = MALA(steps=300, step_size=1.0)(lambda x: 0.5 * x.square().sum(1), torch.zeros(500, 2), noise=0)
        >>> abs(float(chain.x.var()) - 1) < 0.1, bool(chain.acceptance.mean() > 0.5)
        (True, True)
    """

    target_acceptance: float = field(default=0.574, kw_only=True)

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        root = math.sqrt(self.step_size * self.temperature)
        xi = noise.normal(state.x.shape, state.x)
        x = state.x.sub(state.grad, alpha=self.step_size / 2).add_(xi, alpha=root)
        energy, grad = potential.value_and_grad(x)
        # log q(x|x') − log q(x'|x) = h·ξ − ‖h‖²/2 with h = (s/2)(∇U + ∇U')/√(s·T): no difference of large squares.
        half = (state.grad + grad).mul_(self.step_size / 2 / root)
        log_ratio = (state.energy - energy) / self.temperature
        log_ratio += xi.sub(half, alpha=0.5).mul_(half).flatten(1).sum(1)
        return self.accept(state, x, energy, grad, log_ratio, noise)


@dataclass(frozen=True)
class HMC(Metropolis):
    """Hamiltonian Monte Carlo with a unit mass matrix; one leapfrog is exactly a MALA step.

    Args:
        steps: number of proposals.
        step_size: the square of the leapfrog step, so that it means what it means for Langevin.
        temperature: T; momenta are drawn from N(0, T·I).
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        warmup: steps of each call that find the step size by dual averaging, see `Metropolis`; the number of leapfrogs
            stays, so a trajectory becomes longer or shorter with them.
        target_acceptance: that they aim at; 0.65 as in Hoffman and Gelman's paper.
        leapfrogs: leapfrog steps a proposal; each costs one gradient.
        jitter: j in [0, 1): the leapfrog step of each chain and proposal is uniform within √s·(1 ± j). Trajectories of
            one length may be a period of the target, and end where they began (Neal, "MCMC using Hamiltonian
            dynamics", 2011, section 3.2).

    Example:
        >>> import torch
        >>> chain = HMC(steps=50, step_size=0.2)(lambda x: 0.5 * x.square().sum(1), torch.zeros(500, 2), noise=0)
        >>> abs(float(chain.x.var()) - 1) < 0.1
        True
    """

    leapfrogs: int = 5
    jitter: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leapfrogs < 1:
            raise ValueError(f"a proposal has at least one leapfrog, not {self.leapfrogs}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a share of the step, from 0 to below 1, not {self.jitter}")

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        momentum = noise.normal(state.x.shape, state.x).mul_(math.sqrt(self.temperature))
        before = state.energy + 0.5 * squared_norm(momentum)
        x, grad, h = state.x, state.grad, self._leapfrog(state, noise)
        for leapfrog in range(self.leapfrogs):
            momentum = _moved(momentum, grad, -h if leapfrog else -h / 2)
            x = _moved(x, momentum, h)
            energy, grad = potential.value_and_grad(x)
        momentum = _moved(momentum, grad, -h / 2)
        log_ratio = (before - energy - 0.5 * squared_norm(momentum)) / self.temperature
        return self.accept(state, x, energy, grad, log_ratio, noise)

    def _leapfrog(self, state: State, noise: Noise) -> float | Tensor:
        """The step of each chain's leapfrogs."""
        root = math.sqrt(self.step_size)
        if not self.jitter:
            return root
        shares = noise.uniform(state.energy.shape, state.x).mul_(2 * self.jitter).add_(1 - self.jitter)
        return per_example(shares.mul_(root), state.x)


def _moved(x: Tensor, along: Tensor, h: float | Tensor) -> Tensor:
    """x + h·along."""
    return torch.addcmul(x, along, h) if isinstance(h, Tensor) else x.add(along, alpha=h)
