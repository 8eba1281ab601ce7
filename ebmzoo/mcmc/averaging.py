"""Dual averaging: a step size that is found by how often its steps are accepted."""

from __future__ import annotations

import math

_GAMMA, _T0, _KAPPA = 0.05, 10, 0.75  # the paper's


class DualAveraging:
    """The step size ε of a Metropolis sampler at which a share δ of its steps is accepted.

    Paper: Hoffman and Gelman, "The No-U-Turn Sampler", JMLR 2014, section 3.2 and Algorithm 5: from the acceptance
    probability α_m of the m-th step,

        H̄_m = (1 − 1/(m + t₀)) H̄_{m−1} + (δ − α_m)/(m + t₀)
        log ε_m = μ − √m/γ · H̄_m,    log ε̄_m = m^{−κ} log ε_m + (1 − m^{−κ}) log ε̄_{m−1}

    with γ = 0.05, t₀ = 10, κ = 0.75 and μ = log(10 ε₀). Their search for ε₀ is left out: it is given.

    Args:
        step: ε₀ > 0, the length of a leapfrog step.
        target: δ.

    Attributes:
        step: ε_m, to be taken next.
        found: ε̄_m, to be kept when the search is over; ε₀ before it has begun.

    Example:
        >>> search = DualAveraging(1.0, target=0.5)
        >>> for _ in range(2000):
        ...     search.update(1 / (1 + search.step))  # one half of the steps would be accepted at ε = 1
        >>> round(search.found, 1)
        1.0
    """

    def __init__(self, step: float, target: float):
        self.step = self.found = step
        self.target, self._m, self._h = target, 0, 0.0
        self._mu = math.log(10 * step)

    def update(self, acceptance: float) -> None:
        """Take note of α_m, the acceptance probability of a step of size ``step``: of many chains, their mean."""
        self._m += 1
        self._h += (self.target - acceptance - self._h) / (self._m + _T0)
        log_step = self._mu - math.sqrt(self._m) / _GAMMA * self._h
        share = self._m**-_KAPPA
        self.step = math.exp(log_step)
        self.found = math.exp(share * log_step + (1 - share) * math.log(self.found))
