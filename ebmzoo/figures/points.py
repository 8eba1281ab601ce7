"""Points held against the density that their data came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ebmzoo import metrics

from .base import Figure, Findings, Look, Number, numbers

__all__ = ["Points"]


@dataclass(frozen=True)
class Points(Figure):
    """The samples' log-density under the truth, and which of its modes they cover."""

    name, part, of, takes = "density and modes", "generation", "points", "samples"

    def __call__(self, look: Look) -> Findings:
        samples, density = look.samples, look.density
        if density is None:
            raise ValueError(f"the density of {look.data.name} is not known")
        how: dict[str, Any] = {"unit": "nats", "density": "exact"}
        log_density = density.log_prob(samples.double())
        found = {"log_density_mean": log_density.mean().item(), "log_density_median": log_density.median().item()}
        yield from numbers(found, look.of_samples(len(samples), rounding=None, settings=how))
        test = look.examples("test").double()
        value = density.log_prob(test).mean().item()
        yield Number("log_density_mean_test", value, look.of_data(len(test), "test", settings=how))
        if look.modes is None:
            return
        modes = metrics.mode_coverage(samples, *look.modes)
        found = {
            "modes_covered": modes.covered,
            "mode_high_quality_share": modes.high_quality_share,
            "mode_least_share": modes.least_share,
            "mode_kl": modes.kl,
            "mode_within_std": modes.within_std,
        }
        how = {"modes": modes.total, "within": "4 s", "std": density.std}
        yield from numbers(found, look.of_samples(len(samples), rounding=None, settings=how))
        # The few samples between modes make the mean above: those within show how well the modes are met.
        inside = (torch.cdist(samples.double(), density.means.double()) <= 4 * density.std).any(1)
        if inside.any():
            protocol = look.of_samples(int(inside.sum()), rounding=None, settings=how | {"unit": "nats"})
            yield Number("log_density_within", log_density[inside].mean().item(), protocol)
