"""How likely the test data are: bounds, and in the plane the likelihood itself, by a lattice and by Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise
from ebmzoo.methods.capabilities import BoundsLikelihood, HasLogDensity, Tilts
from ebmzoo.metrics import Protocol

from .base import Figure, Findings, Look, Number, numbers

_DRAWS = 100  # importance-weighted draws for a test point
_LATTICE_DRAWS = 10, 200  # and for points of the lattice, all of them and the heaviest
_BASE_DRAWS = 1_000_000
_POINTS = 256
_MARGIN = 0.25  # of the data's extent, on every side of the box
_LEFT_COARSE = 1e-4  # share of the mass on a lattice that is not worth a better estimate

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Bounds(Figure):
    """The ELBO of the test split, and importance-weighted bounds of some of it.

    Args:
        draws: of each importance-weighted bound.
        n: at most so many examples are bounded with more than one draw; 2 or more.

    Raises:
        ValueError: for other numbers.
    """

    draws: Sequence[int] = (100,)
    n: int = 1000

    name, part, needs = "ELBO", "likelihood", (BoundsLikelihood,)

    def __post_init__(self) -> None:
        if min([1, *self.draws]) < 1 or self.n < 2:
            raise ValueError(f"bounds need draws of at least 1 and n of at least 2, not {list(self.draws)}, {self.n}")

    def __call__(self, look: Look) -> Findings:
        for draws in (1, *self.draws):
            noise, batches = look.noise(), look.batches("test", None if draws == 1 else self.n)
            call = partial(look.model.log_likelihood_bound, samples=draws, noise=noise)
            found = look.over(call, batches)
            how = look.of_data(len(found), "test", seed=look.seed, settings={"unit": "nats", "draws": draws})
            yield Number("elbo_nats" if draws == 1 else f"iw_bound_{draws}_nats", found.mean().item(), how)


@dataclass(frozen=True)
class Likelihood(Figure):
    """The exact test log-likelihood of 2-D points, log Z by a lattice around the data.

    For a method whose density is a base tilted by an energy, h(x) = p(x) exp(−E(x))/Z, log p(x) is estimated by
    importance weighting, log Z is checked by draws of p, and p's own log-likelihood stands beside it.
    """

    name, part, of, needs = "likelihood", "likelihood", "points", (HasLogDensity,)

    def __call__(self, look: Look) -> Findings:
        model, noise = look.model, look.noise()
        test = look.examples("test")
        low, high = test.amin(0), test.amax(0)
        margin = _MARGIN * (high - low)
        box = (low - margin).tolist(), (high + margin).tolist()
        tilts = isinstance(model, Tilts) and model.has_base

        def tilted(x: Tensor, draws: int) -> Tensor:
            return model.log_likelihood_bound(x, draws, noise) - model.energy(x)

        coarse, fine, at_test = model.log_density, None, model.log_density
        if tilts:
            coarse, fine = (partial(tilted, draws=draws) for draws in _LATTICE_DRAWS)
            at_test = partial(tilted, draws=_DRAWS)
        lattice = lattice_log_partition(coarse, *box, points=_POINTS, like=look.like, refined=fine)
        how: dict[str, Any] = {"unit": "nats", "box": [*box], "points": _POINTS}
        how |= {"lattice_draws": list(_LATTICE_DRAWS)} if tilts else {}
        found = {"log_z": lattice.log_z, "log_z_spread": lattice.spread, "mass_outside": lattice.outside}
        yield from numbers(found, look.of_data(_POINTS**2, None, seed=look.seed, settings=how))
        values = torch.cat([at_test(x) for x in look.batches("test")]) - lattice.log_z
        of_test = {**how, "draws": _DRAWS} if tilts else how
        protocol = look.of_data(len(test), "test", seed=look.seed, settings=of_test)
        yield from _estimate("log_likelihood", mean_and_error(values), protocol)
        if tilts:
            yield from _of_base(look, noise)


def _of_base(look: Look, noise: Noise) -> Findings:
    """log Z by draws of the base, and the base's own log-likelihood."""
    model, size = look.model, look.batch_size
    sizes = [min(size, _BASE_DRAWS - start) for start in range(0, _BASE_DRAWS, size)]
    energy = torch.cat([model.energy(x) for x in [model.base_sample(n, noise=noise) for n in sizes]])
    settings: dict[str, Any] = {"unit": "nats", "estimate": "log of the mean of exp(-E) over draws of the base"}
    protocol = look.of_data(_BASE_DRAWS, None, seed=look.seed, settings=settings)
    yield from _estimate("log_z_base_draws", base_log_partition(energy), protocol)
    bounds = look.over(lambda x: model.log_likelihood_bound(x, _DRAWS, noise), look.batches("test"))
    settings = {"unit": "nats", "draws": _DRAWS}
    protocol = look.of_data(len(bounds), "test", seed=look.seed, settings=settings)
    yield from numbers({"base_log_likelihood": mean_and_error(bounds).value}, protocol)


def _estimate(name: str, found: Estimate, protocol: Protocol) -> Iterator[Number]:
    return numbers({name: found.value, f"{name}_error": found.error}, protocol)


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
