"""Posteriors as potentials: their values and gradients against densities written out, in float64."""

from functools import partial

import pytest
import torch
from torch.distributions import Normal

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import FlowPrior, MLPDecoder, MLPEncoder
from ebmzoo.parts import GaussianVAE, HierarchicalVAE, Joint, Posterior

SHAPE = (1, 8, 8)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 2 - 1


def gaussian(**settings):
    torch.manual_seed(0)
    parts = {"encoder": partial(MLPEncoder, width=9), "decoder": partial(MLPDecoder, width=9)}
    return GaussianVAE(SHAPE, **parts, latent_dim=3, sigma=0.4, **settings).double()


def test_a_posterior_is_minus_log_p_of_x_and_z_up_to_a_constant():
    decoder = gaussian().decoder
    potential = Posterior(decoder, X, 1 / 0.4**2)
    z = as_noise(1).normal((5, 3), X).requires_grad_()
    expected = -Normal(decoder(z), 0.4).log_prob(X).flatten(1).sum(1) - Normal(0.0, 1.0).log_prob(z).sum(1)
    found, slope = potential.value_and_grad(z)
    constants = expected.detach() - found
    torch.testing.assert_close(constants, constants[:1].expand(5), rtol=1e-10, atol=0)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), z)[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(potential.tilt(z), potential(z) - 0.5 * z.square().sum(1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("prior", [None, partial(FlowPrior, steps=1, width=4)], ids=["white", "flow"])
def test_a_joint_is_minus_log_p_of_x_and_z(prior):
    vae = gaussian(prior=prior)
    z = as_noise(1).normal((5, 3), X)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(1) if prior is None else vae.prior.log_prob(z)
    expected = -Normal(vae.decoder(z), vae.log_sigma.exp()).log_prob(X).flatten(1).sum(1) - log_prior
    torch.testing.assert_close(Joint(vae, X)(z), expected, rtol=1e-12, atol=0)


def test_a_joint_of_a_hierarchy_takes_its_groups_in_one_row():
    torch.manual_seed(0)
    vae = HierarchicalVAE(SHAPE, width=4, scales=2, groups=2, latents=2, cells=1).double().eval()
    z = as_noise(1).normal((5, vae.latent_dim), X)
    found = vae.evaluate(*vae.groups(z))
    expected = -found.x.log_prob(X) - sum(p.log_prob(g) for p, g in zip(found.prior, found.z, strict=True))
    torch.testing.assert_close(Joint(vae, X)(z), expected, rtol=1e-12, atol=0)
    assert len(found.z) == 4
