"""Langevin dynamics at noise levels: steps in units of σ², σ constant or falling over the chain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from torch import Tensor

from .chain import Callback, Target
from .langevin import Langevin
from .noise import Noise


@dataclass(frozen=True)
class AnnealedLangevin(Langevin):
    """Langevin whose potential knows a noise level σ: x ← x − (s·σ²/2) ∇U(x, σ) + √(s·σ²·T) ξ.

    Potentials of a noise level carry 1/σ²; a step in units of σ² is as good at one level as at any other. The potential
    is called with the keyword ``sigma``, a number. Where ``sigma_end`` is given, σ goes from ``sigma`` to it over the
    steps in a geometric sequence (annealed Langevin dynamics, Song & Ermon 2019, with one step a level).

    Args:
        steps, temperature, grad_clamp, max_drift, bounds, noise_first: see `Langevin`.
        step_size: s, in units of σ².
        sigma: σ of all steps, or of the first.
        sigma_end: σ of the last step.

    Example:
        >>> import torch
        >>> potential = lambda x, sigma: 0.5 * (x / sigma).square().sum(1)
        >>> sampler = AnnealedLangevin(steps=200, step_size=0.5, sigma=3.0, sigma_end=0.5)
        >>> chain = sampler(potential, torch.zeros(500, 2), noise=0)
        >>> 0.5 < float(chain.state.std()) < 0.6
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
        if self.sigma_end is None or steps < 2:
            return [self.sigma] * steps
        ratio = math.log(self.sigma_end / self.sigma)
        return [self.sigma * math.exp(ratio * step / (steps - 1)) for step in range(steps)]

    def noise_floor(self, dimensions: int, steps: int | None = None) -> float:
        return sum(self._level(sigma).noise_floor(dimensions, 1) for sigma in self.sigmas(steps))

    def _level(self, sigma: float) -> Langevin:
        return Langevin(
            steps=1,
            step_size=self.step_size * sigma**2,
            temperature=self.temperature,
            grad_clamp=self.grad_clamp,
            max_drift=self.max_drift,
            bounds=self.bounds,
            noise_first=self.noise_first,
        )

    def _run(
        self, target: Target, leaves: list[Tensor], steps: int, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        potential, done = target.potential, 0
        for sigma, same in groupby(self.sigmas(steps) or [self.sigma]):
            count = len(list(same)) if steps else 0
            target.potential = partial(potential, sigma=sigma)
            seen = None if callback is None else _later(callback, done)
            found = self._level(sigma)._run(target, leaves, count, noise, seen)
            done += count
        return found


def _later(callback: Callback, done: int) -> Callback:
    """The callback of a part of a chain, whose steps follow ``done`` others."""

    def count_on(step: int, state: Tensor | tuple[Tensor, ...], energy: Tensor) -> None:
        callback(done + step, state, energy)

    return count_on
