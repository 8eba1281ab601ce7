"""What methods answer by a part: an energy, chains on it, a code with its prior."""

import pytest
import torch

from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import EBM, VAE, WGAN
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

SHAPE = (1, 4, 4)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
ENERGY = spec(MLPEnergy, width=6, depth=1)
VAES = spec(GaussianVAE, encoder=spec(MLPEncoder, width=6), decoder=spec(MLPDecoder, width=6), latent_dim=3, sigma=0.5)


def test_a_score_is_high_where_the_energy_is_low():
    model = WGAN(SHAPE, VAES, ENERGY)
    assert torch.equal(model.energy(X), model.ebm(X)) and torch.equal(model.score(X), -model.ebm(X))
    assert not hasattr(model, "log_density")  # its energy is a critic: no chain has taught it a density


@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_a_density_is_that_of_the_chains_temperature(temperature):
    model = EBM(SHAPE, ENERGY, sampler=Langevin(steps=2, temperature=temperature))
    torch.testing.assert_close(model.log_density(X), -model.energy(X) / temperature, rtol=0, atol=0)


def test_a_chain_without_noise_has_taught_no_density():
    with pytest.raises(ValueError, match="trained at temperature 0 has learnt no density"):
        EBM(SHAPE, ENERGY, sampler=Langevin(steps=2, temperature=0.0)).log_density(X)


def test_codes_are_the_priors_scaled_by_the_latent_temperature():
    torch.manual_seed(0)
    model = VAE(SHAPE, VAES)
    assert model.latent_dim == 3
    white = as_noise(4).normal((2, 3), X)
    torch.testing.assert_close(model.draw_latents(2, as_noise(4), X), white, rtol=0, atol=0)
    model.latent_temperature = 0.5
    z = model.draw_latents(2, as_noise(4), X)
    torch.testing.assert_close(z, 0.5 * white, rtol=0, atol=0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_prior(z), expected)


def test_a_reconstruction_decodes_the_mean_that_is_inferred():
    torch.manual_seed(0)
    model = VAE(SHAPE, VAES)
    q = model.encode(X)
    assert q.mean.shape == q.log_sigma.shape == (5, 3)
    torch.testing.assert_close(model.reconstruct(X), model.decode(q.mean), rtol=0, atol=0)


def test_the_bound_is_likelihood_less_divergence_by_torchs_own_densities():
    torch.manual_seed(0)
    model = VAE(SHAPE, VAES).double()
    x = X.double()
    q = model.encode(x)
    sigma = q.log_sigma.exp()
    z = q.mean + sigma * as_noise(7).normal((5, 3), x)
    normal = torch.distributions.Normal
    likelihood = normal(model.decode(z), 0.5).log_prob(x).flatten(1).sum(1)
    divergence = torch.distributions.kl_divergence(normal(q.mean, sigma), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(model.elbo(x, as_noise(7)).bound, likelihood - divergence, rtol=1e-6, atol=0)
    # Of one draw the importance weight: log p(x, z) − log q(z|x).
    weight = likelihood + normal(0.0, 1.0).log_prob(z).sum(1) - normal(q.mean, sigma).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_likelihood_bound(x, 1, as_noise(7)), weight, rtol=1e-6, atol=0)
