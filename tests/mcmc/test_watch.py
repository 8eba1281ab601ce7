"""Chains on somebody's own energy: its shape, states on the way, and what is not a number."""

import pytest
import torch

from ebmzoo.mcmc import HMC, MALA, AnnealedLangevin, Langevin, Trajectory, unguarded
from ebmzoo.methods import EBM

SAMPLERS = [Langevin(6, 0.1), MALA(6, 0.1), HMC(6, 0.1), AnnealedLangevin(6, 0.1, sigma=2.0, sigma_end=1.0)]
START = torch.linspace(-1, 1, 8).view(4, 2)


def energy(x, sigma=1.0):
    return (x / sigma).square().sum(1)


@pytest.mark.parametrize("backend", ["eager", "trace"])
@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=lambda one: type(one).__name__)
def test_a_column_of_energies_is_taken_for_one_each(sampler, backend):
    sampler = type(sampler)(6, 0.1, backend=backend)
    found = sampler(lambda x: energy(x)[:, None], START, noise=0)
    expected = sampler(energy, START, noise=0)
    assert found.energy.shape == (4,)
    assert torch.equal(found.state, expected.state) and torch.equal(found.energy, expected.energy)
    with pytest.raises(ValueError, match=r"shape \(4,\), not \(4, 2\)"):
        sampler(lambda x: x.square(), START)


def test_a_method_takes_a_network_that_ends_in_a_linear_layer():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    model = EBM((1, 2, 2), network, sampler=Langevin(2, 0.1))
    x = torch.ones(3, 1, 2, 2)
    assert torch.equal(model.energy(x), network(x)[:, 0].detach())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: type(one).__name__)
def test_a_trajectory_keeps_every_so_many_th_state(sampler):
    every, third = Trajectory(), Trajectory(every=3)
    chain = sampler(energy, START, noise=0, callback=every)
    assert torch.equal(sampler(energy, START, noise=0, callback=third).x, chain.x)
    assert (every.steps, third.steps) == ([0, 1, 2, 3, 4, 5], [0, 3])
    assert torch.equal(every.states[0], START) and not torch.equal(every.states[5], every.states[0])
    assert torch.equal(third.states, every.states[::3]) and torch.equal(third.energies, every.energies[::3])
    shorter = sampler(energy, START, noise=0, steps=3) if type(sampler) is not AnnealedLangevin else None
    assert shorter is None or torch.equal(shorter.state, every.states[3])


def test_a_trajectory_of_several_leaves():
    way = Trajectory(every=2)
    Langevin(4, 0.1, 0.0)(lambda x, y: energy(x) + energy(y), (START, -START), callback=way)
    x, y = way.states
    assert x.shape == (2, 4, 2) and torch.equal(x, -y)
    with pytest.raises(ValueError, match="every is at least 1, not 0"):
        Trajectory(every=0)


def falling(x, sigma=1.0):
    """Its gradient is -1: with s = 2 and T = 0 each step adds 1; beyond 3.5 it is not a number."""
    return torch.where(x < 3.5, -x, (3.5 - x).sqrt()).sum(1)


BAD = torch.tensor([[0.0], [-9.0], [2.0]])
WALKS = {
    "langevin": Langevin(8, 2.0, 0.0),
    "one level": AnnealedLangevin(8, 2.0, 0.0),
    "levels": AnnealedLangevin(8, 2.0, 0.0, sigma=1.0, sigma_end=1 + 1e-6),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("watched", [False, True])
def test_an_energy_that_is_nan_is_told_with_its_step(name, watched):
    callback = Trajectory() if watched else None
    with pytest.raises(ValueError, match=r"^the energy is NaN from step 2 on, at the end in 2 of 3 chains: "):
        WALKS[name](falling, BAD, callback=callback)
    with unguarded():
        chain = WALKS[name](falling, BAD)
    assert chain.energy.isnan().tolist() == [True, False, True]
    assert WALKS[name](falling, BAD[1:2], steps=3).x.item() == pytest.approx(-6)


@pytest.mark.parametrize("sampler", [MALA(5, 0.1), HMC(5, 0.1)], ids=["MALA", "HMC"])
def test_a_metropolis_chain_is_nan_from_its_start_or_never(sampler):
    def logarithm(x):  # finite gradients everywhere
        return x.log().sum(1)

    with pytest.raises(ValueError, match="NaN from step 0 on, at the end in 1 of 2 chains"):
        sampler(logarithm, torch.tensor([[5.0], [-9.0]]), noise=0)
    inside = sampler(lambda x: torch.where(x.abs() < 1, x, torch.nan).sum(1), torch.zeros(50, 1), noise=0, steps=40)
    assert inside.state.abs().max() < 1  # what is not a number is not accepted


def test_infinite_walls_are_no_fault():
    box = Langevin(3, 0.1, 0.0)(lambda x: torch.where(x > 1, torch.inf, x).sum(1), torch.tensor([[2.0]]))
    assert box.energy.item() == torch.inf
