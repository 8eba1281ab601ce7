"""Step sizes that tune themselves: the recursion, what they come to, and that the chains stay exact."""

import math

import pytest
import torch
from scipy.special import erfc
from torch import nn

from ebmzoo.mcmc import HMC, MALA, DualAveraging, Langevin, ReplicaExchange

from .test_laws import assert_covariance, correlated, gaussian


def test_dual_averaging_is_the_papers_recursion():
    alphas, delta, step = [0.9, 0.1, 1.0, 0.4, 0.7], 0.65, 0.3
    search = DualAveraging(step, delta)
    assert search.step == search.found == step
    averaged = 0.0
    for m in range(1, len(alphas) + 1):
        search.update(alphas[m - 1])
        # H_m unrolled: sum of the differences over m + t0, eq. (6) with x = log eps.
        log_step = math.log(10 * step) - math.sqrt(m) / 0.05 * sum(delta - a for a in alphas[:m]) / (m + 10)
        averaged = m**-0.75 * log_step + (1 - m**-0.75) * averaged
        assert search.step == pytest.approx(math.exp(log_step), rel=1e-12)
        assert search.found == pytest.approx(math.exp(averaged), rel=1e-12)


@pytest.mark.parametrize("start", [1e-5, 30.0])
def test_one_leapfrog_on_white_noise_finds_the_step_of_the_closed_form(start):
    # Of D coordinates N(0, 1) one leapfrog of length e accepts 2 Phi(-e³ √D / 8) on average, as D grows (Roberts and
    # Rosenthal 1998, Theorem 1).
    dimensions, target = 400, 0.7
    sampler = MALA(100, start, warmup=200, target_acceptance=target)
    chain = sampler(lambda x: 0.5 * x.square().sum(1), torch.randn(64, dimensions), noise=1)
    e = math.sqrt(chain.step_size)
    assert erfc(e**3 * math.sqrt(dimensions) / 8 / math.sqrt(2)) == pytest.approx(target, abs=0.03)
    assert chain.acceptance.mean() == pytest.approx(target, abs=0.03)


@pytest.mark.parametrize(
    "sampler",
    [MALA(30, 1e-2, 0.7, warmup=250), HMC(15, 50.0, leapfrogs=3, warmup=250)],
    ids=str,
)
def test_chains_are_exact_after_it_and_accept_as_often_as_was_asked(sampler):
    precision = correlated()
    chain = sampler(gaussian(precision), torch.zeros(4000, 5).double(), noise=4)
    assert_covariance(chain.x, sampler.temperature * torch.linalg.inv(precision))
    assert chain.acceptance.mean() == pytest.approx(sampler.target_acceptance, abs=0.04)


def test_it_is_of_one_call_and_nobody_watches_it():
    seen, x = [], torch.zeros(30, 2)
    sampler = MALA(5, 0.1, warmup=20)
    chains = [sampler(gaussian(torch.eye(2)), x, noise=3, watch=lambda k, state: seen.append(k)) for _ in range(2)]
    assert torch.equal(chains[0].x, chains[1].x) and chains[0].step_size == chains[1].step_size != 0.1
    assert seen == 2 * list(range(5)) and sampler.step_size == 0.1
    assert torch.equal(chains[0].acceptance * 5, (chains[0].acceptance * 5).round())
    assert MALA(5, 0.1)(gaussian(torch.eye(2)), x, noise=3).step_size is None  # off unless asked for


def test_a_recorded_potential_warms_up_to_the_same_bits():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1)), torch.randn(6, 2)
    for kind in (MALA, HMC, ReplicaExchange):
        found = [kind(10, 0.1, warmup=60, backend=backend)(net, x, noise=1) for backend in ("eager", "trace")]
        assert torch.equal(found[0].x, found[1].x) and found[0].step_size == found[1].step_size


def test_proposals_that_are_not_numbers_make_steps_smaller():
    def walled(x):  # NaN outside of |x| < 1
        return x.abs().sum(1) + (1 - x.square()).log().sum(1) * 0

    chain = MALA(50, 100.0, warmup=80)(walled, torch.zeros(200, 1), noise=2)
    assert chain.step_size < 10 and (chain.x.abs() < 1).all() and chain.acceptance.mean() > 0.3


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="warmup is a count and target_acceptance between 0 and 1, not -1 and 0.65"):
        HMC(warmup=-1)
    with pytest.raises(ValueError, match="not 0 and 1.0"):
        MALA(target_acceptance=1.0)
    with pytest.raises(TypeError):
        Langevin(warmup=5)  # accepts nothing that a step size could be tuned by
