import math

import pytest
import torch
from scipy.integrate import dblquad

from ebmzoo.data.densities import GaussianMixture
from ebmzoo.metrics.density import base_log_partition, lattice_log_partition, mean_and_error

GRID = GaussianMixture(torch.cartesian_prod(*[2.0 * torch.arange(-2.0, 3.0)] * 2), std=0.0839)


def banana(x):
    """A bent, skewed density without a closed form."""
    return -((x[:, 0] - 0.3) ** 2) / 1.2 - 2 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2 - 0.1 * x[:, 0] ** 4


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
