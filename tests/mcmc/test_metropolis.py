"""Metropolis samplers step by step: leapfrogs, acceptance and white-noise proposals written out."""

import math

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import HMC, MALA, Langevin, Potential, as_noise
from ebmzoo.mcmc.potential import squared_norm

START = torch.linspace(-1.5, 1.5, 96).double().view(48, 2)


class Quartic(Potential):
    def forward(self, x):
        return (x**4).sum(1)


class Tilted(Potential):
    """White noise tilted by E(x) = 2·Σx⁴."""

    def tilt(self, x):
        return 2 * (x**4).sum(1)

    def forward(self, x):
        return self.tilt(x) + 0.5 * squared_norm(x)


def test_mala_accepts_by_the_metropolis_hastings_ratio_written_out():
    step_size, temperature = 0.9, 0.6

    def potential(x):
        return (x**4).sum(1)

    x = torch.linspace(-1.5, 1.5, 64).double().view(-1, 1)
    chain = MALA(1, step_size, temperature)(potential, x, noise=6)

    noise = as_noise(6)
    drift = lambda v: v - step_size / 2 * 4 * v**3  # noqa: E731
    proposed = drift(x) + math.sqrt(step_size * temperature) * noise.normal(x.shape, x)

    def log_q(to, start):
        return torch.distributions.Normal(drift(start), math.sqrt(step_size * temperature)).log_prob(to).sum(1)

    log_ratio = (potential(x) - potential(proposed)) / temperature + log_q(x, proposed) - log_q(proposed, x)
    accept = noise.uniform((64,), x).log() < log_ratio
    assert 5 < accept.sum() < 60
    torch.testing.assert_close(chain.x, torch.where(accept[:, None], proposed, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.energy, potential(chain.x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("leapfrogs", [1, 3])
def test_hamiltonian_steps_written_out(leapfrogs):
    step_size, temperature = 0.2, 0.6
    chain = HMC(3, step_size, temperature, leapfrogs=leapfrogs)(Quartic(), START, noise=4)
    noise, x, accepted = as_noise(4), START, torch.zeros(48).double()
    eps = math.sqrt(step_size)
    for _ in range(3):
        p = math.sqrt(temperature) * noise.normal(x.shape, x)
        y, q = x, p
        for _ in range(leapfrogs):
            q = q - eps / 2 * 4 * y**3
            y = y + eps * q
            q = q - eps / 2 * 4 * y**3
        hamiltonian = ((x**4).sum(1) + 0.5 * p.square().sum(1)) - ((y**4).sum(1) + 0.5 * q.square().sum(1))
        accept = noise.uniform((48,), x).log() < hamiltonian / temperature
        x, accepted = torch.where(accept[:, None], y, x), accepted + accept
    torch.testing.assert_close(chain.x, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.energy, (x**4).sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.grad, 4 * x**3, rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.acceptance, accepted / 3)
    assert 0 < accepted.sum() < 3 * 48


@pytest.mark.parametrize("sampler", [MALA(4, 0.9, 0.6), HMC(4, 0.5, 0.6, leapfrogs=2)], ids=str)
def test_energy_gradient_and_share_are_of_where_the_chain_is(sampler):
    chain = sampler(Quartic(), START, noise=6)
    torch.testing.assert_close(chain.energy, (chain.x**4).sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.grad, 4 * chain.x**3, rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.grad_norm, (4 * chain.x**3).norm(dim=1))
    accepted, seen = torch.zeros(48), []
    sampler(Quartic(), START, noise=6, watch=lambda k, state: seen.append(state.x))
    for before, after in zip(seen, [*seen[1:], chain.x], strict=True):
        accepted += (before != after).any(1)
    assert torch.equal(chain.acceptance.float(), accepted / 4)
    assert chain.proposal_acceptance is None and 0.05 < chain.acceptance.mean() < 0.95


@pytest.mark.parametrize("kind", [Langevin, MALA, HMC])
@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_white_noise_proposals_written_out(kind, backend):
    sampler = kind(0, temperature=0.6, proposals=3, backend=backend)
    chain = sampler(Tilted(), START, noise=5)
    noise, x, accepted = as_noise(5), START, torch.zeros(48).double()
    for _ in range(3):
        y = math.sqrt(0.6) * noise.normal(x.shape, x)
        accept = noise.uniform((48,), x).log() < (Tilted().tilt(x) - Tilted().tilt(y)) / 0.6
        x, accepted = torch.where(accept[:, None], y, x), accepted + accept
    torch.testing.assert_close(chain.x, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(chain.proposal_acceptance, accepted / 3)
    torch.testing.assert_close(chain.energy, Tilted()(x), rtol=0, atol=1e-12)
    assert 0 < accepted.sum() < 3 * 48
    # The chain's own noise follows that of the proposals.
    moved = kind(2, 0.1, 0.6, proposals=3, backend=backend)(Tilted(), START, noise=5)
    alone = kind(2, 0.1, 0.6, backend=backend)(Tilted(), x, noise=noise)
    torch.testing.assert_close(moved.x, alone.x, rtol=0, atol=1e-12)


class Learned(Potential):
    """White noise tilted by a network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def tilt(self, x):
        return self.network(x)

    def forward(self, x):
        return self.tilt(x).squeeze(1) + 0.5 * squared_norm(x)


def test_a_tilt_is_one_energy_each_at_least_fp32():
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        chain = MALA(1, proposals=2)(Learned(nn.Linear(2, 1)), START.float(), noise=0)
    assert chain.proposal_acceptance.shape == (48,) and chain.proposal_acceptance.dtype == torch.float32
    with pytest.raises(ValueError, match=r"one energy per example, shape \(48,\), not \(48, 3\)"):
        MALA(1, proposals=2)(Learned(nn.Linear(2, 3)), START.float(), noise=0)


def test_what_cannot_be_is_refused_in_one_line():
    for kind in (MALA, HMC):
        with pytest.raises(ValueError, match=rf"{kind.__name__} accepts by exp\(-U/T\), which needs a positive"):
            kind(1, temperature=0.0)
    with pytest.raises(ValueError, match="needs a positive temperature"):
        Langevin(1, temperature=0.0, proposals=1)
    with pytest.raises(ValueError, match="white noise, tilted: Quartic"):
        MALA(1, proposals=1)(Quartic(), START)
    with pytest.raises(ValueError, match="at least one leapfrog"):
        HMC(1, leapfrogs=0)


def test_jitter_breaks_a_period():
    """Of x²/2 a leapfrog turns by the angle whose cosine is 1 − h²/2: six of h = 1 are one whole turn."""
    potential, start = (lambda x: 0.5 * x.square().sum(1)), torch.full((2000, 1), 3.0, dtype=torch.float64)
    still = HMC(20, 1.0, leapfrogs=6)(potential, start, noise=0)
    torch.testing.assert_close(still.x, start)
    assert still.acceptance.min() == 1
    chain = HMC(20, 1.0, leapfrogs=6, jitter=0.5)(potential, start, noise=0)
    assert abs(chain.x.mean()) < 0.1 and abs(chain.x.var() - 1) < 0.15
    assert chain.acceptance.mean() < 1
    with pytest.raises(ValueError, match="share of the step"):
        HMC(1, jitter=1.0)
