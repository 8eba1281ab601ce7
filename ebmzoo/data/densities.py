"""Densities in the plane that are known exactly: what points are drawn from, and what models are held against."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise, as_noise


class Density(Protocol):
    """A density over ``(B, D)`` that is normalised exactly and can be drawn from."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density ``(B,)`` in nats, in the dtype of ``x``."""

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws ``(n, D)``."""


class GaussianMixture:
    """A mixture of equally likely, round Gaussians of one width.

    Args:
        means: the modes ``(M, D)``.
        std: standard deviation of each mode, in each direction, in the units of ``means``.

    Raises:
        ValueError: if ``std`` is not positive or ``means`` is not ``(M, D)``.

    Example:
        >>> density = GaussianMixture(torch.zeros(1, 2), std=1.0)
        >>> density.log_prob(torch.zeros(1, 2))  # -log(2 pi)
        tensor([-1.8379])
    """

    def __init__(self, means: Tensor, std: float) -> None:
        if means.ndim != 2 or not std > 0:
            raise ValueError(f"a mixture needs means (M, D) and std > 0, not {tuple(means.shape)} and {std}")
        self.means, self.std = means, std

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats.

        Args:
            x: points ``(B, D)``.

        Returns:
            ``(B,)``, in the dtype of ``x``.
        """
        means = self.means.to(x)
        squared = (x[:, None, :] - means).square().sum(-1)
        count, dim = self.means.shape
        norm = math.log(count) + dim / 2 * math.log(2 * math.pi * self.std**2)
        return torch.logsumexp(-squared / (2 * self.std**2), dim=1) - norm

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws.

        Args:
            n: number of points.
            noise: a noise of this package, or a CPU `torch.Generator`.

        Returns:
            Points ``(n, D)``.
        """
        count, dim = self.means.shape
        draws = as_noise(noise)
        mode = draws.integers(count, (n,), like=self.means)
        return self.means[mode] + self.std * draws.normal((n, dim), like=self.means)


class Rings:
    """Equally likely circles around the origin, blurred by a round Gaussian.

    The density of one circle is exact: with r = ‖x‖, R its radius and s the width it is
    exp(−(r² + R²)/2s²) I₀(rR/s²) / (2πs²).

    Args:
        radii: of the circles ``(M,)``.
        std: s, in the units of ``radii``.

    Raises:
        ValueError: if a radius or ``std`` is not positive.

    Example:
        >>> Rings(torch.tensor([1.0, 2.0]), std=0.1).log_prob(torch.tensor([[0.0, 2.0]]))
        tensor([-1.8402])
    """

    def __init__(self, radii: Tensor, std: float) -> None:
        if radii.ndim != 1 or not bool((radii > 0).all()) or not std > 0:
            raise ValueError(f"rings need radii (M,) > 0 and std > 0, not {radii.tolist()} and {std}")
        self.radii, self.std = radii, std

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats of points ``(B, 2)``: ``(B,)``."""
        radii, variance = self.radii.to(x), self.std**2
        r = torch.linalg.vector_norm(x, dim=1)[:, None]
        # The scaled Bessel function holds the exponential of its argument back, which would overflow.
        bessel = torch.special.i0e(r * radii / variance).log()
        norm = math.log(len(radii)) + math.log(2 * math.pi * variance)
        return torch.logsumexp(bessel - (r - radii).square() / (2 * variance), dim=1) - norm

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws ``(n, 2)``; ``noise`` is one of this package, or a CPU `torch.Generator`."""
        draws = as_noise(noise)
        radius = self.radii[draws.integers(len(self.radii), (n,), like=self.radii)]
        angle = 2 * math.pi * draws.uniform((n,), like=self.radii)
        return _polar(radius, angle) + self.std * draws.normal((n, 2), like=self.radii)


class Checkerboard:
    """Uniform on every other square of a board around the origin: 1 / (filled area) there, 0 elsewhere.

    Args:
        squares: along one side of the board, an even number; the lower left one is filled.
        side: of a square.

    Raises:
        ValueError: if ``squares`` is not even and positive, or ``side`` is not positive.

    Example:
        >>> Checkerboard(squares=4, side=2.0).log_prob(torch.tensor([[-3.0, -3.0], [-1.0, -3.0]]))
        tensor([-3.4657,    -inf])
    """

    def __init__(self, squares: int = 4, side: float = 2.0) -> None:
        if squares < 2 or squares % 2 or not side > 0:
            raise ValueError(f"a board needs an even number of squares and side > 0, not {squares} and {side}")
        self.squares, self.side = squares, side
        cells = torch.cartesian_prod(torch.arange(squares), torch.arange(squares))
        #: lower left corners of the filled squares ``(M, 2)``
        self.corners = side * (cells[cells.sum(1) % 2 == 0] - squares // 2).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats of points ``(B, 2)``: ``(B,)``, minus infinity off the filled squares."""
        cell = torch.floor(x / self.side) + self.squares // 2
        filled = ((cell >= 0) & (cell < self.squares)).all(1) & (cell.sum(1) % 2 == 0)
        inside = -math.log(len(self.corners) * self.side**2)
        return torch.where(filled, x.new_tensor(inside), x.new_tensor(-math.inf))

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws ``(n, 2)``; ``noise`` is one of this package, or a CPU `torch.Generator`."""
        draws = as_noise(noise)
        corner = self.corners[draws.integers(len(self.corners), (n,), like=self.corners)]
        x = corner + self.side * draws.uniform((n, 2), like=self.corners)
        # A number just below 1 can be rounded up to the far edge, which belongs to the next square.
        return torch.minimum(x, torch.nextafter(corner + self.side, corner))


class Pinwheel:
    """Arms of a wheel, each a Gaussian along a ray, twisted by an angle that grows with the radius.

    A turn by an angle that depends on the radius alone keeps areas, so the density is exact: that of the
    Gaussians at the point turned back. (The toy usually called so turns by an angle that depends on the
    place along the ray before the turn; it has no density in closed form.)

    Args:
        arms: number of arms.
        radius: mean distance of an arm's points along its ray.
        stds: standard deviations along the ray and across it.
        twist: radians for each unit of radius.

    Raises:
        ValueError: if ``arms`` or a standard deviation is not positive.

    Example:
        >>> Pinwheel(arms=1, radius=0.0, stds=(1.0, 1.0), twist=3.0).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    def __init__(
        self,
        arms: int = 5,
        radius: float = 2.2,
        stds: tuple[float, float] = (0.6, 0.16),
        twist: float = 0.6,
    ) -> None:
        if arms < 1 or not min(stds) > 0:
            raise ValueError(f"a pinwheel needs arms >= 1 and stds > 0, not {arms} and {stds}")
        self.arms, self.radius, self.stds, self.twist = arms, radius, stds, twist

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats of points ``(B, 2)``: ``(B,)``."""
        r = torch.linalg.vector_norm(x, dim=1)[:, None]
        arms = torch.arange(self.arms, dtype=x.dtype, device=x.device)
        back = -self.twist * r - 2 * math.pi / self.arms * arms
        along = x[:, :1] * back.cos() - x[:, 1:] * back.sin()
        across = x[:, :1] * back.sin() + x[:, 1:] * back.cos()
        squared = ((along - self.radius) / self.stds[0]).square() + (across / self.stds[1]).square()
        norm = math.log(self.arms) + math.log(2 * math.pi * self.stds[0] * self.stds[1])
        return torch.logsumexp(-squared / 2, dim=1) - norm

    def sample(self, n: int, noise: Noise | torch.Generator) -> Tensor:
        """Independent draws ``(n, 2)``; ``noise`` is one of this package, or a CPU `torch.Generator`."""
        draws = as_noise(noise)
        arm = draws.integers(self.arms, (n,))
        white = draws.normal((n, 2))
        along, across = self.radius + self.stds[0] * white[:, 0], self.stds[1] * white[:, 1]
        r = torch.hypot(along, across)
        return _polar(r, torch.atan2(across, along) + self.twist * r + 2 * math.pi / self.arms * arm)


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
