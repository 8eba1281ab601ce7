"""What tests write a paper's formulas out with: gradients, plain gradient steps, chains, densities."""

import copy
import math

import torch
from torch.distributions import Normal, kl_divergence

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import VAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from .conftest import quiet_trainer

SHAPE, LATENT = (1, 8, 8), 3
ENCODER, DECODER = spec(MLPEncoder, width=7, depth=1), spec(MLPDecoder, width=7, depth=1)
ENERGY = spec(MLPEnergy, width=6, depth=1)


def vae_of(**settings):
    """What makes a small VAE."""
    return spec(GaussianVAE, **{"encoder": ENCODER, "decoder": DECODER, "latent_dim": LATENT, "sigma": 0.4, **settings})


def made(kind, *networks, shape=SHAPE, **settings):
    """A method in float64, always of the same weights, whose noise is `as_noise(5)`."""
    torch.manual_seed(0)
    method = kind(shape, *networks, **settings).double()
    method.noise = as_noise(5)
    return method


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)


def moved(before, after):
    """With plain SGD at rate one, the gradient of an update is what the parameters lost."""
    return [b.detach() - a.detach() for b, a in zip(before.parameters(), after.parameters(), strict=True)]


def assert_same(actual, expected):
    expected = [torch.zeros_like(a) if e is None else e for a, e in zip(actual, expected, strict=True)]
    assert max(e.abs().max() for e in expected) > 1e-3
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


def assert_moved(before, after, loss):
    """An update of plain SGD at rate one was that of the loss, of the parameters before."""
    assert_same(moved(before, after), gradients(loss, before))


def unmoved(before, after):
    return all(torch.equal(b, a) for b, a in zip(before.parameters(), after.parameters(), strict=True))


def descended(network, loss, rate=1.0):
    """The network after a step of plain SGD."""
    other, found = copy.deepcopy(network), gradients(loss, network)
    with torch.no_grad():
        for parameter, gradient in zip(other.parameters(), found, strict=True):
            parameter -= rate * gradient
    return other


def steps_of(loss, *networks, rate):
    """What a gradient step takes of each parameter, to be applied later."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    return [(parameter, rate * gradient) for parameter, gradient in zip(parameters, found, strict=True)]


def apply(steps):
    with torch.no_grad():
        for parameter, step in steps:
            parameter.sub_(step)


def langevin(potential, state, noise, steps, step_size, temperature):
    """The chain of the normal form, written out."""
    for _ in range(steps):
        state = state.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(potential(state).sum(), state)
        state = state - 0.5 * step_size * gradient
        state = state + math.sqrt(step_size * temperature) * noise.normal(state.shape, state)
    return state.detach()


def log_normal(x, mean, sigma):
    """log N(x; mean, σ²I), ``(B,)``."""
    return Normal(mean, sigma).log_prob(x).flatten(1).sum(1)


def kl_to_white(mean, log_variance):
    return kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)


def error(x, y):
    return (x - y).square().flatten(1).sum(1)


def negative_elbo(vae, x, xi, kl_weight=1.0):
    """−log p(x|z) + β·KL of a Gaussian VAE at the posterior draw that white noise makes."""
    mean, log_variance = vae.encoder(x)
    z = mean + (0.5 * log_variance).exp() * xi
    log_p = log_normal(x, vae.decoder(z), vae.log_sigma.exp())
    return (kl_weight * kl_to_white(mean, log_variance) - log_p).mean()


def trained_vae(path, latent_dim=LATENT):
    """A checkpoint of a VAE, and that VAE."""
    torch.manual_seed(3)
    method = VAE(SHAPE, vae_of(latent_dim=latent_dim))
    trainer = quiet_trainer()
    trainer.strategy.connect(method)
    trainer.save_checkpoint(path)
    return method.vae.double()
