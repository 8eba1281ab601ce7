"""The one convention for Gaussians, mean and log σ, against torch.distributions in float64."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from ebmzoo.parts.gaussian import Gaussian

generator = torch.Generator().manual_seed(0)
MEAN, LOG_SIGMA, X, OTHER_MEAN, OTHER_LOG_SIGMA = torch.randn(5, 6, 2, 3, generator=generator).double()
ONE, OTHER = Gaussian(MEAN, LOG_SIGMA), Gaussian(OTHER_MEAN, OTHER_LOG_SIGMA)


def of(gaussian):
    return Independent(Normal(gaussian.mean, gaussian.log_sigma.exp()), 2)


def test_densities_divergences_and_entropies_are_torchs():
    torch.testing.assert_close(ONE.log_prob(X), of(ONE).log_prob(X), rtol=1e-12, atol=0)
    torch.testing.assert_close(ONE.entropy(), of(ONE).entropy(), rtol=1e-12, atol=0)
    torch.testing.assert_close(ONE.kl(OTHER), kl_divergence(of(ONE), of(OTHER)), rtol=1e-12, atol=0)
    white = Gaussian(torch.zeros_like(MEAN), torch.zeros_like(MEAN))
    torch.testing.assert_close(ONE.kl(), kl_divergence(of(ONE), of(white)), rtol=1e-12, atol=0)
    torch.testing.assert_close(ONE.kl(), ONE.kl(white), rtol=1e-12, atol=1e-12)


def test_draws_and_their_white_noise_are_inverses():
    torch.testing.assert_close(ONE.draw(X), MEAN + LOG_SIGMA.exp() * X, rtol=1e-12, atol=0)
    torch.testing.assert_close(ONE.white(ONE.draw(X)), X, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ONE.white(X), (X - MEAN) / LOG_SIGMA.exp(), rtol=1e-12, atol=0)


def test_both_attributes_broadcast_to_what_it_is_a_density_of():
    narrow = Gaussian(MEAN, torch.tensor(-0.5, dtype=torch.float64))
    whole = Gaussian(MEAN, torch.full_like(MEAN, -0.5))
    torch.testing.assert_close(narrow.log_prob(X), whole.log_prob(X), rtol=1e-12, atol=0)
    torch.testing.assert_close(ONE.kl(narrow), ONE.kl(whole), rtol=1e-12, atol=0)


def test_its_draws_carry_gradients_to_both():
    mean, log_sigma = MEAN.clone().requires_grad_(), LOG_SIGMA.clone().requires_grad_()
    Gaussian(mean, log_sigma).draw(X).sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(MEAN))
    torch.testing.assert_close(log_sigma.grad, LOG_SIGMA.exp() * X, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_collapsed_posterior_has_a_finite_divergence_and_gradient(dtype):
    """Where σ underflows, torch.distributions has an infinite KL, and then gradients that are not numbers."""
    log_sigma = torch.tensor([[-90.0, -105.0, -500.0]], dtype=dtype).T.requires_grad_()
    found = Gaussian(torch.zeros(3, 1, dtype=dtype), log_sigma).kl()
    assert found.tolist() == [89.5, 104.5, 499.5]
    found.sum().backward()
    assert log_sigma.grad.flatten().tolist() == [-1.0] * 3
