"""What becomes of chains when they run on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ebmzoo import metrics
from ebmzoo.images import to_uint8
from ebmzoo.methods.capabilities import HasEnergy, Samples

from .base import Figure, Findings, Look, Picture, numbers
from .plots import curves, rows

__all__ = ["LongRun"]

_MULTIPLES = (1, 10, 100)
_SHOWN = 8


@dataclass(frozen=True)
class LongRun(Figure):
    """Chains of 1, 10 and 100 times the training length: distance, saturation and energy of where they are.

    Args:
        n: of chains, at most.
    """

    n: int = 1000

    name, part, needs = "long run", "chains", (Samples,)

    def __call__(self, look: Look) -> Findings:
        model, n = look.model, min(self.n, look.n)
        own = look.training_steps or look.chain_steps
        if not own:
            raise ValueError(f"{type(model).__name__} has no chain")
        has_energy, images = isinstance(model, HasEnergy), look.kind == "images"
        network = look.by_features if images and look.extractor is not None else {}
        shown: dict[str, Tensor] = {}
        energies: list[Tensor] = []
        places = [own * multiple for multiple in _MULTIPLES]
        for multiple, steps in zip(_MULTIPLES, places, strict=True):
            x = torch.cat([batch.cpu() for batch in look.batches_of_samples(n, steps)])
            found = _of_images(look, x) if images else _of_points(look, x)
            if has_energy:
                energies.append(look.over(model.energy, x))
                found["energy"] = energies[-1].mean().item()
            found = {f"{name}_chain_x{multiple}": value for name, value in found.items()}
            yield from numbers(found, look.of_samples(n, "train", steps, **network))
            shown[f"{steps:,} steps"] = x[:_SHOWN]
        if images:
            yield Picture("long_run", rows(shown, f"the same chains run on ({own} steps in training)"))
        if energies:
            test = look.over(model.energy, look.batches("test", n))
            lines = {"samples": torch.stack(energies), "test data": test.expand(len(places), -1)}
            labels = "steps of the chain", "E(x)", f"where chains go ({n:,} chains; {own} steps in training)"
            yield Picture("long_run_energy", curves(lines, places, *labels, bands=True, logarithmic=True))


def _of_images(look: Look, x: Tensor) -> dict[str, float]:
    found = {"saturation": (x.abs() >= 1).double().mean().item()}
    return found if look.extractor is None else found | look.compare(to_uint8(x))


def _of_points(look: Look, x: Tensor) -> dict[str, float]:
    if look.modes is None:
        return {}
    return {"mode_high_quality_share": metrics.mode_coverage(x, *look.modes).high_quality_share}
