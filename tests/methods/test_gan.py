"""The generative adversarial network: both losses against their formulas, in float64, to 1e-10."""

import copy

import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import GAN

from .by_hand import DECODER, ENERGY, LATENT, assert_moved, descended, made, unmoved


def gan(**settings):
    rates = {"generator_optimizer": spec(SGD, lr=1.0), "discriminator_optimizer": spec(SGD, lr=1.0)}
    return made(GAN, DECODER, ENERGY, latent_dim=LATENT, **{**rates, **settings})


def test_both_losses(fit, digits):
    method = gan(discriminator_steps=2)
    before = copy.deepcopy(method)
    assert fit(method, [digits]).global_step == 1

    noise, generator, discriminator = as_noise(5), before.generator, before.discriminator
    for _ in range(2):
        generated = generator(noise.normal((8, LATENT), digits)).detach()
        loss = -logsigmoid(discriminator(digits)).mean() - torch.log(1 - discriminator(generated).sigmoid()).mean()
        discriminator = descended(discriminator, loss)
    for a, b in zip(method.discriminator.parameters(), discriminator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not unmoved(before.discriminator, discriminator)
    loss = -discriminator(generator(noise.normal((8, LATENT), digits))).sigmoid().log().mean()
    assert_moved(generator, method.generator, loss)


def test_what_it_answers_and_refuses(digits):
    method = gan()
    found = method.validate(digits, as_noise(0))
    assert set(found) == {"probability_data"}
    torch.testing.assert_close(found["probability_data"], method.discriminator(digits).sigmoid())
    method = method.float().eval()
    z = as_noise(1).normal((3, LATENT))
    torch.testing.assert_close(method.sample(3, noise=1), method.decode(z).clamp(-1, 1))
    assert torch.equal(method.decode(z), method.generator(z))
    with pytest.raises(ValueError, match="discriminator_steps must be at least 1"):
        gan(discriminator_steps=0)
