"""Targets with known answers: log Z and moments by quadrature and by exact samples, and chains on them."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ebmzoo.data import GMM40, Funnel, Gaussian, GaussianMixture, ManyWell, Ring
from ebmzoo.data.targets import _BOUND, _proposal
from ebmzoo.mcmc import HMC, MALA, as_noise

TARGETS = {
    "gaussian": Gaussian(3),
    "funnel": Funnel(4, scale=1.0),
    "ring": Ring(),
    "wide ring": Ring(1.0, 0.7),
    "gmm40": GMM40(),
    "many well": ManyWell(4),
}


EDGES = {"ring": 5, "wide ring": 7, "gmm40": 48, "gaussian": 40, "many well": 8}


@pytest.mark.parametrize(("name", "edge"), EDGES.items())
def test_log_z_and_moments_by_quadrature_in_the_plane(name, edge):
    target = {"gaussian": Gaussian(2, condition=5.0), "many well": ManyWell(2)}.get(name, TARGETS[name])
    axis = torch.linspace(-edge, edge, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    weight = (-target(x)).exp() * (axis[1] - axis[0]) ** 2
    assert weight.sum().log().item() == pytest.approx(target.log_z, abs=1e-5)
    mean = (weight[:, None] * x).sum(0) / weight.sum()
    torch.testing.assert_close(mean, target.mean.double(), rtol=1e-5, atol=1e-5)
    variance = (weight[:, None] * (x - mean).square()).sum(0) / weight.sum()
    torch.testing.assert_close(variance, target.variance.double(), rtol=1e-4, atol=1e-6)


def test_the_funnel_is_its_normals():
    target, x = Funnel(), as_noise(0).normal((50, 10), torch.empty(0).double())
    v, others = x[:, :1].numpy(), x[:, 1:].numpy()
    law = stats.norm(0, 3).logpdf(v[:, 0]) + stats.norm(0, np.exp(v / 2)).logpdf(others).sum(1)
    np.testing.assert_allclose(target.log_prob(x), law, rtol=1e-10)


def test_many_wells_constant_is_that_of_adaptive_quadrature():
    z, _ = integrate.quad(lambda a: math.exp(-(a**4) + 6 * a**2 + a / 2), -6, 6, epsabs=0, epsrel=1e-12)
    assert ManyWell().log_z == pytest.approx(16 * (math.log(z) + 0.5 * math.log(2 * math.pi)), abs=1e-8)
    a = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    assert (-ManyWell._well(a) - _proposal(a)).max() < _BOUND  # what its rejection needs


def test_forty_gaussians_are_the_mixture():
    target, x = GMM40(), 20 * torch.randn(30, 2).double()
    torch.testing.assert_close(target.log_prob(x), GaussianMixture(target.means, target.std).log_prob(x))
    assert target.means.abs().max() <= 40 and target.std == pytest.approx(1.31326, abs=1e-5)


@pytest.mark.parametrize("name", TARGETS)
def test_exact_samples_have_the_moments_and_the_energies_of_the_density(name):
    target, n = TARGETS[name], 50_000
    x = target.sample(n, as_noise(1))
    again = target.sample(n, torch.Generator().manual_seed(1))
    assert x.shape == (n, target.dim) and torch.equal(x, again)
    x = x.double()
    error = x.std(0) / n**0.5
    assert ((x.mean(0) - target.mean).abs() < 4.5 * error).all()
    square = (x - target.mean).square()
    assert ((square.mean(0) - target.variance).abs() < 4.5 * square.std(0) / n**0.5).all()
    # Stein's identity, E[(x_i - m_i) dU/dx_i] = 1, holds the samples against U.
    _, grad = target.value_and_grad(x)
    stein = (x - target.mean) * grad
    assert ((stein.mean(0) - 1).abs() < 4.5 * stein.std(0) / n**0.5).all()


@pytest.mark.parametrize(("name", "sampler"), [("ring", HMC(20, 0.03)), ("many well", MALA(40, 0.1))])
def test_chains_from_exact_samples_stay_there(name, sampler):
    target, n = TARGETS[name], 3000
    chain = sampler(target, target.sample(n, as_noise(2)), noise=3)
    square = (chain.x.double() - target.mean).square()
    assert ((square.mean(0) - target.variance).abs() < 4.5 * square.std(0) / n**0.5).all()
    assert chain.acceptance.mean() > 0.5


def test_what_cannot_be_is_refused():
    for kind, numbers in ((Gaussian, (0,)), (Gaussian, (2, 0.5)), (Funnel, (1,)), (Ring, (0.0,)), (ManyWell, (5,))):
        with pytest.raises(ValueError, match="not "):
            kind(*numbers)
