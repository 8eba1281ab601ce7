import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from ebmzoo.figures.chains import ChainHealth, convergence, watching
from ebmzoo.mcmc import HMC, MALA, Langevin, Potential
from ebmzoo.mcmc.potential import squared_norm

from ..callbacks.fakes import ecvae, measured


def quadratic(x):
    return 0.5 * x.square().sum(1)


def watched(sampler, potential=quadratic, state=None, **call):
    model = SimpleNamespace(sampler=sampler)
    with watching(model) as traces:
        state = torch.zeros(5, 3, dtype=torch.float64) + 1 if state is None else state
        chain = model.sampler(potential, state, noise=0, **call)
    assert model.sampler is sampler
    return traces["sampler"], chain


@dataclass(frozen=True)
class Two:
    first: Langevin
    second: Langevin
    sigma: float = 0.5


def test_samplers_inside_a_setting_are_watched_apart():
    both = Two(Langevin(steps=2, step_size=0.1), Langevin(steps=5, step_size=0.1))
    model = SimpleNamespace(refine=both, sigma=1.0)
    with watching(model) as traces:
        model.refine.first(quadratic, torch.zeros(3, 2), noise=0)
        model.refine.second(quadratic, torch.zeros(3, 2), noise=0)
        assert model.refine.sigma == 0.5
    assert model.refine is both
    assert [len(traces[f"refine.{name}"].energy) for name in ("first", "second")] == [2, 5]


def test_watching_changes_nothing():
    sampler = Langevin(steps=6, step_size=0.3)
    seen = []
    start = torch.ones(5, 3)
    _, chain = watched(sampler, state=start, watch=lambda step, state: seen.append(step))
    assert torch.equal(chain.x, sampler(quadratic, start, noise=0).x)
    assert seen == list(range(6))


def test_energy_displacement_and_signal_to_noise_by_hand():
    states = []
    sampler = Langevin(steps=4, step_size=0.3, temperature=0.5)
    trace, _ = watched(sampler, watch=lambda step, state: states.append(state.x))
    for k, x in enumerate(states):
        assert torch.allclose(trace.energy[k], quadratic(x))
        assert torch.allclose(trace.displacement[k], (x - states[0]).square().mean(1).sqrt())
        drift = (0.15 * x).square().sum(1).sqrt()
        assert torch.allclose(trace.signal_to_noise[k], drift / math.sqrt(0.3 * 0.5 * 3))


def test_the_acceptance_is_that_of_mala():
    """The same step from the same noise: Metropolis-adjusted Langevin would accept with this probability."""
    s, temperature = 1.5, 0.7
    start = torch.randn(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.7**0.5
    trace, _ = watched(Langevin(steps=2, step_size=s, temperature=temperature), state=start)
    (probability,) = trace.acceptance
    chain = MALA(steps=1, step_size=s, temperature=temperature)(quadratic, start, noise=0)
    # MALA draws the same proposal; its share of accepted steps has the mean of the probabilities.
    error = 4 * (probability.mean() / len(start)) ** 0.5
    assert chain.acceptance.mean() == pytest.approx(probability.mean().item(), abs=error.item())
    assert 0.7 < probability.mean() < 0.99


def test_noise_first_is_the_same_chain_seen_half_a_step_later():
    start = torch.zeros(500, 3)
    trace, _ = watched(Langevin(steps=100, step_size=0.8, noise_first=True), state=start)
    plain, _ = watched(Langevin(steps=100, step_size=0.8), state=start)
    means = [torch.stack(found.acceptance)[20:].mean().item() for found in (trace, plain)]
    assert means[0] == pytest.approx(means[1], abs=0.01) and means[0] < 0.99


def test_clamped_gradients_are_those_of_the_step():
    def noiseless(**settings):
        trace, _ = watched(Langevin(steps=1, step_size=2.0, temperature=1.0, **settings), state=torch.full((1, 4), 3.0))
        return trace.signal_to_noise[0].item() * math.sqrt(2.0 * 4)

    assert noiseless() == pytest.approx(6.0)  # the drift is −3 in each of four coordinates
    assert noiseless(grad_clamp=0.5) == pytest.approx(1.0)
    assert noiseless(max_drift=0.25) == pytest.approx(0.25)


class Conditioned(Potential):
    """A row of a, of two numbers, whose sum is given, and b, which is white noise."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, row):
        a, b = row.split([2, 1], 1)
        return (a.sum(1) - self.shift) ** 2 / 2 + 0.5 * squared_norm(b)


@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_white_and_conditioned_parts_of_a_row(backend):
    sampler = Langevin(steps=1, step_size=1.0, backend=backend)
    trace, _ = watched(sampler, Conditioned(torch.zeros(3)), torch.ones(3, 3))
    # The drift is −½(2, 2) on a and −½ on b: its length over √3.
    assert torch.allclose(trace.signal_to_noise[0], torch.full((3,), 1.5 / 3**0.5, dtype=torch.float64))
    assert torch.allclose(trace.energy[0], torch.full((3,), 2.5, dtype=torch.float64))


def test_metropolis_samplers_accept_themselves_and_descent_has_no_noise():
    for sampler in (MALA(steps=3, step_size=0.1), HMC(steps=3, step_size=0.1)):
        trace, chain = watched(sampler)
        assert trace.acceptance == [] and len(trace.energy) == 3
        assert torch.equal(trace.accepted[0], chain.acceptance.double())
    trace, _ = watched(Langevin(steps=3, step_size=0.1, bounds=(-1.0, 1.0)))
    assert trace.acceptance == [] and len(trace.signal_to_noise) == 3  # no density of clamped proposals
    trace, _ = watched(Langevin(steps=2, step_size=0.1, temperature=0.0))
    assert trace.acceptance == [] and bool(trace.signal_to_noise[0].isinf().all())


def test_fresh_noise_in_the_potential_is_left_alone():
    class Noisy(Potential):
        redraws = True

        def refresh(self, x, noise, level=None):
            self.xi = noise.normal(x.shape, x)

        def forward(self, x):
            return 0.5 * (x + 0.1 * self.xi).square().sum(1)

    trace, _ = watched(Langevin(steps=3, step_size=0.1), Noisy())
    assert len(trace.energy) == 3 and trace.acceptance == [] and trace.signal_to_noise == []


def test_projections_are_lengths_on_unit_directions():
    start = torch.randn(2000, 30, generator=torch.Generator().manual_seed(2))
    trace, _ = watched(Langevin(steps=2, step_size=0.1), state=start)
    assert [shown.shape for shown in trace.projections] == 2 * [(2000, 8)]
    # White noise has unit variance on any direction of unit length; the eight are drawn about that long.
    assert trace.projections[0].var(0).mean() == pytest.approx(1, abs=0.3)
    again, _ = watched(Langevin(steps=2, step_size=0.1), state=start)
    assert torch.equal(again.projections[0], trace.projections[0])  # the same for every chain


def test_watching_leaves_the_model_as_it_is_and_ends_with_its_context():
    both = Two(Langevin(steps=2), Langevin(steps=5))
    model, x = SimpleNamespace(sampler=both.first, refine=both), torch.zeros(3, 2)
    with pytest.raises(KeyError), watching(model) as traces:
        assert model.refine is both
        model.refine.second(lambda x: x.sum(1), x, noise=0)
        Langevin(steps=4)(lambda x: x.sum(1), x, noise=0)  # nobody's
        raise KeyError
    model.sampler(lambda x: x.sum(1), x, noise=0)
    assert {name: len(trace.energy) for name, trace in traces.items()} == {"sampler": 0, "refine.second": 5}


def test_convergence_of_independent_draws_and_of_chains_apart():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(500, 4, 2, generator=generator)
    rhat, ess = convergence(draws)
    assert rhat < 1.01 and 1500 < ess < 2600
    # An AR(1) chain with correlation ρ has (1 − ρ)/(1 + ρ) as many effective draws.
    rho, x = 0.8, torch.zeros(4)
    chain = []
    for _ in range(4000):
        x = rho * x + (1 - rho**2) ** 0.5 * torch.randn(4, generator=generator)
        chain.append(x)
    _, ess = convergence(torch.stack(chain))
    assert ess == pytest.approx(16_000 * (1 - rho) / (1 + rho), rel=0.15)
    rhat, _ = convergence(draws[..., 0] + 3 * torch.arange(4))
    assert rhat > 2
    # Chains that stay where they are have an effective draw each; of short ones ArviZ would say 12·8·log10(96).
    stuck = torch.arange(12.0) + 1e-3 * torch.randn(20, 12, generator=generator)
    for steps in (10, 20):
        rhat, ess = convergence(stuck[:steps])
        assert rhat > 5 and ess < 40
    assert math.isnan(convergence(stuck[:8])[1])
    with pytest.raises(ValueError, match="R-hat needs 4 steps"):
        convergence(draws[:3])


def test_chain_health(tmp_path):
    method = ecvae(sampler=Langevin(steps=8, step_size=0.1, temperature=1e-2))
    found, skipped, _ = measured(tmp_path, method, figures=[ChainHealth()])
    assert skipped == [] and (tmp_path / "chain_energy.png").is_file()
    health = {"energy_start", "energy_end", "displacement", "drift_to_noise", "acceptance_if_adjusted", "rhat"}
    assert {f"chain_{name}" for name in health} == set(found)
    # No effective sample size of four steps.
    # From one start, the noise alone displaces by √(K·s·T) per coordinate; the last state seen had 7 steps.
    assert found["chain_displacement"] == pytest.approx((7 * 0.1 * 1e-2) ** 0.5, rel=0.2)
    assert 0.9 < found["chain_acceptance_if_adjusted"] <= 1


def test_longer_chains_have_an_effective_sample_size(tmp_path):
    method = ecvae(sampler=Langevin(steps=20, step_size=0.1, temperature=1e-2))
    found, _, _ = measured(tmp_path, method, figures=[ChainHealth()])
    assert found["chain_rhat"] > 1.5 and found["chain_ess"] < 4 * 64  # 64 chains that hardly move
