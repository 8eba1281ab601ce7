"""How likely the test data are: bounds, and in the plane the likelihood itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise
from ebmzoo.methods.capabilities import BoundsLikelihood, HasLogDensity, Tilts
from ebmzoo.metrics.annealing import annealed_bracket, white_gaussian
from ebmzoo.metrics.density import base_log_partition, lattice_log_partition, mean_and_error

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["annealed", "bounds", "in_the_plane"]

_DRAWS = 100  # importance-weighted draws for a test point
_LATTICE_DRAWS = 10, 200  # and for points of the lattice, all of them and the heaviest
_BASE_DRAWS = 1_000_000
_POINTS = 256
_AIS_CHAINS = 500
_BASE_EXAMPLES, _LEAST_STD = 10_000, 0.1
_MARGIN = 0.25  # of the data's extent, on every side of the box


def bounds(e: Evaluation) -> str | None:
    """The ELBO of the test split, and importance-weighted bounds of some of it."""
    model = e.model
    if not isinstance(model, BoundsLikelihood):
        return f"{type(model).__name__} bounds no likelihood"
    for draws in (1, *e.plan.iw_draws):
        most = None if draws == 1 else e.plan.n_scored
        noise = e.noise()
        found = torch.cat([model.log_likelihood_bound(x, draws, noise) for x in e.batches("test", most)])
        protocol = e.of_data(len(found), split="test", seed=e.plan.seed, settings={"unit": "nats", "draws": draws})
        name = "elbo_nats" if draws == 1 else f"iw_bound_{draws}_nats"
        e.results.add(name, mean_and_error(found).value, protocol)
    return None


def annealed(e: Evaluation) -> str | None:
    """log Z between bounds by annealed importance sampling; without exact samples the upper one is approximate."""
    if not e.plan.ais_temperatures:
        return None
    model = e.model
    if not isinstance(model, HasLogDensity):
        return f"{type(model).__name__} has no log-density"
    temperatures = e.plan.ais_temperatures
    # Lightning tests in inference mode, whose tensors cannot enter the graph of a chain.
    with torch.inference_mode(False):
        if isinstance(model, Tilts) and model.has_base:
            potential: Any = model.white_energy
            shapes, base = [tuple(shape) for shape in model.white_shapes], "the VAE's white noise"
        else:
            train = e.examples("train", _BASE_EXAMPLES).to(e.like)
            mean, std = train.mean(0), train.std(0).clamp_min(_LEAST_STD)
            potential = white_gaussian(model.log_density, mean, std)
            shapes, base = [tuple(mean.shape)], "a Gaussian of the training data's means and deviations"
        found = annealed_bracket(
            potential,
            shapes,
            e.noise(),
            chains=_AIS_CHAINS,
            temperatures=temperatures,
            long_chains=temperatures,
            networks=list(e.model.children()),
            like=e.like,
        )
    how = {"unit": "nats", "base": base, "temperatures": temperatures, "long_chains": temperatures}
    protocol = e.of_data(_AIS_CHAINS, split=None, seed=e.plan.seed, settings=how)
    e.results.add("log_z_ais_lower", found.lower, protocol)
    e.results.add("log_z_ais_upper_approximate", found.upper, protocol)
    e.results.add("ais_acceptance", found.acceptance, protocol)
    values = torch.cat([model.log_density(x) for x in e.batches("test", e.plan.n_scored)])
    protocol = e.of_data(len(values), split="test", seed=e.plan.seed, settings=how)
    unnormalised = mean_and_error(values).value
    e.results.add("log_likelihood_ais_lower_approximate", unnormalised - found.upper, protocol)
    e.results.add("log_likelihood_ais_upper", unnormalised - found.lower, protocol)
    return None


def in_the_plane(e: Evaluation) -> str | None:
    """The exact test log-likelihood of 2-D points, log Z by a lattice around the data.

    For a method whose density is a base tilted by an energy, h(x) = p(x) exp(−E(x))/Z, log p(x) is estimated by
    importance weighting, log Z is checked by draws of p, and p's own log-likelihood stands beside it.
    """
    model: Any = e.model
    if not isinstance(e.model, HasLogDensity):
        return f"{type(model).__name__} has no log-density"
    test = e.examples("test")
    low, high = test.amin(0), test.amax(0)
    margin = _MARGIN * (high - low)
    box = (low - margin).tolist(), (high + margin).tolist()
    tilts = isinstance(e.model, Tilts) and e.model.has_base
    noise = e.noise()

    def tilted(x: Tensor, draws: int) -> Tensor:
        return model.log_likelihood_bound(x, draws, noise) - model.energy(x)

    coarse, fine, at_test = model.log_density, None, model.log_density
    if tilts:
        coarse, fine = (partial(tilted, draws=draws) for draws in _LATTICE_DRAWS)
        at_test = partial(tilted, draws=_DRAWS)
    lattice = lattice_log_partition(coarse, *box, points=_POINTS, like=e.like, refined=fine)
    how: dict[str, Any] = {"unit": "nats", "box": [*box], "points": _POINTS}
    if tilts:
        how["lattice_draws"] = list(_LATTICE_DRAWS)
    protocol = e.of_data(_POINTS**2, split=None, seed=e.plan.seed, settings=how)
    e.results.add("log_z", lattice.log_z, protocol)
    e.results.add("log_z_spread", lattice.spread, protocol)
    e.results.add("mass_outside", lattice.outside, protocol)
    values = [at_test(x) for x in e.batches("test")]
    found = mean_and_error(torch.cat(values) - lattice.log_z)
    how = {**how, "draws": _DRAWS} if tilts else how
    protocol = e.of_data(len(test), split="test", seed=e.plan.seed, settings=how)
    e.results.add("log_likelihood", found.value, protocol)
    e.results.add("log_likelihood_error", found.error, protocol)
    if tilts:
        _of_base(e, model, noise)
    return None


def _of_base(e: Evaluation, model: Any, noise: Noise) -> None:
    """log Z by draws of the base, and the base's own log-likelihood."""
    parts = [model.base_sample(size, noise=noise) for size in _sizes(_BASE_DRAWS, e.plan.batch_size)]
    found = base_log_partition(torch.cat([model.energy(x) for x in parts]))
    how: dict[str, Any] = {"unit": "nats", "estimate": "log of the mean of exp(-E) over draws of the base"}
    protocol = e.of_data(_BASE_DRAWS, split=None, seed=e.plan.seed, settings=how)
    e.results.add("log_z_base_draws", found.value, protocol)
    e.results.add("log_z_base_draws_error", found.error, protocol)
    bounds = torch.cat([model.log_likelihood_bound(x, _DRAWS, noise) for x in e.batches("test")])
    how = {"unit": "nats", "draws": _DRAWS}
    protocol = e.of_data(len(bounds), split="test", seed=e.plan.seed, settings=how)
    e.results.add("base_log_likelihood", mean_and_error(bounds).value, protocol)


def _sizes(n: int, most: int) -> list[int]:
    return [min(most, n - start) for start in range(0, n, most)]
