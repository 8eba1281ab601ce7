"""Annealed importance sampling, from both ends: brackets of a normalising constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ebmzoo import mcmc
from ebmzoo.mcmc import Noise, Potential, Row, frozen
from ebmzoo.mcmc.potential import squared_norm
from ebmzoo.methods.capabilities import HasLogDensity, Tilts

from .base import Figure, Findings, Look, numbers

_CHAINS = 500
_BASE_EXAMPLES, _LEAST_STD = 10_000, 0.1
_GROUPS = 20
_PILOT = 50  # chains that find the step sizes
_TARGET = 0.8  # acceptance that they aim at


@dataclass(frozen=True)
class Annealing(Figure):
    """log Z between bounds by annealed importance sampling, of which the upper is approximate without exact samples.

    Args:
        temperatures: of the path, 2 or more.
        n: at most so many test examples are held against it, 2 or more.

    Raises:
        ValueError: for other numbers.
    """

    temperatures: int = 500
    n: int = 1000

    name, part, needs = "AIS", "likelihood", (HasLogDensity,)

    def __post_init__(self) -> None:
        if min(self.temperatures, self.n) < 2:
            raise ValueError(f"AIS needs temperatures and n of at least 2, not {self.temperatures} and {self.n}")

    def __call__(self, look: Look) -> Findings:
        model = look.model
        # Lightning tests in inference mode, whose tensors cannot enter the graph of a chain.
        with torch.inference_mode(False):
            if isinstance(model, Tilts) and model.has_base:
                potential: Any = model.white_energy
                shapes, base = [tuple(shape) for shape in model.white_shapes], "the VAE's white noise"
            else:
                train = look.examples("train", _BASE_EXAMPLES).to(look.like)
                mean, std = train.mean(0), train.std(0).clamp_min(_LEAST_STD)
                potential = white_gaussian(model.log_density, mean, std)
                shapes, base = [tuple(mean.shape)], "a Gaussian of the training data's means and deviations"
            found = annealed_bracket(
                potential,
                shapes,
                look.noise(),
                chains=_CHAINS,
                temperatures=self.temperatures,
                long_chains=self.temperatures,
                networks=list(model.children()),
                like=look.like,
            )
        counts = {"temperatures": self.temperatures, "long_chains": self.temperatures}
        how = {"seed": look.seed, "settings": {"unit": "nats", "base": base, **counts}}
        values = {"log_z_ais_lower": found.lower, "log_z_ais_upper_approximate": found.upper}
        yield from numbers({**values, "ais_acceptance": found.acceptance}, look.of_data(_CHAINS, None, **how))
        log_density = look.over(model.log_density, look.batches("test", self.n))
        mean_value, name = log_density.mean().item(), "log_likelihood_ais"
        values = {f"{name}_lower_approximate": mean_value - found.upper, f"{name}_upper": mean_value - found.lower}
        yield from numbers(values, look.of_data(len(log_density), "test", **how))


class Bracket(NamedTuple):
    """log Z between two stochastic bounds, nats.

    Attributes:
        lower: from chains that go from the base to the target.
        upper: from chains that go back; NaN without a place to start them, approximate if that was a long chain's end.
        acceptance: mean share of accepted steps; much below one half, the bounds are loose.
    """

    lower: float
    upper: float
    acceptance: float


def annealed_bracket(
    potential: Callable[..., Tensor],
    shapes: Sequence[tuple[int, ...]],
    noise: Noise,
    exact: Sequence[Tensor] | None = None,
    *,
    chains: int = 2000,
    temperatures: int = 500,
    leapfrogs: int = 5,
    long_chains: int = 0,
    power: float = 2.0,
    networks: Sequence[nn.Module] = (),
    like: Tensor | None = None,
) -> Bracket:
    """Bracket log Z, Z = E[exp(−U(u))] over white noise u ~ N(0, I), by annealed importance sampling (AIS).

    The chains follow N(u; 0, I) exp(−β U(u)) from β = 0 to 1 by Hamiltonian Monte Carlo (Neal, "Annealed importance
    sampling", 2001). Forward, the logarithm of the mean weight lies below log Z in expectation; backward, from exact
    samples of the target, its negative lies above (Grosse et al., "Sandwiching the marginal likelihood using
    bidirectional Monte Carlo", 2015). Each bound is the mean over groups of chains, moved out by its one-sided 99.5%
    confidence interval. A trained energy has no exact samples: ``long_chains`` starts from approximate ones.

    Args:
        potential: U, of the leaves of a state, ``(B,)``. See `white_gaussian` for densities over x.
        shapes: of the leaves of the state, without the batch.
        noise: where all random numbers come from.
        exact: leaves of samples of the target, ``(n, ...)``; without them there is no upper bound.
        chains: in each direction, in 20 groups.
        temperatures: values of β.
        leapfrogs: of each Hamiltonian step.
        long_chains: without exact samples, so many more steps at the target, from the ends of the forward chains,
            make the starts of the backward ones; the upper bound then is approximate.
        power: β = (k/K)^power: most of them are where a wide base meets a narrow target.
        networks: that the potential uses; frozen meanwhile.
        like: the dtype and device of the chains.

    Raises:
        ValueError: for fewer chains than groups, or exact samples fewer than chains.

    Example:
        >>> from ebmzoo.mcmc import as_noise
        >>> found = annealed_bracket(lambda u: 1.5 * u.square().sum(1), [(2,)], as_noise(0), temperatures=50)
        >>> -0.1 < found.lower + math.log(4) < 0  # Z = (1 + 3)^(−2/2)
        True
    """
    if chains < _GROUPS or temperatures < 2:
        raise ValueError(f"AIS needs {_GROUPS} chains and 2 temperatures or more, not {chains} and {temperatures}")
    if exact is not None and len(exact[0]) < chains:
        raise ValueError(f"{chains} backward chains need as many samples to start from, not {len(exact[0])}")
    betas = [(k / temperatures) ** power for k in range(temperatures + 1)]
    row = Row(tuple(map(tuple, shapes)))
    path = _Path(potential, row, betas, leapfrogs, noise)
    like = torch.empty(0) if like is None else like

    def white(n: int) -> Tensor:
        return row.pack(*(noise.normal((n, *shape), like) for shape in shapes))

    upper = math.nan
    with frozen(*networks):
        path.tune(white(_PILOT))
        forward, ends = path.forward(white(chains))
        if exact is not None:
            ends = row.pack(*(leaf[:chains] for leaf in exact))
        elif long_chains:
            for _ in range(long_chains):
                ends = path.move(ends, temperatures)
        if exact is not None or long_chains:
            upper = -_bound(path.backward(ends))
    return Bracket(_bound(forward), upper, path.acceptance)


class _Path:
    """The distributions between base and target, and the steps that leave each of them invariant."""

    def __init__(
        self,
        potential: Callable[..., Tensor],
        row: Row,
        betas: Sequence[float],
        leapfrogs: int,
        noise: Noise,
    ) -> None:
        self.potential, self.row, self.betas, self.leapfrogs, self.noise = potential, row, betas, leapfrogs, noise
        self.steps = [0.5] * len(betas)
        self.accepted: list[float] = []

    @property
    def acceptance(self) -> float:
        return sum(self.accepted) / max(len(self.accepted), 1)

    def tune(self, state: Tensor) -> None:
        """Find a step size for each temperature, on chains that are then thrown away: the weights' chains must not."""
        step = self.steps[0]
        for k in range(1, len(self.betas)):
            self.steps[k] = step
            state = self.move(state, k)
            step *= math.exp(0.3 * (self.accepted[-1] - _TARGET))
        self.accepted.clear()

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights of chains that begin at the base, and where they end."""
        weights = torch.zeros(len(state), dtype=torch.float64)
        for k in range(1, len(self.betas)):
            weights -= (self.betas[k] - self.betas[k - 1]) * self._energy(state)
            state = self.move(state, k)
        return weights, state

    def backward(self, state: Tensor) -> Tensor:
        """Log-weights of chains that begin at the target: the same steps in reverse."""
        weights = torch.zeros(len(state), dtype=torch.float64)
        for k in range(len(self.betas) - 1, 0, -1):
            state = self.move(state, k)
            weights += (self.betas[k] - self.betas[k - 1]) * self._energy(state)
        return weights

    @torch.no_grad()
    def _energy(self, state: Tensor) -> Tensor:
        return self.potential(*self.row.parts(state)).double().cpu()

    def move(self, state: Tensor, k: int) -> Tensor:
        """One step that leaves the k-th distribution invariant."""
        beta = self.betas[k]
        kernel = mcmc.HMC(steps=1, step_size=self.steps[k] ** 2, leapfrogs=self.leapfrogs)
        chain = kernel(_Tempered(self.potential, self.row, beta), state, self.noise)
        assert chain.acceptance is not None
        self.accepted.append(chain.acceptance.mean().item())
        return chain.x


class _Tempered(Potential):
    """β·U(u) + ½‖u‖²: between white noise and the target."""

    def __init__(self, potential: Callable[..., Tensor], row: Row, beta: float) -> None:
        super().__init__()
        self.potential, self.row, self.beta = potential, row, beta

    def forward(self, state: Tensor) -> Tensor:
        return self.beta * self.potential(*self.row.parts(state)) + 0.5 * squared_norm(state)


def _bound(log_weights: Tensor) -> float:
    """A value that the expected logarithm of the mean of the weights exceeds with 99.5% confidence."""
    from scipy.stats import t as student  # slow to import

    groups = log_weights[: len(log_weights) // _GROUPS * _GROUPS].view(_GROUPS, -1)
    means = groups.logsumexp(1) - math.log(groups.shape[1])
    error = means.std().item() / _GROUPS**0.5
    return means.mean().item() - float(student.ppf(0.995, _GROUPS - 1)) * error


def white_gaussian(log_density: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor) -> Callable[[Tensor], Tensor]:
    """The potential U(u) of a density over x, seen from x = mean + std·u with u ~ N(0, I).

    With it, E[exp(−U(u))] over white noise is the integral of exp(log_density) over x.

    Args:
        log_density: x ``(B, ...)`` to ``(B,)``.
        mean: of the base, of the shape of one example.
        std: its standard deviations, likewise.

    Example:
        >>> U = white_gaussian(lambda x: -x.square().sum(1) / 2, torch.zeros(2), torch.ones(2))
        >>> U(torch.ones(3, 2))  # −log 2π: the density is the base, unnormalised
        tensor([-1.8379, -1.8379, -1.8379])
    """
    constant = std.log().sum() + std.numel() / 2 * math.log(2 * math.pi)

    def potential(u: Tensor) -> Tensor:
        return -log_density(mean + std * u) - constant - 0.5 * u.flatten(1).square().sum(1)

    return potential
