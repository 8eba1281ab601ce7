"""What becomes of chains when they run on: are they a density's, or samplers of their shipped length alone?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ebmzoo import metrics
from ebmzoo.images import to_uint8
from ebmzoo.methods.capabilities import HasEnergy, Samples
from ebmzoo.metrics import Protocol

from .base import Figure, Findings, Left, Look, Picture, numbers
from .chains import watching
from .plots import curves, rows

_SHOWN = 8


@dataclass(frozen=True)
class LongRun(Figure):
    """Chains of multiples of the training length, as they are and with Metropolis tests: where do they go?

    Of a density's chains that have arrived, neither the length nor the test changes the distance, and their energy is
    the data's. Of a short-run sampler the distance rises and the energy falls below the data's as chains run on, or the
    test refuses the steps (`corrected`), and chains stay where they began.

    Args:
        n: of chains, at most.
        multiples: of the training length.

    Raises:
        ValueError: for other multiples than counts from 1 on.
    """

    n: int = 1000
    multiples: Sequence[int] = (1, 2, 5, 10, 30)

    name, part, needs = "long run", "chains", (Samples,)

    def __post_init__(self) -> None:
        if not self.multiples or min(self.multiples) < 1:
            raise ValueError(f"a long run has multiples of 1 and more, not {list(self.multiples)}")

    def __call__(self, look: Look) -> Findings:
        model, n = look.model, min(self.n, look.n)
        own = look.training_steps or look.chain_steps
        if not own:
            raise ValueError(f"{type(model).__name__} has no chain")
        places = [own * multiple for multiple in self.multiples]
        distances: dict[str, Tensor] = {}
        energies: dict[str, Tensor] = {}
        for suffix, kind in {"": "as they are", "_metropolis": "with Metropolis tests"}.items():
            adjusting: AbstractContextManager[bool] = corrected(model) if suffix else nullcontext(True)
            with adjusting as possible:
                ends = [_run(look, n, steps) for steps in places] if possible else []
            if not ends:
                yield Left(f"chains {kind}", f"{type(model).__name__} has no Langevin chain of a temperature above 0")
                continue
            if shares := [end.found["acceptance"] for end in ends if "acceptance" in end.found]:
                kind += f" ({min(shares):.1%} to {max(shares):.1%} pass)"
            for multiple, end in zip(self.multiples, ends, strict=True):
                found = {f"{name}_chain{suffix}_x{multiple}": value for name, value in end.found.items()}
                yield from numbers(found, end.protocol)
            if look.kind == "images":
                shown = {f"{steps:,} steps": end.x[:_SHOWN] for steps, end in zip(places, ends, strict=True)}
                title = f"the same chains run on {kind} ({own} steps in training)"
                yield Picture(f"long_run{suffix}", rows(shown, title))
            if "fid" in ends[0].found:
                distances[kind] = torch.tensor([end.found["fid"] for end in ends])
            if isinstance(model, HasEnergy):
                energies[kind] = torch.stack([end.energy for end in ends])
        axis, title = "steps of the chain", f"where chains go ({n:,} chains; {own} steps in training)"
        panels = []
        if distances:
            label = f"Fréchet distance ({look.features.name})"
            panels.append(curves(distances, places, axis, label, title, logarithmic=True))
        if energies:
            energies["test data"] = look.over(model.energy, look.batches("test", n)).expand(len(places), -1)
            panels.append(curves(energies, places, axis, "E(x)", title, bands=True, logarithmic=True))
        if panels:
            yield Picture("long_run_curves", torch.cat(panels, dim=2))


@contextmanager
def corrected(model: Any) -> Iterator[bool]:
    """While the context lasts, a model's Langevin chains are `MALA` of their step size and temperature.

    Clamps and bounds of the chains are left out: they belong to no proposal of a known density. For U = x²/2 and T = 1
    a step from x to x' passes with probability min(1, exp((s/8)(‖x‖² − ‖x'‖²))): far from a mode nearly always, and
    from the mode itself, in D dimensions, (1 + s²/4)^(−D/2) of the steps do. Where steps were chosen for short chains
    the share that passes may be 0.

    Yields:
        Whether there was one.

    Example:
        >>> from types import SimpleNamespace
        >>> from ebmzoo.mcmc import Langevin
        >>> model = SimpleNamespace(sampler=Langevin(steps=3, step_size=0.1, bounds=(-1.0, 1.0)))
        >>> with corrected(model) as found:
        ...     print(found, type(model.sampler).__name__, model.sampler.step_size)
        True MALA 0.1
        >>> model.sampler.bounds
        (-1.0, 1.0)
    """
    from ebmzoo.mcmc import MALA, Langevin  # here: a training that asks for no long run needs neither

    kept = {name: one for name, one in vars(model).items() if type(one) is Langevin and one.temperature > 0}
    common = {one.name for one in fields(MALA)} & {one.name for one in fields(Langevin)}
    try:
        for name, sampler in kept.items():
            setattr(model, name, MALA(**{key: getattr(sampler, key) for key in common}))
        yield bool(kept)
    finally:
        for name, sampler in kept.items():
            setattr(model, name, sampler)


class _End(NamedTuple):
    """Where chains of a length are: states ``(n, …)``, energies ``(n,)`` of a method that has one, numbers of both."""

    x: Tensor
    energy: Tensor
    found: dict[str, float]
    protocol: Protocol


def _run(look: Look, n: int, steps: int) -> _End:
    with watching(look.model) as traces:
        x = torch.cat([batch.cpu() for batch in look.batches_of_samples(n, steps)])
    images, energy = look.kind == "images", torch.empty(0)
    found = _of_images(look, x) if images else _of_points(look, x)
    if isinstance(look.model, HasEnergy):
        energy = look.over(look.model.energy, x)
        found["energy"] = energy.mean().item()
    if accepted := [one for trace in traces.values() for one in trace.accepted]:
        found["acceptance"] = torch.cat(accepted).mean().item()
    network = look.by_features if images and look.extractor is not None else {}
    return _End(x, energy, found, look.of_samples(n, "train", steps, **network))


def _of_images(look: Look, x: Tensor) -> dict[str, float]:
    found = {"saturation": (x.abs() >= 1).double().mean().item()}
    return found if look.extractor is None else found | look.compare(to_uint8(x))


def _of_points(look: Look, x: Tensor) -> dict[str, float]:
    if look.modes is None:
        return {}
    return {"mode_high_quality_share": metrics.mode_coverage(x, *look.modes).high_quality_share}
