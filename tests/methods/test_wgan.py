"""VAE + WGAN: critic and decoder against their formulas written out, in float64, to 1e-10."""

import copy

import pytest
import torch
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import WGAN
from ebmzoo.parts import Energy
from ebmzoo.parts.objectives import LipschitzPenalty

from .by_hand import ENERGY, LATENT, assert_moved, descended, made, negative_elbo, trained_vae, unmoved, vae_of


def wgan(vae=None, energy=ENERGY, **settings):
    rates = {"vae_optimizer": spec(SGD, lr=1.0), "energy_optimizer": spec(SGD, lr=1.0)}
    return made(WGAN, vae or vae_of(), energy, **{**rates, **settings})


def critic_by_hand(energy, decoder, x, noise, weight, steps):
    for _ in range(steps):
        generated = decoder(noise.normal((8, LATENT), x)).detach()
        u = noise.uniform((8, 1, 1, 1), x)
        between = (u * x + (1 - u) * generated).requires_grad_(True)
        (slope,) = torch.autograd.grad(energy(between).sum(), between, create_graph=True)
        penalty = ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        energy = descended(energy, energy(x).mean() - energy(generated).mean() + weight * penalty)
    return energy


@pytest.mark.parametrize("sigma", [0.4, "learned"])
def test_vae_and_critic_jointly(fit, digits, sigma):
    energy = spec(Energy, network=ENERGY, penalties=[LipschitzPenalty(2.0)])
    method = wgan(vae_of(sigma=sigma), energy, elbo_weight=0.3, critic_steps=2)
    before = copy.deepcopy(method)
    assert fit(method, [digits]).global_step == 1

    noise, vae = as_noise(5), before.vae
    energy = critic_by_hand(before.ebm, vae.decoder, digits, noise, 2.0, steps=2)
    for a, b in zip(method.ebm.parameters(), energy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not unmoved(before.ebm, energy)
    loss = energy(vae.decoder(noise.normal((8, LATENT), digits))).mean()
    loss = loss + 0.3 * negative_elbo(vae, digits, noise.normal((8, LATENT), digits))
    assert_moved(vae, method.vae, loss)


def test_a_trained_decoder_against_the_critic_alone(fit, digits, tmp_path):
    vae = trained_vae(tmp_path / "vae.ckpt")
    method = wgan(elbo_weight=0.0, vae_ckpt=str(tmp_path / "vae.ckpt"), energy_optimizer=spec(SGD, lr=0.0))
    energy = method.ebm
    fit(method, [digits])
    noise = as_noise(5)
    noise.normal((8, LATENT), digits)  # the critic's
    adversarial = energy(vae.decoder(noise.normal((8, LATENT), digits))).mean()
    assert_moved(vae.decoder, method.vae.decoder, adversarial)
    assert unmoved(vae.encoder, method.vae.encoder)


def test_what_it_answers(digits):
    method = wgan().eval()
    assert torch.equal(method.score(digits), -method.energy(digits)) and method.test_sampler() == (None, 0)
    method = method.float()
    start = method.sample(3, noise=1)
    expected = method.vae.decoder(as_noise(1).normal((3, LATENT))).detach()
    torch.testing.assert_close(start, expected.clamp(-1, 1))
    with pytest.raises(ValueError, match="critic_steps must be at least 1"):
        wgan(critic_steps=0)
