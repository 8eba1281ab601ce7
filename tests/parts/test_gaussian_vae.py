"""The VAE with one Gaussian vector: the exact likelihood of a linear model, its settings, its learned prior."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import FlowPrior, RandomFeatures
from ebmzoo.parts import GaussianVAE

from .vaes import SHAPE, batch, gaussian

SIGMA = 0.7
A = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
PRECISION = torch.eye(2).double() + A.T @ A / SIGMA**2
COVARIANCE = torch.linalg.inv(PRECISION)
VARIANCES, ROTATION = torch.linalg.eigh(COVARIANCE)


class Exact(nn.Module):
    """The posterior of x = A z + σ ξ in the coordinates in which it is diagonal."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()

    def forward(self, x):
        return x @ A / SIGMA**2 @ COVARIANCE @ ROTATION, VARIANCES.log().expand(len(x), 2)


class Linear(nn.Module):
    """A z in those coordinates."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()

    def forward(self, z):
        return z @ ROTATION.T @ A.T


def test_bounds_of_a_linear_gaussian_model_against_its_exact_likelihood():
    # x has marginal N(0, AAᵀ + σ²I); at the exact posterior the bounds are tight for every draw.
    vae = GaussianVAE((4,), Exact, Linear, latent_dim=2, sigma=SIGMA).double()
    vae.log_sigma.fill_(math.log(SIGMA))  # in float64
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    marginal = A @ A.T + SIGMA**2 * torch.eye(4).double()
    exact = MultivariateNormal(torch.zeros(4).double(), marginal).log_prob(x)
    for samples in (1, 3):
        tight = vae.log_likelihood_bound(x, samples, as_noise(0))
        torch.testing.assert_close(tight, exact, rtol=1e-10, atol=1e-10)
    noise = as_noise(0)
    draws = torch.stack([vae.bound(x, noise).bound for _ in range(2000)])
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / 2000**0.5).all()


def test_the_gaussian_vae_has_the_names_of_a_vae_checkpoint():
    fixed, learned = gaussian(sigma=0.3), gaussian()
    assert {name.partition(".")[0] for name in fixed.state_dict()} == {"encoder", "decoder", "log_sigma"}
    assert fixed.state_dict().keys() == learned.state_dict().keys()
    assert isinstance(learned.log_sigma, nn.Parameter) and not isinstance(fixed.log_sigma, nn.Parameter)
    torch.testing.assert_close(fixed.log_sigma.exp().item(), 0.3)
    data = {"class_path": "ebmzoo.networks.MLPEncoder", "init_args": {"width": 9}}
    assert gaussian(encoder=data).state_dict().keys() == fixed.state_dict().keys()


def test_a_bounded_log_variance():
    vae, (x, _) = gaussian(log_variance_bound=0.2), batch()
    mean, raw = vae.encoder(100 * x)
    q = vae.encode(100 * x)
    assert torch.equal(q.mean, mean) and raw.abs().max() > 1
    torch.testing.assert_close(q.log_sigma, 0.5 * 0.2 * torch.tanh(raw / 0.2))
    torch.testing.assert_close(gaussian().encode(x).log_sigma, 0.5 * vae.encoder(x)[1])


def test_a_learned_prior_is_drawn_from_and_learns_by_its_density():
    torch.manual_seed(1)
    vae, (x, _) = gaussian(prior=partial(FlowPrior, steps=1, width=4)), batch()
    with torch.no_grad():
        for parameter in vae.prior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    noise = as_noise(2).normal((4, 5), x)
    found = vae.generate(noise)
    torch.testing.assert_close(found.z[0], vae.prior.sample(noise))
    torch.testing.assert_close(found.mean, vae.decoder(vae.prior.sample(noise)))
    drawn = vae.draw(4, as_noise(2), x, 0.5)
    torch.testing.assert_close(drawn, vae.prior.sample(0.5 * noise).detach())
    assert not drawn.requires_grad
    torch.testing.assert_close(vae.log_prior(noise), vae.prior.log_prob(noise))
    assert vae.generator() == [vae.decoder, vae.prior, vae.log_sigma]
    fixed = gaussian(sigma=0.3)
    assert fixed.generator() == [fixed.decoder]
    vae.loss(x, vae.bound(x, as_noise(0))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.prior.parameters())


@pytest.mark.parametrize("sigma", [0.5, "learned"])
def test_another_distance_takes_the_squared_errors_place_in_the_loss_alone(sigma):
    distance = partial(RandomFeatures, width=4, weight=30.0)
    vae, (x, _) = gaussian(sigma=sigma, distance=distance, kl_weight=0.3), batch()
    bound = vae.bound(x, as_noise(1))
    far = distance(SHAPE).double()(bound.latents.mean, x)
    precision = 4.0 if sigma == 0.5 else 1.0
    expected = (0.3 * bound.kl[0] + 0.5 * precision * far).mean()
    torch.testing.assert_close(vae.loss(x, bound), expected, rtol=1e-6, atol=0)
    plain = gaussian(sigma=sigma)
    plain.load_state_dict(vae.state_dict())  # nothing of the distance is in a checkpoint
    assert torch.equal(plain.bound(x, as_noise(1)).bound, bound.bound)
