"""Chains that meet what is not a number say so, with their step."""

import pytest
import torch

from ebmzoo.mcmc import HMC, MALA, AnnealedLangevin, Langevin, Potential, Trajectory, unguarded

BAD = torch.tensor([[0.0], [-9.0], [2.0]])


class Falling(Potential):
    """Its gradient is -1: with s = 2 and T = 0 each step adds 1; beyond 3.5 it is not a number."""

    def forward(self, x):
        return torch.where(x < 3.5, -x, (3.5 - x).sqrt()).sum(1)


class FallingAtAnyLevel(Falling):
    redraws = True

    def refresh(self, x, noise, level=None):
        pass


WALKS = {
    "langevin": Langevin(8, 2.0, 0.0),
    "one level": AnnealedLangevin(8, 2.0, 0.0),
    "levels": AnnealedLangevin(8, 2.0, 0.0, sigma=1.0, sigma_end=1 + 1e-6),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_an_energy_that_is_nan_is_told_with_its_step(name, watched, backend):
    walk, watch = WALKS[name], Trajectory() if watched else None
    walk = type(walk)(**{**vars(walk), "backend": backend})
    potential = Falling() if name == "langevin" else FallingAtAnyLevel()
    with pytest.raises(ValueError, match=r"^the energy is NaN from step 2 on, at the end in 2 of 3 chains: "):
        walk(potential, BAD, watch=watch)
    with unguarded():
        chain = walk(potential, BAD)
    assert chain.energy.isnan().tolist() == [True, False, True]
    assert walk(potential, BAD[1:2], steps=3).x.item() == pytest.approx(-6)
    with pytest.raises(ValueError, match="NaN from step 0 on, at the end in 1 of 1 chains"):
        walk(potential, torch.tensor([[4.0]]), steps=1)


@pytest.mark.parametrize("sampler", [MALA(5, 0.1), HMC(5, 0.1)], ids=["MALA", "HMC"])
def test_a_metropolis_chain_is_nan_from_its_start_or_never(sampler):
    def logarithm(x):  # finite gradients everywhere
        return x.log().sum(1)

    with pytest.raises(ValueError, match="NaN from step 0 on, at the end in 1 of 2 chains"):
        sampler(logarithm, torch.tensor([[5.0], [-9.0]]), noise=0)
    inside = sampler(lambda x: torch.where(x.abs() < 1, x, torch.nan).sum(1), torch.zeros(50, 1), noise=0, steps=40)
    assert inside.x.abs().max() < 1  # what is not a number is not accepted


def test_infinite_walls_are_no_fault():
    box = Langevin(3, 0.1, 0.0)(lambda x: torch.where(x > 1, torch.inf, x).sum(1), torch.tensor([[2.0]]))
    assert box.energy.item() == torch.inf


def test_the_guard_is_back_after_an_exception():
    with pytest.raises(KeyError), unguarded():
        raise KeyError
    with pytest.raises(ValueError, match="the energy is NaN"):
        WALKS["langevin"](Falling(), BAD)
