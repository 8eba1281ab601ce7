"""Underdamped Langevin dynamics: chains with a velocity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .backend import Walked
from .noise import Noise
from .sampler import Sampler, State


@dataclass(frozen=True)
class UnderdampedLangevin(Sampler):
    """Underdamped Langevin dynamics of unit mass, unadjusted, by the splitting BAOAB; one gradient a step.

    Paper: Leimkuhler and Matthews, "Rational construction of stochastic numerical methods for molecular sampling",
    2013. Of dx = v dt, dv = −∇U dt − γ v dt + √(2γT) dW, with h = √s, a step is

        B: v ← v − (h/2) ∇U(x),   A: x ← x + (h/2) v,   O: v ← e^{−γh} v + √(1 − e^{−2γh}) √T ξ,   then A and B again.

    The last B of a step and the first of the next are at one place, and are one here, at the step's beginning. For
    U = k·x²/2 with k·s < 4 the stationary variance of x is exactly T/k, whatever the step. At γ = ∞ it is
    x ← x − (s/2) ∇U + √(s·T) (ξ + ξ')/2 with ξ' the last step's noise.

    Each call draws its first velocities from N(0, T·I).

    Args:
        steps: number of steps K of a call that names none.
        step_size: s = h², so that it means what it means for Langevin.
        temperature: T; 0 is gradient descent with momentum.
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        friction: γ ≥ 0, in 1/time: a velocity is forgotten over a time 1/γ, that is 1/(γ√s) steps. At 0 nothing warms
            or cools the chains.

    Example:
        >>> import torch
        >>> sampler = UnderdampedLangevin(steps=200, step_size=1.0)
        >>> chain = sampler(lambda x: 0.5 * x.square().sum(1), torch.zeros(2000, 2), noise=0)
        >>> abs(float(chain.x.var()) - 1) < 0.1
        True
    """

    friction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.friction >= 0:
            raise ValueError(f"friction is not negative, not {self.friction}")

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        velocity = noise.normal(x.shape, x).mul_(math.sqrt(self.temperature))
        return super().start(potential, x, noise)._replace(velocity=velocity)

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        h = math.sqrt(self.step_size)
        stays = math.exp(-self.friction * h)
        assert state.velocity is not None
        energy, grad = potential.value_and_grad(state.x)
        v = state.velocity.sub(grad, alpha=h)  # B, twice
        x = state.x.add(v, alpha=h / 2)  # A
        v = v.mul_(stays)  # O
        if self.temperature:
            v = v.add_(noise.normal(x.shape, x), alpha=math.sqrt((1 - stays**2) * self.temperature))
        x = x.add_(v, alpha=h / 2)  # A
        return State(x, energy, grad, velocity=v)
