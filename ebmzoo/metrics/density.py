"""Normalising constants and likelihoods: by a lattice in the plane, and by Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Estimate", "LatticeSum", "base_log_partition", "lattice_log_partition", "mean_and_error"]

_LEFT_COARSE = 1e-4  # share of the mass on a lattice that is not worth a better estimate

LogDensity = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


class LatticeSum(NamedTuple):
    """log Z of a density in the plane, summed over a lattice.

    Attributes:
        log_z: log Z, nats.
        spread: largest deviation, in nats, of the four lattices of twice the spacing that the lattice is made of: an
            upper estimate of the error of the sum, which for smooth densities falls exponentially with the spacing.
        outside: share of the mass in the frame around the box, out to twice its sides.
        spacing: distance of neighbouring points, one for each coordinate.
    """

    log_z: float
    spread: float
    outside: float
    spacing: tuple[float, ...]


def lattice_log_partition(
    log_density: LogDensity,
    low: Sequence[float],
    high: Sequence[float],
    points: int = 256,
    chunk: int = 16_384,
    tolerance: float = 1e-3,
    like: Tensor | None = None,
    refined: LogDensity | None = None,
) -> LatticeSum:
    """log Z = log ∫ exp(log_density) of a density in the plane, summed at the centres of a lattice's cells.

    Args:
        log_density: points ``(B, 2)`` to ``(B,)`` nats.
        low: lower left corner of the box.
        high: its upper right corner.
        points: of the lattice, along each side; an even number.
        chunk: points at once.
        tolerance: largest share of the mass that may lie in the frame around the box.
        like: the dtype and device of the points; float32 on the CPU by default.
        refined: a better estimate of the same density, taken at the points that hold all but 1e-4 of the mass. An
            estimate whose exponential has the right mean gives a sum with the right mean.

    Raises:
        ValueError: more of the mass lies outside, or the density is not finite somewhere.

    Example:
        >>> found = lattice_log_partition(lambda x: -x.square().sum(1) / 2, (-6, -6), (6, 6), points=64)
        >>> abs(found.log_z - math.log(2 * math.pi)) < 1e-6  # and no mass to speak of outside
        True
    """
    if points < 2 or points % 2 or len(low) != 2 or len(high) != 2:
        raise ValueError(f"a lattice in the plane needs two corners and an even number of points, not {points}")
    sides = [b - a for a, b in zip(low, high, strict=True)]
    spacing = tuple(side / points for side in sides)
    axes = [
        start + side * (torch.arange(points, dtype=torch.float64) + 0.5) / points
        for start, side in zip(low, sides, strict=True)
    ]
    lattice = torch.cartesian_prod(*axes)
    values = _evaluate(log_density, lattice, chunk, like)
    if refined is not None:
        heavy = _heaviest(values, 1 - _LEFT_COARSE)
        values[heavy] = _evaluate(refined, lattice[heavy], chunk, like)
    values = values.view(points, points)
    cell = math.log(spacing[0] * spacing[1])
    log_z = values.logsumexp((0, 1)).item() + cell
    parts = [values[i::2, j::2].logsumexp((0, 1)).item() + cell + math.log(4) for i in (0, 1) for j in (0, 1)]
    spread = max(abs(part - log_z) for part in parts)
    # The frame, on a lattice of twice the spacing: every other of its points would be an inner cell's corner.
    axes = [
        start - side / 2 + 2 * side * (torch.arange(points, dtype=torch.float64) + 0.5) / points
        for start, side in zip(low, sides, strict=True)
    ]
    frame = torch.cartesian_prod(*axes)
    inner = torch.ones(len(frame), dtype=torch.bool)
    for k in range(2):
        inner &= (frame[:, k] > low[k]) & (frame[:, k] < high[k])
    around = _evaluate(log_density, frame[~inner], chunk, like).logsumexp(0).item() + cell + math.log(4)
    outside = 1 / (1 + math.exp(min(log_z - around, 700.0)))
    if outside > tolerance:
        raise ValueError(
            f"{100 * outside:.3g}% of the model's mass lies around the box from {_corner(low)} to {_corner(high)}, out "
            f"to twice its sides (at most {100 * tolerance:g}% may): no lattice there normalises its likelihood"
        )
    return LatticeSum(log_z, spread, outside, spacing)


def base_log_partition(energy: Tensor) -> Estimate:
    """log Z of p(x) exp(−E(x)) for a normalised p, from draws of p: log of the mean of exp(−E).

    Args:
        energy: ``(n,)``, E at independent draws of p.

    Returns:
        log Z in nats, and its standard error by the delta method.

    Example:
        >>> base_log_partition(torch.full((8,), 2.0)).value
        -2.0
    """
    log_weights = -energy.double()
    log_z = (log_weights.logsumexp(0) - math.log(len(log_weights))).item()
    relative = (log_weights - log_z).exp()
    return Estimate(log_z, (relative.std() / len(relative) ** 0.5).item())


def mean_and_error(values: Tensor) -> Estimate:
    """The mean of independent values ``(n,)``, and its standard error.

    Example:
        >>> mean_and_error(torch.tensor([1.0, 3.0]))
        Estimate(value=2.0, error=1.0)
    """
    values = values.double()
    return Estimate(values.mean().item(), (values.std() / len(values) ** 0.5).item())


def _heaviest(values: Tensor, share: float) -> Tensor:
    """Indices of the fewest values ``(n,)`` whose exponentials make up this share of the sum."""
    order = values.argsort(descending=True)
    mass = (values[order] - values.max()).exp().cumsum(0)
    return order[: int((mass < share * mass[-1]).sum()) + 1]


def _evaluate(log_density: LogDensity, points: Tensor, chunk: int, like: Tensor | None) -> Tensor:
    like = torch.empty(0) if like is None else like
    values = torch.cat([log_density(part.to(like)).double().cpu() for part in points.split(chunk)])
    if not bool((values < math.inf).all()):  # minus infinity is no mass; NaN fails the comparison too
        raise ValueError("the log-density is not a number, or infinite, somewhere in the plane")
    return values


def _corner(point: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in point) + ")"
