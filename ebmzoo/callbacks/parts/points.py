"""Points held against the density that their data came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ebmzoo.metrics import mode_coverage

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["density_and_modes"]


def density_and_modes(e: Evaluation, samples: Tensor) -> str | None:
    """The samples' log-density under the truth, and which of its modes they cover."""
    density = getattr(e.data, "density", None)
    if density is None:
        return f"the density of {e.data.name} is not known"
    protocol = e.of_samples(len(samples), rounding=None, settings={"unit": "nats", "density": "exact"})
    log_density = density.log_prob(samples.double())
    e.results.add("log_density_mean", log_density.mean().item(), protocol)
    e.results.add("log_density_median", log_density.median().item(), protocol)
    test = e.examples("test").double()
    truth = e.of_data(len(test), split="test", settings={"unit": "nats", "density": "exact"})
    e.results.add("log_density_mean_test", density.log_prob(test).mean().item(), truth)
    if not hasattr(density, "means"):
        return None
    found = mode_coverage(samples, density.means, density.std)
    protocol = e.of_samples(
        len(samples), rounding=None, settings={"modes": found.total, "within": "4 s", "std": density.std}
    )
    values = {
        "modes_covered": found.covered,
        "mode_high_quality_share": found.high_quality_share,
        "mode_least_share": found.least_share,
        "mode_kl": found.kl,
        "mode_within_std": found.within_std,
    }
    for name, value in values.items():
        e.results.add(name, value, protocol)
    return None
