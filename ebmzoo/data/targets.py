"""Unnormalised energies with known answers: what samplers and estimates of log Z are held against.

Each is a potential, U of ``(B, D)`` to ``(B,)`` with density exp(−U(x) − log Z), and a `Density`: ``log_prob`` and
exact ``sample``. Its log Z and moments are closed forms, or quadratures in one dimension.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmzoo.data.densities import GaussianMixture
from ebmzoo.mcmc import Noise, Potential, as_noise


class Target(Potential):
    """Base of the targets.

    Attributes:
        dim: D.
        log_z: log ∫ exp(−U(x)) dx, nats.
        mean: E[x], ``(D,)``.
        variance: of each coordinate, ``(D,)``.
    """

    dim: int
    log_z: float
    mean: Tensor
    variance: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density ``(B,)`` in nats."""
        energy: Tensor = self(x)
        return -energy - self.log_z

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws ``(n, D)``; ``noise`` is one of this package, or a CPU `torch.Generator`."""
        raise TypeError(f"{type(self).__name__} does not say how it is drawn from")


class Gaussian(Target):
    """U = ½ Σᵢ (xᵢ/σᵢ)², with deviations σᵢ from 1 to ``condition`` in a geometric sequence.

    Args:
        dim: D.
        condition: the largest deviation, at least 1.

    Raises:
        ValueError: for a dimension below 1 or a condition below 1.

    Example:
        >>> Gaussian(2).log_z  # log 2π + log 10
        4.140...
    """

    def __init__(self, dim: int = 2, condition: float = 10.0) -> None:
        super().__init__()
        if dim < 1 or not condition >= 1:
            raise ValueError(f"a Gaussian needs a dimension and a condition of 1 or more, not {dim} and {condition}")
        self.dim, self.std = dim, torch.logspace(0, math.log10(condition), dim)
        self.log_z = dim / 2 * math.log(2 * math.pi) + self.std.double().log().sum().item()
        self.mean, self.variance = torch.zeros(dim), self.std.square()

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (x / self.std.to(x)).square().sum(1)

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        return self.std * as_noise(noise).normal((n, self.dim))


class Funnel(Target):
    """Neal's funnel: x₁ ~ N(0, s²) is the log-variance of all others, xᵢ ~ N(0, exp(x₁)); without its constants.

    Neal, "Slice sampling", 2003, section 8, with s = 3 and D = 10. No one step size serves both its ends.

    Args:
        dim: D, 2 or more.
        scale: s.

    Raises:
        ValueError: for fewer dimensions or a scale that is not positive.

    Example:
        >>> Funnel()(torch.zeros(1, 10)).item(), round(Funnel().log_z, 3)
        (0.0, 10.288)
    """

    def __init__(self, dim: int = 10, scale: float = 3.0) -> None:
        super().__init__()
        if dim < 2 or not scale > 0:
            raise ValueError(f"a funnel needs 2 dimensions or more and a scale > 0, not {dim} and {scale}")
        self.dim, self.scale = dim, scale
        self.log_z = dim / 2 * math.log(2 * math.pi) + math.log(scale)
        self.mean = torch.zeros(dim)
        self.variance = torch.tensor([scale**2] + [math.exp(scale**2 / 2)] * (dim - 1))

    def forward(self, x: Tensor) -> Tensor:
        v, others = x[:, 0], x[:, 1:]
        inside = 0.5 * others.square().sum(1) * (-v).exp() + 0.5 * (self.dim - 1) * v
        return 0.5 * (v / self.scale).square() + inside

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        white = as_noise(noise).normal((n, self.dim))
        v = self.scale * white[:, :1]
        return torch.cat([v, white[:, 1:] * (v / 2).exp()], 1)


class Ring(Target):
    """U = ½ ((‖x‖ − R)/s)² in the plane.

    Args:
        radius: R.
        width: s.

    Raises:
        ValueError: if one of them is not positive.

    Example:
        >>> Ring()(torch.tensor([[0.0, 3.0]])).item()
        0.0
    """

    def __init__(self, radius: float = 3.0, width: float = 0.2) -> None:
        super().__init__()
        if not (radius > 0 and width > 0):
            raise ValueError(f"a ring needs a radius and a width > 0, not {radius} and {width}")
        self.dim, self.radius, self.width = 2, radius, width
        # Integrals of rᵏ exp(−(r − R)²/2s²) over r > 0, from those of tᵏ φ(t) over t > −R/s.
        a = radius / width
        tail, phi = 0.5 * math.erfc(-a / math.sqrt(2)), math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)
        first = radius * tail + width * phi
        third = (radius**3 + 3 * radius * width**2) * tail + width * (radius**2 + 2 * width**2) * phi
        self.log_z = math.log(2 * math.pi * math.sqrt(2 * math.pi) * width * first)
        self.mean, self.variance = torch.zeros(2), torch.full((2,), third / first / 2)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((torch.linalg.vector_norm(x, dim=1) - self.radius) / self.width).square()

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        # With r = R + s·t the density is (R + s·t)⁺ φ(t) ≤ R φ(t) + s |t| φ(t): a normal and a two-sided Rayleigh.
        draws = as_noise(noise)
        kept = torch.empty(0)
        normal = self.radius / (self.radius + self.width * math.sqrt(2 / math.pi))
        while len(kept) < n:
            t = draws.normal((n, 2))
            rayleigh = t.square().sum(1).sqrt() * t[:, 0].sign()
            t = torch.where(draws.uniform((n,)) < normal, t[:, 0], rayleigh)
            r = self.radius + self.width * t
            kept = torch.cat([kept, r[draws.uniform((n,)) * (self.radius + self.width * t.abs()) < r]])
        angle = 2 * math.pi * draws.uniform((n,))
        return kept[:n, None] * torch.stack([angle.cos(), angle.sin()], 1)


class GMM40(Target):
    """Forty round Gaussians of equal weight in the plane, U = −log Σ exp(−‖x − mᵢ‖²/2s²).

    Their means are uniform on [−40, 40]², drawn once, and s = softplus(1) = 1.313, as in Midgley et al., "Flow annealed
    importance sampling bootstrap", 2023.

    Example:
        >>> GMM40().means.shape, round(GMM40().log_z, 3)  # log 40 + log 2πs²
        (torch.Size([40, 2]), 6.072)
    """

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.std = 2, math.log1p(math.e)
        self.means = 80 * torch.rand((40, 2), generator=torch.Generator().manual_seed(0)) - 40
        self.log_z = math.log(len(self.means)) + math.log(2 * math.pi * self.std**2)
        self.mean = self.means.mean(0)
        self.variance = self.std**2 + self.means.var(0, correction=0)

    def forward(self, x: Tensor) -> Tensor:
        squared = (x[:, None, :] - self.means.to(x)).square().sum(-1)
        return -torch.logsumexp(-squared / (2 * self.std**2), dim=1)

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        return GaussianMixture(self.means, self.std).sample(n, noise)


class ManyWell(Target):
    """Pairs of a double well and a spring, U = Σ (a⁴ − 6a² − a/2) + b²/2 over pairs (a, b): 2^(D/2) modes.

    Noé et al., "Boltzmann generators", 2019; with D = 32 in Midgley et al., 2023, log Z = 164.696.

    Args:
        dim: D, even.

    Raises:
        ValueError: for a dimension that is not even and positive.

    Example:
        >>> round(ManyWell(32).log_z, 3)
        164.696
    """

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"wells come in pairs of coordinates, not {dim}")
        self.dim = dim
        # One well by the trapezoidal rule, whose error here is that of the rounding.
        a = np.linspace(-5, 5, 4001)
        weight = np.exp(-self._well(a))
        z = weight.sum() * (a[1] - a[0])
        mean = float((weight * a).sum() / weight.sum())
        variance = float((weight * a**2).sum() / weight.sum()) - mean**2
        self.log_z = dim / 2 * (math.log(z) + 0.5 * math.log(2 * math.pi))
        self.mean = torch.tensor([mean, 0.0]).repeat(dim // 2)
        self.variance = torch.tensor([variance, 1.0]).repeat(dim // 2)

    @staticmethod
    def _well(a: Any) -> Any:
        return a**4 - 6 * a**2 - a / 2

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.unflatten(1, (-1, 2)).unbind(2)
        return (self._well(a) + 0.5 * b.square()).sum(1)

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        draws, pairs = as_noise(noise), self.dim // 2
        kept, count = torch.empty(0), n * pairs
        while len(kept) < count:
            right = draws.uniform((count,)) < _RIGHT
            a = torch.where(right, 1.0, -1.0) * _WELL + _WIDTH * draws.normal((count,))
            log_ratio = -self._well(a) - _proposal(a) - _BOUND
            kept = torch.cat([kept, a[draws.uniform((count,)).log() < log_ratio]])
        b = draws.normal((n, pairs))
        return torch.stack([kept[:count].view(n, pairs), b], 2).flatten(1)


# A double well is drawn by rejection, from Gaussians about its wells.
_RIGHT, _WELL, _WIDTH = 0.8, 1.7, 0.45  # the share of the right one
_BOUND = 10.11  # of log exp(−well) over the proposal


def _proposal(a: Tensor) -> Tensor:
    """Logarithm of the proposal's density at ``a``, without its constant."""
    right = math.log(_RIGHT) - 0.5 * ((a - _WELL) / _WIDTH).square()
    left = math.log(1 - _RIGHT) - 0.5 * ((a + _WELL) / _WIDTH).square()
    return torch.logaddexp(left, right)
