"""Losses that are captured with their gradients: a training is the same as without, to the last bit.

What captures here stands in for CUDA's graphs: it runs the function again, on the same tensors.
"""

import copy
import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from ebmzoo.callbacks import NetworkEvaluations
from ebmzoo.mcmc import as_noise
from ebmzoo.mcmc.capture import capture_graph, captured_by
from ebmzoo.parts import Energy
from ebmzoo.parts.captured_loss import CAPTURED_AFTER, _graphs, captured_loss
from ebmzoo.parts.objectives import EnergyL2, GradientPenalty, LipschitzPenalty, SpectralPenalty

from ..mcmc.examples import NETWORKS, Again, made
from ..methods.cases import MOST_SLOW, RARELY, assert_identical, seeded, state
from ..processes import QUIET, trainer, two_processes

GRAPH = pytest.param(capture_graph, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))
PENALTIES = [EnergyL2(0.1), GradientPenalty(0.1), LipschitzPenalty(0.1)]


def energy_of(name):
    net, x = made(name)
    penalties = [*PENALTIES, SpectralPenalty(0.1)] if name == "vaebm" else PENALTIES
    return Energy(net.image_shape, lambda shape: net, data_noise=0.1, penalties=penalties), x


def trained(energy, x, steps=6):
    """Losses and logged values of a few updates, and what they leave."""
    optimizer, noise, found = torch.optim.Adam(energy.parameters(), lr=1e-3), as_noise(3, x.device), []
    for _ in range(steps):
        loss, seen = energy.loss(x, -x, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append({"loss": loss.detach().clone(), **{name: value.detach().clone() for name, value in seen.items()}})
    return found, {**energy.state_dict(), "noise": noise.normal((3,), x)}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_energy_learns_the_same(name):
    energy, x = energy_of(name)
    plain, left = trained(copy.deepcopy(energy), x)
    again, before = Again(), torch.get_rng_state()
    with captured_by(again):
        captured, left_captured = trained(energy, x)
    for one, other in zip(captured, plain, strict=True):
        assert_identical(one, other)
    assert_identical(left_captured, left)
    assert torch.equal(torch.get_rng_state(), before)
    assert (again.captures, again.replays) == (1, 6 - CAPTURED_AFTER + 1)  # one is a look at the gradient


@pytest.mark.parametrize("name", MOST_SLOW)
def test_a_training_is_the_same(name):
    """All of it: chains, losses, buffers, random numbers, and the count of network evaluations."""

    def train(capture):
        method = seeded(name)
        torch.manual_seed(1)
        batches = DataLoader(list(torch.rand(8, 6, *method.image_shape) * 2 - 1), batch_size=None)
        counting = NetworkEvaluations()
        fit = Trainer(**{**QUIET, **RARELY}, max_epochs=1, callbacks=[counting])
        with captured_by(capture) if capture else nullcontext():
            fit.fit(method, batches)
        return {**state(fit), "evaluations": torch.tensor(counting.spent)}

    again = Again()
    plain, captured = train(None), train(again)
    if not name.startswith("denoising"):  # whose captured chains have their step size in a tensor, and round otherwise
        assert_identical(captured, plain)
    assert bool(again.captures) == (name not in ("vae", "flow", "gan"))  # which have neither chains nor an `Energy`


def across(rank, name, captures):
    method = seeded(name)
    batches = DataLoader(list(torch.rand(8, 6, *method.image_shape) * 2 - 1), batch_size=None)
    again = Again()
    with captured_by(again) if captures else nullcontext():
        trainer(2, max_epochs=1, **RARELY).fit(method, batches)
    return {"weights": dict(method.state_dict()), "captures": again.captures}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["dual-mcmc", "ecvae"])
def test_so_it_is_over_two_processes(name):
    (plain, _), (one, two) = two_processes(across, name, False), two_processes(across, name, True)
    assert_identical(one["weights"], plain["weights"])
    assert_identical(two["weights"], plain["weights"])
    assert one["captures"] > 2


def test_what_cannot_be_captured_is_run_as_it_is_written():
    again = Again()
    with captured_by(again):
        hooked, x = energy_of("mlp")
        hooked.network.register_forward_hook(lambda *_: None)
        trained(hooked, x)
        energy, x = energy_of("mlp")
        with torch.autocast("cpu", torch.float16):
            trained(energy, x)
        energy.penalties.clear()
        for _ in range(4):
            energy.loss(x, x.detach().requires_grad_(True), as_noise(0))
            with torch.no_grad():
                energy.loss(x, x, as_noise(0))
    assert not again.captures


def test_another_shape_other_flags_and_other_places_are_other_graphs():
    again, (energy, x) = Again(), energy_of("mlp")
    with captured_by(again):
        trained(energy, x, 3)
        trained(energy, x[:2], 3)
        trained(energy.eval(), x, 3)
        energy.network.net[0].weight.data = energy.network.net[0].weight.data.clone()
        trained(energy, x, 3)
        assert again.captures == 4
        for rows in range(1, 30):
            trained(energy, torch.zeros(rows, *x.shape[1:]), 1)
    assert len(_graphs[energy]) == 8


def test_a_graph_with_another_gradient_is_none():
    energy, x = energy_of("mlp")
    plain, left = trained(copy.deepcopy(energy), x)
    weight = energy.network.net[-1].weight

    def wrong(run):
        def replay():
            with torch.no_grad():
                weight.mul_(2)
                with torch.enable_grad():
                    run()
                weight.div_(2)

        return replay

    with (
        captured_by(wrong),
        pytest.warns(UserWarning, match="Energy.loss cannot be captured: a replay of loss gives another"),
    ):
        found, left_wrong = trained(energy, x)
    assert_identical(found[-1], plain[-1])
    assert_identical(left_wrong, left)
    assert list(_graphs[energy].values()) == [None]


def test_backward_after_another_call_is_refused_and_a_module_is_not_held():
    again, (energy, x) = Again(), energy_of("mlp")
    with captured_by(again):
        trained(energy, x)
        first, _ = energy.loss(x, -x, as_noise(0))
        energy.loss(x, -x, as_noise(0))
        with pytest.raises(RuntimeError, match="go backward first"):
            first.backward()
    gone = weakref.ref(energy)
    del energy, first
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("capture", [Again(), GRAPH])
def test_a_parameter_that_the_loss_does_not_reach_has_no_gradient(capture):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (nn.Parameter(torch.ones(2)) for _ in range(2))

        @captured_loss
        def loss(self, x):
            value = (self.used * x).square().sum()
            return value, {"value": value}

    device = "cuda" if capture is capture_graph else "cpu"
    half = Half().to(device)
    with captured_by(capture):
        for step in range(5):
            half.zero_grad()
            loss, seen = half.loss(torch.tensor([1.0, step], device=device))
            (3 * loss).backward()
            assert half.used.grad.tolist() == [6.0, 6.0 * step**2] and half.unused.grad is None
            assert loss.item() == seen["value"].item() == 1 + step**2
