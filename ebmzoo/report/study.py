"""A study of an energy: do chains on it mix, what is its log Z, and how does it look?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.figures.annealing import Bracket, annealed_bracket, white_gaussian
from ebmzoo.figures.chains import convergence
from ebmzoo.figures.likelihood import lattice_log_partition
from ebmzoo.figures.ood import detection
from ebmzoo.mcmc import HMC, MALA, Metropolis, Noise, Potential, Sampler, State, as_noise, as_potential, frozen
from ebmzoo.methods.base import Method
from ebmzoo.methods.capabilities import HasLogDensity

from .study_result import Study

_CHAINS, _KEPT = 64, 100  # chains of a model's own starts; states kept along the chains
_DIRECTIONS = 8  # that R-hat and ESS are taken along, where there are more coordinates
_UNADJUSTED = 0.99  # the share of an unadjusted kernel's steps that a Metropolis test would let pass
_LEAST_STD = 1e-3
_AIS_CHAINS = 500
_LEAST_EXACT = 40  # 20 groups of AIS, and as many for its base
_MARGIN = 0.5  # of the states' extent, on every side of the lattice
_LATTICE = 0.01  # share of Z, of what may lie outside and of the error


def study(
    energy: Callable[[Tensor], Tensor] | nn.Module,
    start: Tensor | Sequence[int] | None = None,
    sampler: Sampler | None = None,
    *,
    steps: int = 1000,
    warmup: int = 500,
    tune: bool = True,
    exact: Tensor | None = None,
    outside: Tensor | None = None,
    temperatures: int = 200,
    noise: None | int | torch.Generator | Noise = 0,
) -> Study:
    """Run chains on an energy and measure them and it.

    Args:
        energy: U, ``(B, …)`` to ``(B,)`` or ``(B, 1)``: a function, a module (taken in eval mode), a `Potential`, or a
            trained method with a log-density, whose U is −log density.
        start: where the chains begin, ``(B, …)``, or their shape, for white noise; None, of a method: 64 of its own.
        sampler: any kernel of `ebmzoo.mcmc` for one density, which also says T; by default `HMC`, with jitter.
        steps: of each chain, after the warm-up; 8 or more.
        warmup: steps before them, which are thrown away.
        tune: find the step size in the warm-up, by dual averaging of the acceptance: a Metropolis kernel's own; that of
            `MALA` at 0.99 for an unadjusted one. Otherwise the sampler's stays.
        exact: independent samples of exp(−U/T), ``(n, …)``, 40 or more, exact or of chains that are long enough: AIS
            in reverse starts from half of them, and its base has the moments of the others.
        outside: examples of something else, which the energy is to tell from them, ``(m, …)``.
        temperatures: of annealed importance sampling, see `annealed_bracket`; 0 leaves log Z out.
        noise: the source of noise (a seed and a generator are accepted).

    Raises:
        ValueError: there is nowhere to begin; the energy cannot be taken there, is not finite, or is no one density (it
            redraws, T = 0, a method without a log-density); for shapes that do not fit, and counts that are too small.

    Example:
        >>> import math
        >>> found = study(lambda x: 2 * x.square().sum(1), (100, 2), steps=100, warmup=100, temperatures=20)
        >>> abs(found.lattice_log_z - math.log(math.pi / 2)) < 0.01, found.rhat < 1.05
        (True, True)
    """
    if steps < 8 or warmup < 1:
        raise ValueError(f"a study has 8 steps and 1 of warm-up, or more, not {steps} and {warmup}")
    if temperatures < 0 or temperatures == 1:
        raise ValueError(f"AIS has 2 temperatures or more, or none (0), not {temperatures}")
    sampler = HMC(step_size=0.1, jitter=0.5) if sampler is None else sampler
    if not isinstance(sampler, Sampler):
        raise ValueError(f"a sampler is a kernel of ebmzoo.mcmc, such as HMC(), not {sampler!r}")
    if isinstance(energy, Method):
        if not isinstance(energy, HasLogDensity):
            raise ValueError(f"{type(energy).__name__} has no log-density of x to study")
        start = energy.sample(_CHAINS, steps=0, noise=0) if start is None else start
        energy = _Density(energy)
    if isinstance(energy, type) or not callable(energy):
        raise ValueError(f"an energy is a function or a module, not {energy!r}")
    potential = as_potential(energy)
    if potential.redraws or not sampler.temperature:
        raise ValueError("a study is of one density: of a potential that does not redraw, at T > 0")
    like = next(potential.parameters(), torch.empty(0))
    if start is None:
        raise ValueError("a study needs to know where its chains begin: points (B, …), or their shape")
    given = isinstance(start, Tensor) or hasattr(start, "__array__")
    source = as_noise(noise, start.device if isinstance(start, Tensor) else like.device)
    x = torch.as_tensor(start) if given else source.normal(tuple(start), like)
    if x.dim() < 2 or len(x) < 2 or not x.numel():
        raise ValueError(f"chains begin at points (B, …), two of them or more, not at {tuple(x.shape)}")
    exact, outside = (_like(x, values, name) for values, name in ((exact, "exact samples"), (outside, "the other set")))
    if exact is not None and temperatures and len(exact) < _LEAST_EXACT:
        raise ValueError(f"AIS in reverse needs {_LEAST_EXACT} exact samples or more, not {len(exact)}")
    _probe(potential, x)
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
    began = time.perf_counter()
    with frozen(potential):
        sampler, x = _warmed_up(sampler, potential, x, source, warmup, tune)
        way = _Way(x, steps)
        chain = sampler(potential, x, source, steps=steps, watch=way)
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(x.device) if x.is_cuda else _peak_of_process()
    draws = torch.stack([*way.kept, chain.x])
    rhat, ess = convergence(torch.stack(way.scalars))
    left_out = (
        ["all but the start: no step was accepted"]
        if chain.acceptance is not None and not chain.acceptance.any()
        else []
    )

    def log_density(at: Tensor) -> Tensor:
        return -potential(at) / sampler.temperature

    with frozen(potential):
        bracket = _bracket(log_density, draws, exact, temperatures, source) if temperatures else None
        lattice = None
        if tuple(x.shape[1:]) == (2,):
            try:
                lattice = _on_lattice(log_density, draws.flatten(0, 1))
            except ValueError as error:
                left_out.append(f"log Z by a lattice: {error}")
    if bracket is not None and bracket.lower > bracket.upper:
        left_out.append("log Z: its bounds cross, so that the exact samples are of another density")
    auroc = None
    if outside is not None:
        inside = chain.x if exact is None else exact
        auroc = detection(-energies(potential, inside), -energies(potential, outside)).auroc
    return Study(
        potential,
        sampler,
        draws,
        torch.stack(way.energies),
        rhat,
        ess,
        None if chain.acceptance is None else chain.acceptance.mean().item(),
        () if chain.swap_rate is None else tuple(chain.swap_rate.mean(0).tolist()),
        bracket,
        lattice,
        auroc,
        seconds,
        peak,
        exact,
        outside,
        tuple(left_out),
    )


def _like(x: Tensor, values: Any, name: str) -> Tensor | None:
    """Examples as those of x."""
    if values is None:
        return None
    values = torch.as_tensor(values)
    if values.shape[1:] != x.shape[1:] or not len(values):
        raise ValueError(
            f"{name} have the shape (n, {str(tuple(x.shape[1:])).strip('(,)')}), not {tuple(values.shape)}"
        )
    return values.to(x)


def _probe(potential: Potential, x: Tensor) -> None:
    """Take the energy and its gradient where chains begin, twice.

    Raises:
        ValueError: they cannot be taken, are not finite, or are another each time.
    """
    try:
        with frozen(potential):
            (energy, _), (again, _) = potential.value_and_grad(x), potential.value_and_grad(x)
    except Exception as error:  # a user's function can fail in any way
        words = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the energy and its gradient cannot be taken at x {tuple(x.shape)}: {type(error).__name__}: {words}"
        ) from error
    if sick := int((~energy.isfinite()).sum()):
        raise ValueError(f"the energy is not finite where {sick} of {len(x)} chains begin")
    if not torch.allclose(energy, again):
        raise ValueError("the energy of one x is another each time: a study is of one density")


class _Density(Potential):
    """−log density of a method."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        return -self.method.log_density(x)


def _warmed_up(
    sampler: Sampler, potential: Potential, x: Tensor, noise: Noise, warmup: int, tune: bool
) -> tuple[Sampler, Tensor]:
    if not tune:
        return sampler, sampler(potential, x, noise, steps=warmup).x
    if isinstance(sampler, Metropolis):
        found = replace(sampler, warmup=warmup)(potential, x, noise, steps=0)
        sampler = replace(sampler, warmup=0)
    else:
        finder = MALA(0, sampler.step_size, sampler.temperature, warmup=warmup, target_acceptance=_UNADJUSTED)
        found = finder(potential, x, noise)
    assert found.step_size is not None
    return replace(sampler, step_size=found.step_size), found.x


class _Way:
    """What is kept of the chains: all energies, a few states, and the scalars that R-hat is taken of."""

    def __init__(self, x: Tensor, steps: int) -> None:
        self.every = -(-steps // _KEPT)
        self.kept: list[Tensor] = []
        self.energies: list[Tensor] = []
        self.scalars: list[Tensor] = []
        count = x[0].numel()
        generator = torch.Generator().manual_seed(0)
        few = count <= _DIRECTIONS
        directions = torch.eye(count) if few else torch.randn(count, _DIRECTIONS, generator=generator)
        self.directions = directions.to(x)

    def __call__(self, step: int, state: State) -> None:
        if step % self.every == 0:
            self.kept.append(state.x)
        energy = state.energy.double().cpu()
        self.energies.append(energy)
        along = state.x.flatten(1) @ self.directions.to(state.x.dtype)
        self.scalars.append(torch.cat([energy[:, None], along.double().cpu()], 1))


def _bracket(
    log_density: Callable[[Tensor], Tensor], draws: Tensor, exact: Tensor | None, temperatures: int, noise: Noise
) -> Bracket:
    # The base is fitted to others than the samples that reverse chains start from: there it would be too good.
    known, starts = (draws.flatten(0, 1), None) if exact is None else exact.tensor_split(2)
    mean, std = known.mean(0), known.std(0).clamp_min(_LEAST_STD)
    return annealed_bracket(
        white_gaussian(log_density, mean, std),
        [tuple(mean.shape)],
        noise,
        None if starts is None else [(starts - mean) / std],
        chains=_AIS_CHAINS if starts is None else min(_AIS_CHAINS, len(starts)),
        temperatures=temperatures,
        like=draws,
    )


@torch.no_grad()
def _on_lattice(log_density: Callable[[Tensor], Tensor], states: Tensor) -> float:
    """log Z in the plane around the states.

    Raises:
        ValueError: it cannot be told to 1% of Z.
    """
    low, high = box(states, _MARGIN)
    found = lattice_log_partition(log_density, low, high, tolerance=_LATTICE, like=states)
    if found.spread > _LATTICE:
        raise ValueError("its spacing is too wide for this energy")
    return found.log_z


def box(points: Tensor, margin: float) -> tuple[list[float], list[float]]:
    """Corners of what holds most points ``(n, 2)``, with a margin, a share of their extent, on every side."""
    low, high = points.double().quantile(torch.tensor([0.001, 0.999]).double().to(points.device), dim=0).cpu()
    more = margin * (high - low).clamp_min(1e-3)
    return (low - more).tolist(), (high + more).tolist()


@torch.no_grad()
def energies(potential: Potential, x: Tensor, at_once: int = 1000) -> Tensor:
    """U of any number of examples, ``(n,)`` on the CPU in fp64."""
    with frozen(potential):
        return torch.cat([potential(part).double().cpu() for part in x.split(at_once)])


def _peak_of_process() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB on Linux
