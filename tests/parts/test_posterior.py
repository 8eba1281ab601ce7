"""The calibration of a posterior: its chain against the exact Gaussian and by hand, its pull."""

import math
from functools import partial

import pytest
import torch

from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.networks import FlowPrior, MLPDecoder, MLPEncoder
from ebmzoo.parts import CalibratedPosterior, GaussianVAE

A = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


class Linear(torch.nn.Module):
    """x = A z, as a decoder or as an encoder that is never asked."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()

    def forward(self, z):
        return z @ A.T


def test_the_chain_samples_the_posterior():
    # x = A z + σ ξ has a Gaussian posterior; a long chain from the prior must find its mean and variance.
    vae = GaussianVAE((3,), Linear, Linear, latent_dim=2, sigma=0.5).double()
    x = torch.tensor([[1.0, -0.5, 0.3]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + A.T @ A / 0.25
    mean = torch.linalg.solve(precision, A.T @ x[0] / 0.25)
    posterior = CalibratedPosterior(Langevin(steps=150, step_size=0.02), condition_weight=0.0)
    start = torch.zeros(4000, 2, dtype=torch.float64)
    z = posterior.revise(vae, x.expand(4000, 3), start, noise=0)
    # The chain's own variance is that of U/(1 − s·precision/4).
    step = torch.eye(2, dtype=torch.float64) - 0.005 * precision
    covariance = torch.linalg.inv(precision @ step)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=5 * (covariance.diag().max() / 4000).sqrt().item())
    torch.testing.assert_close(torch.cov(z.T), covariance, rtol=0, atol=0.1 * covariance.diag().max().item())


@pytest.mark.parametrize("prior", [None, partial(FlowPrior, steps=1, width=4)], ids=["white", "flow"])
def test_a_step_by_hand(prior):
    torch.manual_seed(0)
    parts = {"encoder": partial(MLPEncoder, width=5), "decoder": partial(MLPDecoder, width=5)}
    vae = GaussianVAE((4,), **parts, latent_dim=3, sigma=0.7, prior=prior).double()
    x, z = as_noise(1).normal((6, 4)).double(), as_noise(2).normal((6, 3)).double().requires_grad_()
    found = CalibratedPosterior(Langevin(1, 0.1, 0.5), condition_weight=4.0).revise(vae, x, z, as_noise(3))
    sigma = vae.log_sigma.exp()
    log_p = torch.distributions.Normal(vae.decoder(z), sigma).log_prob(x).sum()
    log_p = log_p + (torch.distributions.Normal(0.0, 1.0).log_prob(z) if prior is None else vae.prior.log_prob(z)).sum()
    (gradient,) = torch.autograd.grad(log_p, z)  # the tether has no slope where it begins
    expected = z.detach() + 0.05 * gradient + math.sqrt(0.1 * 0.5) * as_noise(3).normal(z.shape, z)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not found.requires_grad
    two = CalibratedPosterior(Langevin(2, 0.1, 0.0), condition_weight=4.0)
    cold = two.revise(vae, x, z, as_noise(3))  # at T = 0 the tether is nothing
    free = CalibratedPosterior(Langevin(2, 0.1, 0.0), condition_weight=0.0).revise(vae, x, z, as_noise(3))
    assert torch.equal(cold, free)


def test_the_tether_is_in_units_of_the_temperature():
    """With a decoder that says nothing, U = ½‖z‖² + T·w·½‖z − z₀‖², and two steps of T = 0.5 without noise by hand."""
    vae = GaussianVAE((3,), Linear, Linear, latent_dim=2, sigma=1e6).double()
    z, x = torch.ones(1, 2).double(), torch.zeros(1, 3).double()
    sampler = Langevin(2, 0.2, 0.5)
    found = CalibratedPosterior(sampler, condition_weight=3.0).revise(vae, x, z, Silent())
    one = z - 0.1 * z
    torch.testing.assert_close(found, one - 0.1 * (one + 1.5 * (one - z)), rtol=1e-9, atol=0)


class Silent(type(as_noise(None))):
    """No noise at all."""

    def normal_(self, out):
        return out.zero_()


def test_the_pull_is_half_the_squared_distance():
    z, revised = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True), torch.tensor([[1.0, 4.0], [3.0, 1.0]])
    pull = CalibratedPosterior(weight=3.0)(z, revised)
    assert pull == 3.0 * 0.5 * (4 + 10) / 2
    pull.backward()
    torch.testing.assert_close(z.grad, 3.0 * (z.detach() - revised) / 2)


def test_defaults_are_the_papers_and_its_dual_is_still():
    part = CalibratedPosterior()
    assert (part.sampler.steps, part.condition_weight, part.weight.item(), part.rate, part.margin) == (5, 1, 1, 0, 2)
