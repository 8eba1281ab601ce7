"""States of a chain on its way."""

import pytest
import torch

from ebmzoo.mcmc import HMC, MALA, AnnealedLangevin, Langevin, Potential, Row, Trajectory

SAMPLERS = [Langevin(6, 0.1), MALA(6, 0.1), HMC(6, 0.1), AnnealedLangevin(6, 0.1, sigma=2.0, sigma_end=1.0)]
START = torch.linspace(-1, 1, 8).view(4, 2)


class Ball(Potential):
    def forward(self, x):
        return x.square().sum(1)


class Levelled(Potential):
    redraws = True

    def refresh(self, x, noise, level=None):
        self.sigma = x.new_tensor(1.0 if level is None else level)

    def forward(self, x):
        return (x / self.sigma).square().sum(1)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: type(one).__name__)
def test_a_trajectory_keeps_every_so_many_th_state(sampler):
    every, third = Trajectory(), Trajectory(every=3)
    potential = Levelled() if isinstance(sampler, AnnealedLangevin) else Ball()
    chain = sampler(potential, START, noise=0, watch=every)
    assert torch.equal(sampler(potential, START, noise=0, watch=third).x, chain.x)
    assert (every.steps, third.steps) == ([0, 1, 2, 3, 4, 5], [0, 3])
    assert torch.equal(every.states[0], START) and not torch.equal(every.states[5], every.states[0])
    assert torch.equal(third.states, every.states[::3]) and torch.equal(third.energies, every.energies[::3])
    if not isinstance(sampler, AnnealedLangevin):
        assert torch.equal(sampler(potential, START, noise=0, steps=3).x, every.states[3])
        torch.testing.assert_close(every.energies, every.states.square().sum(2))


def test_a_trajectory_of_rows():
    way, row = Trajectory(every=2), Row(((2,), (2,)))
    Langevin(4, 0.1, 0.0)(Ball(), row.pack(START, -START), watch=way)
    x, y = row.parts(way.states.flatten(0, 1))
    assert way.states.shape == (2, 4, 4) and torch.equal(x, -y)


def test_it_keeps_one_state_at_least():
    with pytest.raises(ValueError, match="every is at least 1, not 0"):
        Trajectory(every=0)
