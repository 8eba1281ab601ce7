"""The VAE: its update against the bound written out, in float64, to 1e-10."""

import copy

import pytest
import torch
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import VAE

from .by_hand import LATENT, assert_moved, log_normal, made, negative_elbo, vae_of


@pytest.mark.parametrize("sigma", [0.3, "learned"])
def test_an_update_is_the_bounds(fit, digits, sigma):
    method = made(VAE, vae_of(sigma=sigma, kl_weight=0.7), optimizer=spec(SGD, lr=1.0))
    before = copy.deepcopy(method.vae)
    trainer = fit(method, [digits])
    loss = negative_elbo(before, digits, as_noise(5).normal((8, LATENT), digits), kl_weight=0.7)
    assert_moved(before, method.vae, loss)
    assert trainer.callback_metrics["train/loss_vae"] == pytest.approx(loss.item(), rel=1e-6)
    assert trainer.callback_metrics["train/sigma"] == pytest.approx(1.0 if sigma == "learned" else sigma)


def test_the_score_is_the_bound_at_one_draw_for_all(digits):
    method = made(VAE, vae_of(kl_weight=0.7)).eval()
    bound = method.elbo(digits, as_noise(2))
    z = bound.latents.z[0]
    torch.testing.assert_close(bound.log_likelihood, log_normal(digits, method.decode(z), method.vae.log_sigma.exp()))
    xi = as_noise(0).normal((1, LATENT), digits)
    mean, log_variance = method.vae.encoder(digits)
    z = mean + (0.5 * log_variance).exp() * xi
    torch.testing.assert_close(method.score(digits), method.elbo(digits, Fixed(xi)).bound)
    torch.testing.assert_close(method.elbo(digits, Fixed(xi)).latents.z[0], z)


class Fixed(type(as_noise(None))):
    """The same draw for every example."""

    def __init__(self, xi):
        self.xi = xi

    def normal(self, shape, like=None):
        return self.xi.expand(tuple(shape))


def test_samples_are_decoded_draws_of_the_prior_at_a_temperature():
    method = made(VAE, vae_of()).float().eval()
    z = as_noise(3).normal((6, LATENT))
    torch.testing.assert_close(method.sample(6, noise=3), method.vae.decoder(z).clamp(-1, 1))
    method.latent_temperature = 0.5
    torch.testing.assert_close(method.sample(6, noise=3), method.vae.decoder(0.5 * z).clamp(-1, 1))
    assert torch.equal(method.draw_latents(6, as_noise(3), torch.empty(0)), 0.5 * z)
