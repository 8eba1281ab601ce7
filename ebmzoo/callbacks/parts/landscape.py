"""What the report draws of energies: their values at data and samples, and in the plane the landscape and its chains.

These are no numbers with a protocol; they lie beside the results as arrays, in ``arrays.npz``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.callbacks.figures import histograms
from ebmzoo.callbacks.looking import batches_of_samples, chain_steps
from ebmzoo.callbacks.pictures import chain_frames
from ebmzoo.methods.capabilities import BoundsLikelihood, HasEnergy, HasLogDensity, Samples, Tilts

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["energies", "plane"]

_SIDE = 96  # places of the landscape along an axis
_MARGIN = 0.15  # of the data's extent, on every side
_DRAWS = 10  # of a likelihood bound at a place of the landscape
_POINTS, _FRAMES = 400, 16  # of the chains in it


def energies(e: Evaluation) -> str | None:
    """The energy of test data, training data and samples: a histogram, and arrays "energy/…"."""
    if not isinstance(e.model, HasEnergy):
        return None
    n = e.plan.n_scored
    groups = {e.name(split): e.examples(split, n) for split in ("test", "train")}
    if isinstance(e.model, Samples):
        drawn = batches_of_samples(e.model, min(n, e.plan.n_test), e.plan.batch_size, e.plan.seed, e.device)
        groups["samples"] = torch.cat([x.cpu() for x in drawn])
    model: Any = e.model
    found = {
        name: torch.cat([model.energy(part.to(e.like)).double().cpu() for part in x.split(e.plan.batch_size)])
        for name, x in groups.items()
    }
    e.arrays |= {f"energy/{name}": values for name, values in found.items()}
    e.pictures["energies"] = histograms(found, "E(x) (low: likely)", f"energies of {type(model).__name__}")
    return None


def plane(e: Evaluation) -> str | None:
    """The model's log-density around the data beside the truth's, and points of chains of `sample` on their way."""
    model: Any = e.model
    if tuple(model.image_shape) != (2,):
        return None
    test = e.examples("test")
    low, high = test.amin(0), test.amax(0)
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    axes = [torch.linspace(*ends, _SIDE) for ends in zip(low.tolist(), high.tolist(), strict=True)]
    places = torch.cartesian_prod(*axes)
    e.arrays["plane/box"] = torch.stack([low, high])
    e.arrays["plane/data"] = test[:_POINTS]
    density = getattr(e.data, "density", None)
    if density is not None:
        e.arrays["plane/truth"] = density.log_prob(places.double()).view(_SIDE, _SIDE)
    values = _log_density(e, places)
    if values is not None:
        e.arrays["plane/model"] = values.view(_SIDE, _SIDE)
    if isinstance(e.model, Samples):
        steps = chain_steps(model)
        frames = chain_frames(model, _POINTS, steps, _FRAMES, e.noise()) if steps else []
        frames = frames or [model.sample(_POINTS, noise=e.noise())]
        e.arrays["plane/chain"] = torch.stack([frame.cpu() for frame in frames])
        numbers = torch.linspace(0, steps, min(_FRAMES, steps + 1)).round() if len(frames) > 1 else torch.zeros(1)
        e.arrays["plane/steps"] = numbers
    return None


def _log_density(e: Evaluation, places: Tensor) -> Tensor | None:
    """Up to a constant, ``(len(places),)``; None where the model has neither a density nor a bound of it."""
    model, noise = e.model, e.noise()
    parts = [part.to(e.like) for part in places.split(e.plan.batch_size)]
    if isinstance(model, Tilts) and model.has_base and isinstance(model, BoundsLikelihood):
        return torch.cat([(model.log_likelihood_bound(x, _DRAWS, noise) - model.energy(x)).cpu() for x in parts])
    if isinstance(model, HasLogDensity):
        return torch.cat([model.log_density(x).cpu() for x in parts])
    if isinstance(model, BoundsLikelihood):
        return torch.cat([model.log_likelihood_bound(x, _DRAWS, noise).cpu() for x in parts])
    return None
