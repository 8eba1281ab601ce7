"""Langevin dynamics, unadjusted and Metropolis-adjusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .chain import Callback, Sampler, Target, per_example, select_, squared_norm
from .noise import Noise


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
        >>> abs(float(chain.state.var()) - 1 / (1 - 0.1 / 4)) < 0.1
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

    def _run(
        self, target: Target, leaves: list[Tensor], steps: int, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        buffers = [torch.empty_like(leaf) for leaf in leaves]
        for step in range(steps):
            if self.noise_first:
                self._diffuse(leaves, buffers, noise)
            if callback is None and step < steps - 1:
                grads = target.gradient(leaves)  # nobody looks at this energy
            else:
                energy, grads = target.value_and_grad(leaves)
            if callback is not None:
                callback(step, target.pack(leaves), energy)
            self._drift(leaves, grads)
            if not self.noise_first:
                self._diffuse(leaves, buffers, noise)
            if self.bounds is not None:
                for leaf in leaves:
                    leaf.clamp_(*self.bounds)
        if not steps:
            energy, grads = target.value_and_grad(leaves)
        return energy, squared_norm(grads).sqrt(), None

    def _drift(self, leaves: list[Tensor], grads: list[Tensor]) -> None:
        if self.grad_clamp is not None:
            for grad in grads:
                grad.clamp_(-self.grad_clamp, self.grad_clamp)
        if self.max_drift is not None:
            length = squared_norm(grads).sqrt_().mul_(self.step_size / 2)
            scale = self.max_drift / length.clamp_min(self.max_drift)
            for grad in grads:
                grad.mul_(per_example(scale, grad))
        for leaf, grad in zip(leaves, grads, strict=True):
            leaf.add_(grad, alpha=-self.step_size / 2)

    def _diffuse(self, leaves: list[Tensor], buffers: list[Tensor], noise: Noise) -> None:
        if self.temperature:
            for leaf, buffer in zip(leaves, buffers, strict=True):
                leaf.add_(noise.normal_(buffer), alpha=math.sqrt(self.step_size * self.temperature))


@dataclass(frozen=True)
class MALA(Sampler):
    """Metropolis-adjusted Langevin: the Langevin step as a proposal, accepted so that exp(−U/T) is exact.

    One forward and backward a step: state, energy and gradient are carried and selected together.

    Example:
        >>> import torch
        >>> chain = MALA(steps=300, step_size=1.0)(lambda x: 0.5 * x.square().sum(1), torch.zeros(500, 2), noise=0)
        >>> abs(float(chain.state.var()) - 1) < 0.1, bool(chain.acceptance.mean() > 0.5)
        (True, True)
    """

    metropolis: ClassVar[bool] = True

    def _run(
        self, target: Target, leaves: list[Tensor], steps: int, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        energy, grads = target.value_and_grad(leaves)
        accepted = torch.zeros_like(energy)
        variance = self.step_size * self.temperature
        for step in range(steps):
            if callback is not None:
                callback(step, target.pack(leaves), energy)
            noises = [noise.normal(leaf.shape, leaf) for leaf in leaves]
            proposed = [
                leaf.sub(grad, alpha=self.step_size / 2).add_(xi, alpha=math.sqrt(variance))
                for leaf, grad, xi in zip(leaves, grads, noises, strict=True)
            ]
            new_energy, new_grads = target.value_and_grad(proposed)
            # log q(x|x') − log q(x'|x) = h·ξ − ‖h‖²/2 with h = (s/2)(∇U + ∇U')/√(s·T): no difference of large squares.
            halves = [
                (grad + new).mul_(self.step_size / 2 / math.sqrt(variance))
                for grad, new in zip(grads, new_grads, strict=True)
            ]
            log_ratio = (energy - new_energy) / self.temperature
            for half, xi in zip(halves, noises, strict=True):
                log_ratio += xi.sub(half, alpha=0.5).mul_(half).flatten(1).sum(1)
            accept = noise.uniform(energy.shape, energy).log() < log_ratio
            energy = torch.where(accept, new_energy, energy)
            select_(accept, [*leaves, *grads], [*proposed, *new_grads])
            accepted += accept
        return energy, squared_norm(grads).sqrt(), accepted / max(steps, 1)
