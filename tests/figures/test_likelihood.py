import json
import math

import pytest
import torch
from scipy.integrate import dblquad
from scipy.special import roots_legendre

from ebmzoo.callbacks import Evaluate
from ebmzoo.data import Gaussians25
from ebmzoo.data.densities import GaussianMixture
from ebmzoo.figures.annealing import Annealing
from ebmzoo.figures.likelihood import (
    Bounds,
    Likelihood,
    base_log_partition,
    lattice_log_partition,
    mean_and_error,
)
from ebmzoo.mcmc import as_noise

from ..callbacks.fakes import Images, Tiny, ecvae, measured, trainer

GRID = GaussianMixture(torch.cartesian_prod(*[2.0 * torch.arange(-2.0, 3.0)] * 2), std=0.0839)


def banana(x):
    """A bent, skewed density without a closed form."""
    return -((x[:, 0] - 0.3) ** 2) / 1.2 - 2 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2 - 0.1 * x[:, 0] ** 4


@pytest.mark.thorough
def test_the_lattice_agrees_with_scipys_quadrature():
    def integrand(y, x):
        return math.exp(banana(torch.tensor([[x, y]], dtype=torch.float64)).item())

    truth, _ = dblquad(integrand, -4, 4, -4, 8, epsabs=1e-8)
    found = lattice_log_partition(banana, (-4, -4), (4, 8), points=128)
    assert found.log_z == pytest.approx(math.log(truth), abs=1e-5)
    assert found.spread < 1e-5 and found.outside < 1e-6
    assert found.spacing == (8 / 128, 12 / 128)


def test_narrow_modes_keep_their_mass():
    shift = 3.7
    found = lattice_log_partition(lambda x: GRID.log_prob(x) + shift, (-6.4, -6.4), (6.4, 6.4))
    assert found.log_z == pytest.approx(shift, abs=1e-5)
    assert found.spread < 1e-3


def test_a_lattice_too_coarse_shows_in_the_spread():
    found = lattice_log_partition(GRID.log_prob, (-6.3, -6.45), (6.4, 6.4), points=32)
    assert abs(found.log_z) > 1e-2 and found.spread > 0.1


def test_the_mass_around_the_box_is_the_truth():
    # A Gaussian of width 1 in a box of half side 1.5: erf gives the mass of both boxes.
    def inside(half):
        return math.erf(half / 2**0.5) ** 2

    def density(x):
        return -x.square().sum(1) / 2

    found = lattice_log_partition(density, (-1.5, -1.5), (1.5, 1.5), tolerance=0.5)
    assert found.outside == pytest.approx((inside(3) - inside(1.5)) / inside(3), abs=1e-4)
    with pytest.raises(ValueError, match=r"24\.5% of the model's mass lies around the box from \(-1.5, -1.5\)"):
        lattice_log_partition(density, (-1.5, -1.5), (1.5, 1.5))


def test_a_density_that_cannot_be_normalised_is_refused():
    with pytest.raises(ValueError, match="75% of the model's mass"):
        lattice_log_partition(lambda x: x[:, 0] * 0, (-1, -1), (1, 1))
    with pytest.raises(ValueError, match="not a number"):
        lattice_log_partition(lambda x: x[:, 0].log(), (-1, -1), (1, 1))
    with pytest.raises(ValueError, match="even number of points, not 3"):
        lattice_log_partition(banana, (-1, -1), (1, 1), points=3)


def test_draws_of_the_base_give_the_same_constant_as_the_lattice():
    # p = N(0, I) and E = x²/2·a: Z = 1/(1 + a) in the plane.
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    found = base_log_partition(0.5 * 3 * x.square().sum(1))
    assert found.value == pytest.approx(-math.log(4), abs=4 * found.error)
    # exp(−E) has second moment 1/(1 + 2a): the standard error has a closed form too.
    assert found.error == pytest.approx(((16 / 7 - 1) / len(x)) ** 0.5, rel=0.02)


def test_mean_and_error():
    assert mean_and_error(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx((3.0, (7 / 3) ** 0.5))


def test_a_noisy_estimate_is_refined_where_the_mass_is():
    noise = torch.Generator().manual_seed(0)
    counted = []

    def noisy(x, scale):
        # exp(noise − scale²/2) has mean 1: the estimate of the density is without bias
        return banana(x) + scale * torch.randn(len(x), generator=noise) - scale**2 / 2

    def better(x):
        counted.append(len(x))
        return noisy(x, 0.1)

    truth = lattice_log_partition(banana, (-4, -4), (4, 8)).log_z
    found = lattice_log_partition(lambda x: noisy(x, 0.5), (-4, -4), (4, 8), refined=better)
    assert found.log_z == pytest.approx(truth, abs=5e-3) and found.log_z != truth
    assert 0 < sum(counted) < 256**2 / 3


def test_importance_weighted_bounds(tmp_path):
    method = ecvae()
    found, _, _ = measured(tmp_path, method, figures=[Bounds(draws=[50])])
    x = Images().reference("test")
    with torch.no_grad():
        bound = method.log_likelihood_bound(x, 50, 0).double().mean().item()
    assert found["iw_bound_50_nats"] == pytest.approx(bound, rel=1e-6)
    assert found["iw_bound_50_nats"] > found["elbo_nats"]


@pytest.mark.parametrize("options", [{"draws": [0]}, {"n": 1}])
def test_bounds_out_of_range(options):
    with pytest.raises(ValueError, match="bounds need draws of at least 1 and n of at least 2"):
        Bounds(**options)


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
    evaluate = Evaluate(None, n_test=100, figures=[Bounds(), Likelihood(), Annealing(40)])
    trainer(tmp_path, [evaluate]).test(Tilted(), Gaussians25(n_train=10, n_test=500), verbose=False)
    found = {entry["name"]: entry["value"] for entry in json.loads((tmp_path / "results.json").read_text())["results"]}
    assert found["log_z_ais_lower"] < -math.log(1 + 9 * A) < found["log_z_ais_upper_approximate"]
    assert found["log_z_ais_upper_approximate"] - found["log_z_ais_lower"] < 0.3
    # One draw of log-normal weights lies half their variance too low.
    exact = found["log_likelihood"] - 0.125
    assert found["log_likelihood_ais_lower_approximate"] - 0.05 < exact < found["log_likelihood_ais_upper"] + 0.05
