"""Replica exchange: swap rates in closed form, densities by quadrature, modes that one temperature does not find."""

import pytest
import torch
from scipy.special import betainc
from torch import nn

from ebmzoo.mcmc import HMC, MALA, ReplicaExchange, State, Tethered, as_noise
from ebmzoo.methods import DualMCMC
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy

CHAINS = 2000


def white(x):
    return 0.5 * x.square().sum(1)


def wells(x):
    """Two unequal wells, a barrier of about 12 between them."""
    return 12 * (x.square() - 1).square().sum(1) + 0.5 * x.sum(1)


@pytest.mark.parametrize("dimensions", [1, 6])
def test_swap_rates_of_gaussians_are_those_of_the_closed_form(dimensions):
    # 2 P(U at T > U at T'), and U at T is T Gamma(D/2): an incomplete beta function (Kofke 2002).
    ladder = (1.5, 4.0)
    sampler = ReplicaExchange(150, 0.6, 0.8, ladder=ladder)
    x = 0.8**0.5 * torch.randn(CHAINS, dimensions, generator=torch.Generator().manual_seed(0)).double()
    rates = sampler(white, sampler(white, x, noise=1, steps=20).x, noise=2).swap_rate
    assert rates.shape == (CHAINS, 2)
    for k, (cold, hot) in enumerate([(1, 1.5), (1.5, 4)]):
        half = dimensions / 2
        law = 2 * betainc(half, half, cold / (cold + hot))
        error = rates[:, k].std() / CHAINS**0.5
        assert abs(rates[:, k].mean() - law) < 4 * error + 0.01  # replicas begin cold, and warm up in a few steps


def test_all_temperatures_have_their_own_density_by_quadrature():
    sampler = ReplicaExchange(200, 0.1, 1.0, ladder=(2.5, 6.0, 15.0))
    potential, noise = Tethered(wells, torch.zeros(1, 1).double(), 0.0), as_noise(3)
    state = sampler.start(potential, torch.ones(CHAINS, 1).double(), noise)
    for _ in range(sampler.steps):
        state = sampler.step(potential, state, noise)
    place = torch.linspace(-4, 4, 8001).double()[:, None]
    for temperature, replica in zip(sampler.temperatures, (state, *state.hotter), strict=True):
        weight = (-wells(place) / temperature).softmax(0)
        for f in (lambda x: (x < 0).double(), lambda x: x, lambda x: x.square()):
            values, exact = f(replica.x[:, 0]), (weight * f(place[:, 0])).sum()
            assert (values.mean() - exact).abs() < 4 * values.std() / CHAINS**0.5, temperature
    assert (state.swapped / sampler.steps).mean(0).min() > 0.3
    torch.testing.assert_close(state.energy, wells(state.x))
    # One temperature stays where it began.
    assert (MALA(200, 0.1)(wells, torch.ones(CHAINS, 1).double(), noise=3).x > 0).double().mean() > 0.99


def test_a_step_written_out():
    x, sampler = torch.linspace(-1, 1, 12).double().view(6, 2), ReplicaExchange(3, 0.1, 0.7, ladder=(2.0, 5.0))
    chain = sampler(wells, x, noise=5)
    noise, temperatures, rows = as_noise(5), [0.7, 1.4, 3.5], [x, x, x]
    swapped = torch.zeros(6, 2).double()
    for _ in range(3):
        rows = [MALA(1, 0.1, t)(wells, row, noise=noise).x for t, row in zip(temperatures, rows, strict=True)]
        for k in (1, 0):
            gap = (1 / temperatures[k] - 1 / temperatures[k + 1]) * (wells(rows[k]) - wells(rows[k + 1]))
            swaps = noise.uniform((6,), x) < gap.exp()
            low, high = rows[k], rows[k + 1]
            rows[k], rows[k + 1] = torch.where(swaps[:, None], high, low), torch.where(swaps[:, None], low, high)
            swapped[:, k] += swaps
    torch.testing.assert_close(chain.x, rows[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(chain.swap_rate, swapped / 3)
    assert 0 < swapped.sum() < 36


def test_a_step_leaves_its_arguments_as_they_are_and_a_chain_is_its_steps():
    x, sampler, noise = torch.randn(5, 3).double(), ReplicaExchange(3, 0.1, leapfrogs=2, ladder=(3.0,)), as_noise(1)
    potential = Tethered(white, x, 2.0)  # what it is conditioned on keeps its batch of five
    state = sampler.start(potential, x, noise)
    for _ in range(3):
        before = [part.clone() for part in _tensors(state)]
        after = sampler.step(potential, state, noise)
        assert all(torch.equal(a, b) for a, b in zip(before, _tensors(state), strict=True))
        state = after
    chain = sampler(potential, x, noise=1)
    assert torch.equal(chain.x, state.x) and torch.equal(chain.acceptance, state.accepted / 3)
    assert sampler(potential, x, noise=1, steps=0).swap_rate.eq(0).all()
    assert HMC(3)(white, x, noise=0).swap_rate is None


def _tensors(state):
    for part in state:
        if isinstance(part, torch.Tensor):
            yield part
        elif part:
            yield from (tensor for replica in part for tensor in _tensors(replica) if isinstance(replica, State))


def test_a_method_takes_it_as_its_sampler():
    model = DualMCMC(
        (2,), MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=2, sampler=ReplicaExchange(3, 0.05, ladder=(2.0, 4.0))
    )
    samples = model.sample(7, noise=0)
    assert samples.shape == (7, 2) and not torch.equal(samples, model.sample(7, noise=0, steps=0))


def test_a_ladder_that_does_not_rise_is_refused():
    for ladder in ((), (1.0,), (3.0, 2.0), (float("nan"),)):
        with pytest.raises(ValueError, match="rises from above 1"):
            ReplicaExchange(ladder=ladder)


def test_networks_are_frozen_in_all_replicas():
    net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 1)).train()
    chains = [ReplicaExchange(2)(net, torch.zeros(3, 2), noise=0).x for _ in range(2)]
    assert torch.equal(*chains) and net[1].training
