"""Cooperative learning: the VAE learns from revised samples alone, written out in float64 to 1e-10."""

import copy

import torch
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import VAE, CooperativeVAE
from ebmzoo.parts import Pairs

from .by_hand import (
    ENERGY,
    LATENT,
    SHAPE,
    apply,
    assert_moved,
    langevin,
    made,
    negative_elbo,
    steps_of,
    unmoved,
    vae_of,
)  # fmt: skip

CHAIN = (3, 0.2, 1e-2)


def cooperative(rate=1.0, **settings):
    rates = {"vae_optimizer": spec(SGD, lr=rate), "energy_optimizer": spec(SGD, lr=rate)}
    return made(CooperativeVAE, vae_of(), ENERGY, **{**rates, "sampler": Langevin(*CHAIN), **settings})


def test_the_vae_learns_from_revised_samples_and_the_energy_from_both(fit, digits):
    method = cooperative()
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    generated = before.vae.decoder(noise.normal((8, LATENT), digits)).detach()
    revised = langevin(before.ebm, generated, noise, *CHAIN)
    assert_moved(before.ebm, method.ebm, before.ebm(digits).mean() - before.ebm(revised).mean())
    loss = negative_elbo(before.vae, revised, noise.normal((8, LATENT), digits))
    assert_moved(before.vae, method.vae, loss)


def test_two_updates_of_the_newest_samples(fit, digits):
    rate = 1e-3
    method = cooperative(rate, pairs=spec(Pairs, updates=2, memory=16))
    model, noise, kept = copy.deepcopy(method), as_noise(5), torch.zeros(0, *SHAPE).double()
    batches = [digits, digits.flip(0)]
    fit(method, batches)
    for x in batches:
        generated = model.vae.decoder(noise.normal((8, LATENT), x)).detach()
        revised = langevin(model.ebm, generated, noise, *CHAIN)
        kept = torch.cat([kept, revised])
        apply(steps_of(model.ebm(x).mean() - model.ebm(revised).mean(), model.ebm, rate=rate))
        for _ in range(2):
            xi = noise.normal((len(kept), LATENT), x)
            apply(steps_of(negative_elbo(model.vae, kept, xi), model.vae, rate=rate))
    for found, expected in zip(method.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(method.pairs.buffer.leaves[0], kept, rtol=1e-10, atol=1e-10)


def test_it_begins_as_the_vae_on_data(fit, digits):
    method = cooperative(vae_steps=2)
    plain = made(VAE, vae_of(), optimizer=spec(SGD, lr=1.0))
    energy = copy.deepcopy(method.ebm)
    plain.vae.load_state_dict(method.vae.state_dict())
    for model in (method, plain):
        model.noise = as_noise(3)
        fit(model, [0.1 * digits, 0.1 * digits])
    for name, value in plain.vae.state_dict().items():
        torch.testing.assert_close(method.vae.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert unmoved(energy, method.ebm)


def test_samples_are_the_decoders_or_a_chains_on_the_energy_alone():
    method = cooperative(refine=Langevin(2, 0.3, 0.5)).eval()
    noise = as_noise(0)
    start = method.vae.decoder(noise.normal((4, LATENT), torch.zeros(0).double())).detach()
    torch.testing.assert_close(method.sample(4, steps=0, noise=0), start.clamp(-1, 1))
    end = langevin(method.ebm, start, noise, 2, 0.3, 0.5)
    torch.testing.assert_close(method.sample(4, noise=0), end.clamp(-1, 1), rtol=1e-10, atol=1e-10)
