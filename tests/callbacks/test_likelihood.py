import json
import math

import pytest
import torch
from scipy.special import roots_legendre

from ebmzoo.callbacks import Evaluate
from ebmzoo.data import Gaussians25
from ebmzoo.mcmc import as_noise

from .fakes import Tiny, trainer

A = 0.5  # the energy is A‖x‖²/2


class Tilted(Tiny):
    """The base N(0, 3²I), its density estimated with noise, tilted by a quadratic: Z = 1/(1 + 9A)."""

    image_shape = (2,)
    has_base, white_shapes = True, [(2,)]
    reconstruct = encode = None

    def sample(self, n, *, steps=None, noise=None, watch=None):
        return self.base_sample(n, noise=noise)

    def base_sample(self, n, *, noise=None):
        return 3 * as_noise(noise).normal((n, 2))

    def white_energy(self, u):
        return self.energy(3 * u)

    def energy(self, x):
        return A * x.square().sum(1) / 2

    def log_likelihood_bound(self, x, samples=1, noise=None):
        log_weights = 0.5 * as_noise(noise).normal((samples, len(x)))
        estimate = (log_weights - 0.125).logsumexp(0) - math.log(samples)
        return estimate - x.square().sum(1) / 18 - math.log(2 * math.pi * 9)

    def log_density(self, x):
        return self.log_likelihood_bound(x, 1, 0) - self.energy(x)


def numbers(path, model, data):
    trainer(path, [Evaluate(None, n_test=100)]).test(model, data, verbose=False)
    held = json.loads((path / "results.json").read_text())
    return {entry["name"]: entry["value"] for entry in held["results"]}, held


def test_the_likelihood_of_a_tilted_base_is_the_truth(tmp_path):
    data = Gaussians25(n_train=10, n_test=2000)
    found, held = numbers(tmp_path, Tilted(), data)
    x = data.reference("test")[torch.arange(2000)].double()
    base = -x.square().sum(1) / 18 - math.log(2 * math.pi * 9)
    log_z = -math.log(1 + 9 * A)
    assert found["log_z"] == pytest.approx(log_z, abs=0.01) and found["log_z_spread"] < 0.05
    assert found["log_z_base_draws"] == pytest.approx(log_z, abs=4 * found["log_z_base_draws_error"])
    assert found["log_z_base_draws_error"] < 0.01
    # With 100 draws an importance-weighted bound of log-normal weights lies about their variance / 200 too low.
    assert found["base_log_likelihood"] == pytest.approx(base.mean().item(), abs=0.005)
    exact = (base - A * x.square().sum(1) / 2).mean().item() - log_z
    assert found["log_likelihood"] == pytest.approx(exact, abs=0.012)
    protocol = next(entry["protocol"] for entry in held["results"] if entry["name"] == "log_likelihood")
    assert protocol["settings"]["draws"] == 100 and protocol["reference"] == "gaussians25 test"
    assert held["run"]["skipped"] == [
        "reconstruction: Tilted reconstructs nothing",
        "chain health: Tilted has no chain",
    ]


def test_a_density_of_its_own_needs_no_base(tmp_path):
    class Whole(Tilted):
        has_base = False
        log_likelihood_bound = None

        def log_density(self, x):
            return -self.energy(x)

    data = Gaussians25(n_train=10, n_test=500)
    # A wide Gaussian reaches out of the box: sigma = 1/sqrt(A) must be well inside.
    found, _ = numbers(tmp_path, Whole(), data)
    x = data.reference("test")[torch.arange(500)].double()
    exact = (-A * x.square().sum(1) / 2).mean().item() - math.log(2 * math.pi / A)
    assert found["log_likelihood"] == pytest.approx(exact, abs=1e-3)
    assert "log_z_base_draws" not in found


def test_a_network_s_likelihood_agrees_with_scipys_quadrature(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    class Bumpy(Tilted):
        has_base = False
        log_likelihood_bound = None

        @torch.no_grad()
        def log_density(self, x):
            return 12 * network.to(x.dtype)(x)[:, 0] - x.square().sum(1) / 4

    data = Gaussians25(n_train=10, n_test=500)
    found, _ = numbers(tmp_path, Bumpy(), data)
    model = Bumpy()

    nodes, weights = (torch.from_numpy(array) for array in roots_legendre(300))
    places = 9 * torch.cartesian_prod(nodes, nodes)  # Gauss-Legendre on [-9, 9] squared
    whole = 81 * (torch.outer(weights, weights).flatten() * model.log_density(places).exp()).sum()
    x = data.reference("test")[torch.arange(500)].double()
    exact = (model.log_density(x).mean() - whole.log()).item()
    assert found["log_likelihood"] == pytest.approx(exact, abs=0.01)
    flat = -x.square().sum(1).mean().item() / 4 - math.log(4 * math.pi)
    assert abs(exact - flat) > 0.1  # the network matters


def test_mass_around_the_data_leaves_the_rest(tmp_path):
    class Flat(Tilted):
        has_base = False

        def log_density(self, x):
            return 0 * x[:, 0]

    found, held = numbers(tmp_path, Flat(), Gaussians25(n_train=10, n_test=500))
    assert "log_likelihood" not in found and "elbo_nats" in found
    assert held["run"]["skipped"][0].startswith("likelihood: 75% of the model's mass lies around the box")


def test_annealed_bounds_hold_the_truth(tmp_path):
    evaluate = Evaluate(None, n_test=100, only=["likelihood"], ais_temperatures=40)
    trainer(tmp_path, [evaluate]).test(Tilted(), Gaussians25(n_train=10, n_test=500), verbose=False)
    found = {entry["name"]: entry["value"] for entry in json.loads((tmp_path / "results.json").read_text())["results"]}
    assert found["log_z_ais_lower"] < -math.log(1 + 9 * A) < found["log_z_ais_upper_approximate"]
    assert found["log_z_ais_upper_approximate"] - found["log_z_ais_lower"] < 0.3
    # One draw of log-normal weights lies half their variance too low.
    exact = found["log_likelihood"] - 0.125
    assert found["log_likelihood_ais_lower_approximate"] - 0.05 < exact < found["log_likelihood_ais_upper"] + 0.05
