"""Chains, watched: do they move, do they mix, would a Metropolis test have let them, and what do they look like?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ebmzoo.mcmc import Chain, Langevin, Noise, Observer, Potential, Sampler, State, observed
from ebmzoo.mcmc.potential import squared_norm
from ebmzoo.methods.capabilities import Samples

from .base import Figure, Findings, Look, Picture, numbers
from .plots import curves

_CHAINS = 64
_PROJECTIONS = 8
_ESS_STEPS = 10  # below, ArviZ sums no autocorrelation, and chains that do not move have its largest size


@dataclass(frozen=True)
class ChainHealth(Figure):
    """Energy, displacement, drift against noise, acceptance, R-hat and effective sample size of a few chains."""

    name, part, takes, needs = "chain health", "chains", "model", (Samples,)

    def __call__(self, look: Look) -> Findings:
        kind, steps = type(look.model).__name__, look.chain_steps
        if not steps:
            raise ValueError(f"{kind} has no chain")
        with watching(look.model) as traces:
            look.model.sample(_CHAINS, steps=steps, noise=look.noise())
        ran = {name: trace for name, trace in traces.items() if trace.energy}
        if not ran:
            raise ValueError(f"no sampler of {kind} was called")
        for name, trace in ran.items():
            steps = len(trace.energy)
            stage = f"chain_{name.rpartition('.')[2]}_" if len(ran) > 1 else "chain_"
            found = {f"{stage}{key}": value for key, value in _health(trace).items()}
            how = {"sampler of": name}
            yield from numbers(found, look.of_samples(_CHAINS, steps=steps, rounding=None, settings=how))
            lines, label = {"U": torch.stack(trace.energy)}, "potential U before the step"
            title = f"{_CHAINS} chains of {kind} by its {name}"
            yield Picture(f"{stage}energy", curves(lines, list(range(steps)), "step", label, title, bands=True))


def _health(trace: ChainTrace) -> dict[str, float]:
    energy = torch.stack(trace.energy)
    found = {
        "energy_start": energy[0].mean().item(),
        "energy_end": energy[-1].mean().item(),
        "displacement": trace.displacement[-1].mean().item(),
    }
    if trace.signal_to_noise:
        found["drift_to_noise"] = torch.stack(trace.signal_to_noise).median().item()
    if trace.acceptance:
        found["acceptance_if_adjusted"] = torch.stack(trace.acceptance).mean().item()
    if trace.accepted:
        found["acceptance"] = torch.stack(trace.accepted).mean().item()
    if len(energy) >= 8:  # of the second half: the way in from the start is no sample
        values = torch.cat([energy[..., None], torch.stack(trace.projections)], dim=2)[len(energy) // 2 :]
        found["rhat"], size = convergence(values)
        found |= {} if math.isnan(size) else {"ess": size}
    return found


@dataclass
class ChainTrace:
    """What a watched chain did, a value for each step and each of B chains.

    Attributes:
        energy: U before each step, each ``(B,)``.
        displacement: root mean squared distance from the start, over coordinates, each ``(B,)``.
        signal_to_noise: length of the step's drift over the expected length of its noise, √(s·T·D), each ``(B,)``;
            infinite at T = 0. Far below 1 the chain is a random walk, far above a descent.
        acceptance: probability with which a Metropolis test would have let each step pass, each ``(B,)``: of
            unadjusted Langevin steps on a fixed potential without bounds; empty for others.
        accepted: share of steps that a Metropolis sampler let pass, ``(B,)`` for each call; empty for others.
        projections: the state on eight fixed random directions of unit length, each ``(B, 8)``.
    """

    energy: list[Tensor] = field(default_factory=list)
    displacement: list[Tensor] = field(default_factory=list)
    signal_to_noise: list[Tensor] = field(default_factory=list)
    acceptance: list[Tensor] = field(default_factory=list)
    accepted: list[Tensor] = field(default_factory=list)
    projections: list[Tensor] = field(default_factory=list)


class _Record:
    """An observer that writes a trace."""

    def __init__(self, sampler: Sampler, trace: ChainTrace, redraws: bool) -> None:
        self.sampler, self.trace, self.redraws = sampler, trace, redraws
        # Fresh noise in the potential leaves no fixed density to accept by, a clamped state no density of proposals;
        # Metropolis samplers accept themselves, and other proposals than Langevin's have another density.
        unclamped = isinstance(sampler, Langevin) and sampler.bounds is None
        self.fixed = unclamped and not redraws and sampler.temperature > 0
        self.first: State | None = None
        self.last: State | None = None

    def __call__(self, step: int, state: State) -> None:
        if self.first is None:
            self.first = state
            generator = torch.Generator().manual_seed(0)
            self.directions = torch.randn(state.x[0].numel(), _PROJECTIONS, generator=generator).to(state.x)
        count = state.x[0].numel()
        self.trace.energy.append(state.energy.double().cpu())
        moved = squared_norm(state.x - self.first.x)
        self.trace.displacement.append((moved / count).sqrt().double().cpu())
        shown = state.x.flatten(1) @ self.directions
        self.trace.projections.append((shown / count**0.5).double().cpu())
        if self.redraws or state.velocity is not None:  # a velocity's drift is not −(s/2) ∇U
            return
        size, temperature = self.sampler.step_size, self.sampler.temperature
        noise = math.sqrt(size * temperature * count)
        length = squared_norm(size / 2 * state.grad).sqrt()
        self.trace.signal_to_noise.append((length / noise if noise else length / 0.0).double().cpu())
        if self.fixed and self.last is not None:
            before, half = self.last, size / 2
            there = squared_norm(state.x - before.x + half * before.grad)
            back = squared_norm(before.x - state.x + half * state.grad)
            log_ratio = (before.energy - state.energy) / temperature + (there - back) / (2 * size * temperature)
            self.trace.acceptance.append(log_ratio.double().clamp(max=0).exp().cpu())
        self.last = state

    def ended(self, chain: Chain) -> None:
        if chain.acceptance is not None:
            self.trace.accepted.append(chain.acceptance.double().cpu())


@contextmanager
def watching(model: Any) -> Iterator[dict[str, ChainTrace]]:
    """Write down what the samplers of a model do, while the context lasts.

    Args:
        model: its samplers are attributes, or fields of attributes that are dataclasses.

    Yields:
        What each did, by its name ("sampler", "refine.texture"); those that were not called have empty traces.

    Example:
        >>> from types import SimpleNamespace
        >>> from ebmzoo.mcmc import Langevin
        >>> model = SimpleNamespace(sampler=Langevin(steps=3, step_size=0.1))
        >>> with watching(model) as traces:
        ...     chain = model.sampler(lambda x: x.square().sum(1) / 2, torch.zeros(4, 2), noise=0)
        >>> len(traces["sampler"].energy), len(traces["sampler"].acceptance), isinstance(model.sampler, Langevin)
        (3, 2, True)
    """
    names: dict[int, str] = {}
    for name, value in vars(model).items():
        if isinstance(value, Sampler):
            names.setdefault(id(value), name)
        elif is_dataclass(value) and not isinstance(value, type):
            inner = {part.name: getattr(value, part.name) for part in fields(value)}
            for part, own in inner.items():
                if isinstance(own, Sampler):
                    names.setdefault(id(own), f"{name}.{part}")
    traces = {name: ChainTrace() for name in names.values()}

    def observes(sampler: Sampler, potential: Potential) -> Observer | None:
        name = names.get(id(sampler))
        return None if name is None else _Record(sampler, traces[name], potential.redraws)

    with observed(observes):
        yield traces


def convergence(values: Tensor) -> tuple[float, float]:
    """R-hat (split, rank-normalised) and bulk effective sample size of scalars along chains, by ArviZ.

    Vehtari et al., "Rank-normalization, folding, and localization: an improved R-hat", 2021.

    Args:
        values: ``(steps, B)`` or ``(steps, B, k)``.

    Returns:
        The largest R-hat of the k scalars (1 at convergence; above 1.01 the chains have not mixed), and the smallest
        effective sample size of them, of steps × B draws; NaN below 10 steps, of which none can be told.

    Raises:
        ValueError: for fewer than 4 steps or 2 chains.

    Example:
        >>> rhat, ess = convergence(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)))
        >>> rhat < 1.02, ess > 400
        (True, True)
    """
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or len(values) < 4 or values.shape[1] < 2:
        raise ValueError(f"R-hat needs 4 steps and 2 chains or more, not {tuple(values.shape[:2])}")
    from arviz_stats.base import array_stats  # lazily: only here

    columns = [column.T.double().numpy() for column in values.unbind(2)]
    rhats = [float(array_stats.rhat(column, chain_axis=0, draw_axis=1)) for column in columns]
    if len(values) < _ESS_STEPS:
        return max(rhats), math.nan
    sizes = [float(array_stats.ess(column, chain_axis=0, draw_axis=1)) for column in columns]
    return max(rhats), min(sizes)


def chain_frames(model: Any, n: int, steps: int, frames: int, noise: Noise) -> list[Tensor]:
    """States of ``n`` chains of `sample`, equally spaced, the first and the last among them, as far as they are images.

    Args:
        model: a method that `Samples` by a chain.
        n: number of chains.
        steps: length of the chains.
        frames: number of states, at most; 2 or more.
        noise: where the chains' noise comes from.

    Returns:
        Batches ``(n, C, H, W)``; none where the chain's states are no images.
    """
    wanted = set(_steps_of(steps, frames))
    shown: list[Tensor] = []
    seen = 0

    def watch(step: int, state: State) -> None:
        nonlocal seen
        if seen in wanted and tuple(state.x.shape[1:]) == tuple(model.image_shape):
            shown.append(state.x)
        seen += 1

    last = model.sample(n, steps=steps, noise=noise, watch=watch)
    return [*shown, last] if shown else []


def chain_titles(count: int, steps: int, frames: int) -> list[str]:
    """What stands above the ``count`` states that `chain_frames` gave, asked for so many frames.

    Example:
        >>> chain_titles(3, steps=10, frames=3)
        ['step 0', 'step 5', 'step 10']
    """
    at = _steps_of(steps, frames)
    # A method that runs several chains in turn shows the states of all; only one chain's steps can be named.
    return [f"step {k}" for k in at] if len(at) == count else [f"state {k}" for k in range(count)]


def _steps_of(steps: int, frames: int) -> list[int]:
    return torch.linspace(0, steps, min(frames, steps + 1)).round().int().tolist()
