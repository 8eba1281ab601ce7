"""The gradient of each loss against autograd of the paper's formula written out here, in float64, to 1e-10."""

import copy
import math

import pytest
import torch
from torch.optim import SGD

from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECVAE, VAE
from ebmzoo.factories import spec
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.objectives import (
    EnergyL2,
    GradientPenalty,
    elbo,
    gaussian_kl,
    gaussian_log_prob,
    importance_weighted_bound,
)

SHAPE, LATENT = (1, 8, 8), 3
NETWORKS = {
    "encoder": spec(MLPEncoder, width=7, depth=1),
    "decoder": spec(MLPDecoder, width=7, depth=1),
}
ENERGY = spec(MLPEnergy, width=6, depth=1)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()))


def moved(before, after):
    """With plain SGD at rate one, the gradient of an update is what the parameters lost."""
    return [b.detach() - a.detach() for b, a in zip(before.parameters(), after.parameters(), strict=True)]


def assert_same(actual, expected):
    assert len(actual) == len(expected) > 0
    assert max(e.abs().max() for e in expected) > 1e-3
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


def kl_written_out(mean, log_variance):
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)


def test_gaussian_pieces_equal_torch_distributions():
    mean, log_variance, x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), kl_written_out(mean, log_variance))
    expected = torch.distributions.Normal(mean, log_variance.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_variance), expected)


def test_bounds_of_a_linear_gaussian_model_against_its_exact_likelihood():
    # x = A z + σ ξ has marginal N(0, AAᵀ + σ²I); at the exact posterior the bounds are tight for every draw.
    generator = torch.Generator().manual_seed(0)
    a, sigma = torch.randn(4, 2, generator=generator).double(), 0.7
    x = torch.randn(6, 4, generator=generator).double()
    precision = torch.eye(2).double() + a.T @ a / sigma**2
    covariance = torch.linalg.inv(precision)
    rotation, variances = torch.linalg.eigh(covariance).eigenvectors, torch.linalg.eigvalsh(covariance)

    def encoder(x):
        return x @ a / sigma**2 @ covariance @ rotation, variances.log().expand(len(x), 2)

    def decoder(z):
        return z @ rotation.T @ a.T

    exact = torch.distributions.MultivariateNormal(
        torch.zeros(4).double(), a @ a.T + sigma**2 * torch.eye(4).double()
    ).log_prob(x)
    log_sigma = torch.tensor(math.log(sigma), dtype=torch.float64)
    noise = as_noise(0)
    tight = importance_weighted_bound(x, encoder, decoder, log_sigma, lambda s: noise.normal(s, x), samples=3)
    torch.testing.assert_close(tight, exact, rtol=1e-10, atol=1e-10)
    draws = torch.stack([elbo(x, encoder, decoder, log_sigma, noise.normal((6, 2), x)).bound for _ in range(4000)])
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / 4000**0.5).all()


@pytest.mark.parametrize("sigma", [0.3, "learned"])
def test_vae_loss(fit, digits, sigma):
    method = VAE(SHAPE, **NETWORKS, latent_dim=LATENT, sigma=sigma, kl_weight=0.7, optimizer=spec(SGD, lr=1.0)).double()
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    mean, log_variance = before.encoder(digits)
    z = mean + (0.5 * log_variance).exp() * as_noise(5).normal((8, LATENT), digits)
    density = torch.distributions.Normal(before.decoder(z), before.log_sigma.exp())
    loss = (0.7 * kl_written_out(mean, log_variance) - density.log_prob(digits).flatten(1).sum(1)).mean()
    assert_same(moved(before, method), gradients(loss, before))


def ecvae(**settings):
    defaults = {
        "latent_dim": LATENT,
        "sampler": Langevin(3, 0.2, 1e-2),
        "sigma": 0.4,
        "kl_weight": 0.3,
        "calibration_weight": 2.5,
        "dual_rate": 0.1,
        "dual_margin": 1.5,
        "vae_optimizer": spec(SGD, lr=1.0),
        "energy_optimizer": spec(SGD, lr=1.0),
    }
    return ECVAE(SHAPE, **NETWORKS, energy=ENERGY, **{**defaults, **settings}).double()


def test_ecvae_losses_chain_and_dual_step(fit, digits):
    weight = 50.0
    method = ecvae(condition_weight=weight, data_noise=0.1, penalties=[EnergyL2(0.2), GradientPenalty(0.3)])
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    z = noise.normal((8, LATENT), digits)
    generated = before.decoder(z)
    revised = generated.detach()
    for _ in range(3):  # Eq. 1 in the normal form: s = 0.2, T = 1e-2
        x = revised.clone().requires_grad_(True)
        distance = 0.5 * (x - generated.detach()).square().sum()
        (gradient,) = torch.autograd.grad(before.energy_network(x).sum() + 1e-2 * weight * distance, x)
        revised = revised - 0.1 * gradient + math.sqrt(0.2 * 1e-2) * noise.normal(x.shape, x)

    noisy = (digits + 0.1 * noise.normal(digits.shape, digits)).requires_grad_(True)
    energy_data, energy_model = before.energy_network(noisy), before.energy_network(revised)
    (slope,) = torch.autograd.grad(energy_data.sum(), noisy, create_graph=True)
    loss = energy_data.mean() - energy_model.mean()
    loss = loss + 0.2 * (energy_data**2 + energy_model**2).mean() + 0.3 * (slope**2).sum((1, 2, 3)).mean()
    assert_same(moved(before.energy_network, method.energy_network), gradients(loss, before.energy_network))

    mean, log_variance = before.encoder(digits)
    code = mean + (0.5 * log_variance).exp() * noise.normal((8, LATENT), digits)
    sse = (before.decoder(code) - digits).square().sum((1, 2, 3))
    d = (generated - revised).square().sum((1, 2, 3))
    sigma = before.log_sigma.exp()
    loss = ((2.5 * d + sse) / (2 * sigma**2) + 0.3 * kl_written_out(mean, log_variance)).mean()
    for name in ("encoder", "decoder"):
        network = getattr(before, name)
        retained = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        assert_same(moved(network, getattr(method, name)), retained)

    floor = 3 * 0.2 * 1e-2 * 64
    expected = 2.5 + 0.1 * (d.mean() / floor - 1.5) / 1.5
    torch.testing.assert_close(method.calibration_weight, expected.detach(), rtol=1e-10, atol=0)


def test_ecvae_dual_variable_is_clipped_and_fixed_at_rate_zero(fit, digits):
    for settings, expected in [
        ({"dual_rate": 1e6, "dual_margin": 1e-3, "dual_max": 7.0}, 7.0),
        ({"dual_rate": 1e6, "dual_margin": 1e6}, 0.0),
        ({"dual_rate": 0.0}, 2.5),
    ]:
        method = ecvae(**settings)
        fit(method, [digits])
        assert method.calibration_weight.item() == expected


def test_ecvae_several_decoder_updates_replay_the_last_pairs(fit, digits):
    method = ecvae(decoder_steps=3, pair_memory=16)
    trainer = fit(method, [digits, digits.flip(0), digits])
    assert trainer.global_step == 3  # one clock step an iteration, however many updates
    assert len(method.pairs) == 16 and method.pairs.leaves[1].shape == (16, *SHAPE)
    pulled = ecvae(decoder_steps=1)
    fit(pulled, [digits])
    once, thrice = ecvae(decoder_steps=1), ecvae(decoder_steps=3)
    thrice.load_state_dict(once.state_dict())
    for model in (once, thrice):
        model.noise = as_noise(1)
        fit(model, [digits])
    assert not torch.equal(next(once.decoder.parameters()), next(thrice.decoder.parameters()))


def test_ecvae_warm_start_is_the_vae(fit, digits):
    method = ecvae(vae_steps=2)
    plain = VAE(SHAPE, **NETWORKS, latent_dim=LATENT, sigma=0.4, kl_weight=0.3, optimizer=spec(SGD, lr=1.0)).double()
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if k in plain.state_dict()})
    energy = copy.deepcopy(method.energy_network)
    for model in (method, plain):
        model.noise = as_noise(3)
        fit(model, [0.1 * digits, 0.1 * digits])
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(method.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(energy.parameters(), method.energy_network.parameters(), strict=True))
