"""Langevin dynamics, unadjusted: with one step size, or with steps in units of a noise level's variance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .backend import Walked
from .noise import Noise
from .potential import per_example, squared_norm
from .sampler import Sampler, State


@dataclass(frozen=True)
class Langevin(Sampler):
    """Unadjusted Langevin dynamics, x ← x − (s/2) ∇U(x) + √(s·T) ξ.

    For U = x²/2 its stationary variance is exactly T / (1 − s/4).

    Args:
        steps: number of steps K of a call that names none.
        step_size: s above.
        temperature: T above; 0 is gradient descent.
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        grad_clamp: each gradient element is clamped to ±this.
        max_drift: the drift (s/2)‖∇U‖ of an example is scaled down to at most this length.
        bounds: the state is clamped to [low, high] after each step.
        noise_first: the noise is added before the gradient is taken, at the noisy point (IGEBM's order).

    Example:
        >>> import torch
        >>> chain = Langevin(steps=200, step_size=0.1)(lambda x: 0.5 * x.square().sum(1), torch.zeros(500, 2), noise=0)
        >>> abs(float(chain.x.var()) - 1 / (1 - 0.1 / 4)) < 0.1
        True
    """

    grad_clamp: float | None = None
    max_drift: float | None = None
    bounds: tuple[float, float] | None = None
    noise_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("grad_clamp", "max_drift"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds are [low, high] with low < high, not {list(self.bounds)}")

    @classmethod
    def from_noise(cls, steps: int, drift: float, noise: float, **settings: Any) -> Langevin:
        """The sampler of decoupled settings x ← x − a ∇U + b ξ: step size 2a, temperature b²/2a.

        Example:
            >>> Langevin.from_noise(15, drift=0.05, noise=1e-3).step_size  # EC-VAE's released code
            0.1
        """
        return cls(steps, 2 * drift, noise**2 / (2 * drift), **settings)

    def noise_floor(self, dimensions: int, steps: int | None = None) -> float:
        """Expected squared displacement of the noise alone, K·s·T·D: no chain moves less."""
        return (self.steps if steps is None else steps) * self.step_size * self.temperature * dimensions

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        x = self._diffused(state.x.clone(), noise) if self.noise_first else state.x
        energy, grad = potential.value_and_grad(x)
        if self.grad_clamp is not None:
            grad = grad.clamp(-self.grad_clamp, self.grad_clamp)
        if self.max_drift is not None:
            length = squared_norm(grad).sqrt_().mul_(self.step_size / 2)
            grad = grad * per_example(self.max_drift / length.clamp_min(self.max_drift), grad)
        x = _less(x, self.step_size / 2, grad)
        if not self.noise_first:
            x = self._diffused(x, noise)
        return State(x if self.bounds is None else x.clamp_(*self.bounds), energy, grad)

    def _diffused(self, x: Tensor, noise: Noise) -> Tensor:
        """x + √(s·T) ξ, in place."""
        if not self.temperature:
            return x
        variance: float | Tensor = self.step_size * self.temperature
        if isinstance(variance, Tensor):
            return x.addcmul_(noise.normal(x.shape, x), variance.sqrt())
        return x.add_(noise.normal(x.shape, x), alpha=math.sqrt(variance))


def _less(x: Tensor, scale: float | Tensor, y: Tensor) -> Tensor:
    """x − scale·y; a step size that changes within a captured chain is a tensor."""
    return torch.addcmul(x, y, scale, value=-1) if isinstance(scale, Tensor) else x.sub(y, alpha=scale)


@dataclass(frozen=True)
class AnnealedLangevin(Langevin):
    """Langevin on a potential that knows a noise level σ: x ← x − (s·σ²/2) ∇U(x, σ) + √(s·σ²·T) ξ.

    Potentials of a noise level carry 1/σ²; a step in units of σ² is as good at one level as at any other: where U is
    c·x²/2σ², a start is forgotten in 2/(c·s) steps, and x settles on √(T/c)·σ. So σ is to fall by a factor e in no
    fewer steps, or the chain ends with the width of an earlier level. Their ``refresh`` gets σ as the level before each
    step. Where ``sigma_end`` is given, σ goes from ``sigma`` to it over the steps in a geometric sequence (annealed
    Langevin dynamics, Song & Ermon 2019, with one step a level).

    Args:
        steps: number of steps K of a call that names none.
        step_size: s, in units of σ².
        temperature: T; 0 is gradient descent.
        proposals: none: independence proposals need one density, not one for each noise level.
        backend: how U and its gradient are evaluated, see `Sampler`.
        grad_clamp: each gradient element is clamped to ±this.
        max_drift: largest length of an example's drift.
        bounds: the state is clamped to [low, high] after each step.
        noise_first: the noise is added before the gradient is taken.
        sigma: σ of all steps, or of the first.
        sigma_end: σ of the last step.

    Example:
        >>> import torch
        >>> from ebmzoo.mcmc import Potential
        >>> class Ball(Potential):
        ...     redraws = True
        ...     def refresh(self, x, noise, level=None):
        ...         self.sigma = x.new_tensor(level)
        ...     def forward(self, x):
        ...         return 0.5 * (x / self.sigma).square().sum(1)
        >>> sampler = AnnealedLangevin(steps=200, step_size=0.5, sigma=3.0, sigma_end=0.5)
        >>> 0.5 < float(sampler(Ball(), torch.zeros(500, 2), noise=0).x.std()) < 0.6
        True
    """

    sigma: float = 1.0
    sigma_end: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma <= 0 or (self.sigma_end is not None and self.sigma_end <= 0):
            raise ValueError(f"noise levels are positive, not {self.sigma} and {self.sigma_end}")
        if self.proposals:
            raise ValueError("independence proposals need one density, not one for each noise level")

    def sigmas(self, steps: int | None = None) -> list[float]:
        """The noise level of each step.

        Example:
            >>> AnnealedLangevin(steps=3, sigma=4.0, sigma_end=1.0).sigmas()
            [4.0, 2.0, 1.0]
        """
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise ValueError(f"a chain cannot run {steps} steps")
        if self.sigma_end is None or steps < 2:
            return [self.sigma] * steps
        ratio = math.log(self.sigma_end / self.sigma)
        return [self.sigma * math.exp(ratio * step / (steps - 1)) for step in range(steps)]

    def noise_floor(self, dimensions: int, steps: int | None = None) -> float:
        return sum(super(AnnealedLangevin, self._at(s)).noise_floor(dimensions, 1) for s in self.sigmas(steps))

    def kernels(self, steps: int) -> Iterator[tuple[Sampler, float | None]]:
        for sigma in self.sigmas(steps):
            yield self._at(sigma), sigma

    def _at(self, sigma: float) -> AnnealedLangevin:
        """Whose step is that at a noise level."""
        return replace(self, step_size=self.step_size * sigma**2)
