"""Langevin dynamics at noise levels: steps in units of σ², σ constant or falling over the chain."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from .backend import Potential
from .chain import Callback, Chain, S
from .langevin import Langevin
from .noise import Noise, as_noise


@dataclass(frozen=True)
class AnnealedLangevin(Langevin):
    """Langevin whose potential knows a noise level σ: x ← x − (s·σ²/2) ∇U(x, σ) + √(s·σ²·T) ξ.

    Potentials of a noise level carry 1/σ²; a step in units of σ² is as good at one level as at any other. The potential
    is called with the keyword ``sigma``, a number. Where ``sigma_end`` is given, σ goes from ``sigma`` to it over the
    steps in a geometric sequence (annealed Langevin dynamics, Song & Ermon 2019, with one step a level).

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
        if steps < 0:
            raise ValueError(f"a chain cannot run {steps} steps")
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
            backend=self.backend,
        )

    def __call__(
        self,
        potential: Potential,
        state: S,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        callback: Callback | None = None,
        networks: Iterable[nn.Module] = (),
        **call: Any,
    ) -> Chain[S]:
        """Run the chains of a batch: those of each level in turn; see `Sampler`."""
        source = as_noise(noise, (state if isinstance(state, Tensor) else state[0]).device)
        modules = [*networks, *([potential] if isinstance(potential, nn.Module) else [])]
        call.update(noise=source, networks=modules)
        sigmas, done = self.sigmas(steps), 0
        for sigma, same in groupby(sigmas or [self.sigma]):
            count = len(list(same)) if sigmas else 0
            seen = None if callback is None else _later(callback, done)
            at_level = partial(potential, sigma=sigma)
            chain = self._level(sigma)(at_level, state, steps=count, callback=seen, **call)
            state, done = chain.state, done + count
        return chain


def _later(callback: Callback, done: int) -> Callback:
    """The callback of a part of a chain, whose steps follow ``done`` others."""

    def count_on(step: int, state: Tensor | tuple[Tensor, ...], energy: Tensor) -> None:
        callback(done + step, state, energy)

    return count_on
