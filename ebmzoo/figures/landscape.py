"""What the report draws of energies: those of data and samples, and in the plane the landscape and its chains.

These are no numbers with a protocol; they lie beside the results as arrays, in ``arrays.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ebmzoo.methods.capabilities import BoundsLikelihood, HasEnergy, HasLogDensity, Samples, Tilts

from .base import Array, Figure, Findings, Look, Picture
from .chains import chain_frames
from .plots import histograms

_SIDE = 96  # places of the landscape along an axis
_MARGIN = 0.15  # of the data's extent, on every side
_DRAWS = 10  # of a likelihood bound at a place of the landscape
_POINTS, _FRAMES = 400, 16  # of the chains in it


@dataclass(frozen=True)
class Energies(Figure):
    """The energy of test data, training data and samples: a histogram, and arrays "energy/…" for the report.

    Args:
        n: of each, at most.
    """

    n: int = 1000

    name, part, needs, quiet = "energies", "chains", (HasEnergy,), True

    def __call__(self, look: Look) -> Findings:
        groups = {look.name(split): look.examples(split, self.n) for split in ("test", "train")}
        if isinstance(look.model, Samples):
            groups["samples"] = torch.cat([x.cpu() for x in look.batches_of_samples(min(self.n, look.n))])
        found = {name: look.over(look.model.energy, x) for name, x in groups.items()}
        yield from (Array(f"energy/{name}", values) for name, values in found.items())
        title = f"energies of {type(look.model).__name__}"
        yield Picture("energies", histograms(found, "E(x) (low: likely)", title))


@dataclass(frozen=True)
class Landscape(Figure):
    """The model's log-density around the data beside the truth's, and points of chains of `sample` on their way."""

    name, part, of = "landscape", "chains", "points"

    def __call__(self, look: Look) -> Findings:
        model = look.model
        if tuple(model.image_shape) != (2,):
            return
        test = look.examples("test")
        low, high = test.amin(0), test.amax(0)
        margin = _MARGIN * (high - low)
        low, high = low - margin, high + margin
        axes = [torch.linspace(*ends, _SIDE) for ends in zip(low.tolist(), high.tolist(), strict=True)]
        places = torch.cartesian_prod(*axes)
        yield Array("plane/box", torch.stack([low, high]))
        yield Array("plane/data", test[:_POINTS])
        if look.density is not None:
            yield Array("plane/truth", look.density.log_prob(places.double()).view(_SIDE, _SIDE))
        values = _log_density(look, places)
        if values is not None:
            yield Array("plane/model", values.view(_SIDE, _SIDE))
        if isinstance(model, Samples):
            steps = look.chain_steps
            frames = chain_frames(model, _POINTS, steps, _FRAMES, look.noise()) if steps else []
            frames = frames or [model.sample(_POINTS, noise=look.noise())]
            yield Array("plane/chain", torch.stack([frame.cpu() for frame in frames]))
            at = torch.linspace(0, steps, min(_FRAMES, steps + 1)).round()
            yield Array("plane/steps", at if len(frames) > 1 else torch.zeros(1))


def _log_density(look: Look, places: Tensor) -> Tensor | None:
    """Up to a constant, ``(len(places),)``; None where the model has neither a density nor a bound of it."""
    model, noise = look.model, look.noise()
    bound = (
        partial(model.log_likelihood_bound, samples=_DRAWS, noise=noise)
        if isinstance(model, BoundsLikelihood)
        else None
    )
    if bound is not None and isinstance(model, Tilts) and model.has_base:
        return look.over(lambda x: bound(x) - model.energy(x), places)
    if isinstance(model, HasLogDensity):
        return look.over(model.log_density, places)
    return None if bound is None else look.over(bound, places)
