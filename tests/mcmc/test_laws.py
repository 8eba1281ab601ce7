"""Closed-form laws of the samplers on Gaussians, to four standard errors."""

import math

import pytest
import torch

from ebmzoo.mcmc import HMC, MALA, Langevin, Potential, as_noise
from ebmzoo.mcmc.potential import squared_norm

CHAINS = 20_000


def gaussian(precision):
    return lambda x: 0.5 * torch.einsum("bi,ij,bj->b", x, precision, x)


def correlated(dimensions=5):
    basis = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0)).double())[0]
    return basis @ torch.diag(torch.linspace(0.5, 2.0, dimensions).double()) @ basis.T


def assert_covariance(samples, expected):
    n = len(samples)
    diagonal = expected.diagonal()
    error = ((expected.square() + diagonal[:, None] * diagonal[None]) / n).sqrt()
    assert ((samples.T @ samples / n - expected).abs() < 4 * error).all()
    assert (samples.mean(0).abs() < 4 * (diagonal / n).sqrt()).all()


class Tilted(Potential):
    """White noise, tilted."""

    def tilt(self, x):
        return 0.5 * (x - 2).square().sum(1)

    def forward(self, x):
        return self.tilt(x) + 0.5 * squared_norm(x)


@pytest.mark.parametrize(("step_size", "temperature"), [(0.5, 1.0), (1.0, 0.3), (0.1, 4.0)])
def test_unadjusted_langevin_has_its_known_bias_in_one_dimension(step_size, temperature):
    sampler = Langevin(steps=150, step_size=step_size, temperature=temperature)
    x = sampler(lambda x: 0.5 * x.square().sum(1), torch.zeros(CHAINS, 1).double(), noise=1).x
    expected = temperature / (1 - step_size / 4)
    assert_covariance(x, torch.tensor([[expected]]).double())


def test_unadjusted_langevin_covariance_in_five_correlated_dimensions():
    precision, step_size, temperature = correlated(), 0.4, 0.7
    x = Langevin(150, step_size, temperature)(gaussian(precision), torch.zeros(CHAINS, 5).double(), noise=2).x
    identity = torch.eye(5).double()
    assert_covariance(x, temperature * torch.linalg.inv(precision @ (identity - step_size / 4 * precision)))


def test_noise_first_langevin_has_its_own_known_variance():
    step_size = 0.5
    x = Langevin(100, step_size, noise_first=True)(
        lambda x: 0.5 * x.square().sum(1), torch.zeros(CHAINS, 1).double(), noise=3
    ).x
    contraction = (1 - step_size / 2) ** 2
    assert_covariance(x, torch.tensor([[contraction * step_size / (1 - contraction)]]).double())


@pytest.mark.parametrize(
    "sampler",
    [
        MALA(120, 0.8, 1.0),
        MALA(150, 0.8, 0.5),
        HMC(40, 0.15, 1.0, leapfrogs=4),
        HMC(40, 0.4, 2.0, leapfrogs=2),
    ],
    ids=str,
)
def test_metropolis_samplers_are_exact(sampler):
    precision = correlated()
    chain = sampler(gaussian(precision), torch.zeros(CHAINS, 5).double(), noise=4)
    assert_covariance(chain.x, sampler.temperature * torch.linalg.inv(precision))
    assert 0.3 < chain.acceptance.mean() < 0.999


@pytest.mark.parametrize("sampler", [MALA(1, 0.3), HMC(1, 0.1, leapfrogs=3)], ids=str)
def test_detailed_balance_on_a_density_that_is_not_gaussian(sampler):
    # Double well U = (x² - 1)²; exact draws by rejection from a box. Reversibility: E[f(x) g(x')] = E[g(x) f(x')].
    def potential(x):
        return (x.square() - 1).square().sum(1)

    noise = as_noise(5)
    like = torch.empty(0, dtype=torch.float64)
    box = 6 * noise.uniform((400_000, 1), like) - 3
    x = box[noise.uniform((400_000,), like) < (-potential(box)).exp()]
    x_next = sampler(potential, x, noise=noise).x
    for f, g in [(lambda v: v**3, lambda v: v), (lambda v: (v > 0.3).double(), lambda v: v**2)]:
        difference = f(x) * g(x_next) - g(x) * f(x_next)
        assert difference.mean().abs() < 4 * difference.std() / math.sqrt(len(x))
    assert 0.3 < (x != x_next).double().mean() < 0.99


def test_one_leapfrog_is_a_mala_step():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    potential = gaussian(correlated(3))
    mala, hmc = MALA(4, 0.7)(potential, x, noise=7), HMC(4, 0.7, leapfrogs=1)(potential, x, noise=7)
    torch.testing.assert_close(mala.x, hmc.x, rtol=0, atol=1e-12)
    assert torch.equal(mala.acceptance, hmc.acceptance)


def test_independence_proposals_alone_sample_the_tilted_prior():
    # Base N(0, 1) tilted by E = (x - 2)²/2 is N(1, 1/2).
    sampler, noise, energy = MALA(0, proposals=60), as_noise(8), Tilted().tilt
    x = sampler(Tilted(), torch.zeros(CHAINS, 1).double(), noise=noise).x
    assert_covariance(x - 1, torch.tensor([[0.5]]).double())
    # Acceptance of the independence sampler, by quadrature over both arguments.
    grid = torch.linspace(-6, 6, 801).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    target = torch.distributions.Normal(1.0, math.sqrt(0.5))
    rate = ((energy(grid[:, None])[:, None] - energy(grid[:, None])[None]).exp().clamp(max=1)) * normal.log_prob(
        grid
    ).exp()[None]
    expected = (rate * target.log_prob(grid).exp()[:, None]).sum() * (grid[1] - grid[0]) ** 2
    accepted = sampler(Tilted(), x, noise=noise).proposal_acceptance
    assert abs(accepted.mean() - expected) < 4 * accepted.std() / CHAINS**0.5


@pytest.mark.parametrize("kind", [Langevin, MALA])
def test_independence_proposals_are_as_warm_as_the_chain(kind):
    # exp(−U/T) with U = (x − 2)²/2 + x²/2 is N(1, T/2).
    sampler = kind(0, temperature=0.5, proposals=60)
    chain = sampler(Tilted(), torch.zeros(CHAINS, 1).double(), noise=9)
    assert_covariance(chain.x - 1, torch.tensor([[0.25]]).double())
    torch.testing.assert_close(chain.energy, Tilted()(chain.x), rtol=1e-12, atol=0)
