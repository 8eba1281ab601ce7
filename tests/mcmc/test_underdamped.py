"""Underdamped Langevin: BAOAB written out, its exact laws on harmonic potentials, and quadrature in one dimension."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from ebmzoo.mcmc import Langevin, UnderdampedLangevin, as_noise

CHAINS = 20_000


def harmonic(k):
    return lambda x: 0.5 * k * x.square().sum(1)


def quartic(x):
    return (x**4).sum(1)


@pytest.mark.parametrize("temperature", [0.6, 0.0])
def test_the_splitting_written_out(temperature):
    s, gamma = 0.2, 1.5
    h, start = math.sqrt(s), torch.linspace(-1.5, 1.5, 24).double().view(12, 2)
    chain = UnderdampedLangevin(4, s, temperature, friction=gamma)(quartic, start, noise=3)
    noise, x = as_noise(3), start
    # A start half a kick before the first step's beginning.
    v = math.sqrt(temperature) * noise.normal(x.shape, x) - h / 2 * 4 * x**3
    for _ in range(4):
        v = v - h / 2 * 4 * x**3  # B
        x = x + h / 2 * v  # A
        xi = noise.normal(x.shape, x) if temperature else 0.0
        v = math.exp(-gamma * h) * v + math.sqrt((1 - math.exp(-2 * gamma * h)) * temperature) * xi  # O
        x = x + h / 2 * v  # A
        before, v = v, v - h / 2 * 4 * x**3  # B
    torch.testing.assert_close(chain.x, x, rtol=0, atol=1e-12)
    assert chain.acceptance is None and not torch.equal(before, v)


@pytest.mark.parametrize(("s", "gamma"), [(0.5, 1.0), (2.0, 0.3), (3.0, math.inf)])
def test_the_variance_on_a_harmonic_potential_is_exact_whatever_the_step(s, gamma):
    k, temperature = 1.2, 0.7
    sampler = UnderdampedLangevin(300, s, temperature, friction=gamma)
    state, noise = sampler.start(None, torch.zeros(CHAINS, 1).double(), as_noise(1)), as_noise(2)

    class Walked:
        def value_and_grad(self, x):
            return harmonic(k)(x), k * x

    for _ in range(150):
        state = sampler.step(Walked(), state, noise)
    # The step is linear, (x, v) <- M (x, v) + b xi: its stationary covariance solves a Lyapunov equation.
    h, c = math.sqrt(s), math.exp(-gamma * math.sqrt(s))
    half, kick, forget = (np.array(m) for m in ([[1, h / 2], [0, 1]], [[1, 0], [-h * k, 1]], [[1, 0], [0, c]]))
    b = half @ np.array([[0.0], [math.sqrt((1 - c**2) * temperature)]])
    law = solve_discrete_lyapunov(half @ forget @ half @ kick, b @ b.T)
    assert law[0, 0] == pytest.approx(temperature / k, rel=1e-12)  # exact, where Langevin's is T / (k (1 - sk/4))
    found = torch.cov(torch.cat([state.x, state.velocity], 1).T)
    error = np.sqrt((law**2 + np.outer(law.diagonal(), law.diagonal())) / CHAINS)
    assert (np.abs(found.numpy() - law) < 4 * error).all()


def test_at_infinite_friction_it_averages_the_noise_of_two_steps():
    x, s = torch.linspace(-1, 1, 8).double().view(8, 1), 0.3
    chain = UnderdampedLangevin(3, s, 0.5, friction=math.inf)(quartic, x, noise=4)
    noise = as_noise(4)
    last, expected = noise.normal(x.shape, x), x
    for _ in range(3):
        xi = noise.normal(x.shape, x)
        expected = expected - s / 2 * 4 * expected**3 + math.sqrt(s * 0.5) * (last + xi) / 2
        last = xi
    torch.testing.assert_close(chain.x, expected, rtol=0, atol=1e-12)


def test_two_modes_in_one_dimension_are_nearer_than_langevins():
    def modes(x):  # N(-1.5, 1) and N(1.5, 1), equally likely: E[x²] = 1 + 1.5²
        return (x.square() / 2 - (1.5 * x).cosh().log()).sum(1)

    start = torch.ones(CHAINS, 1).double()
    start[::2] = -1
    gaps = []
    for sampler in (UnderdampedLangevin(60, 1.5), Langevin(60, 1.5)):
        square = sampler(modes, start, noise=5).x.square()
        gaps.append(((square.mean() - 3.25) / (square.std() / CHAINS**0.5)).abs())
    assert gaps[0] < 4 and gaps[1] > 6  # standard errors


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="friction is not negative, not -1"):
        UnderdampedLangevin(friction=-1)
