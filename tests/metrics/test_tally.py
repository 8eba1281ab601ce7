"""Network evaluations by hand: a forward of an example is one, its gradient another, whatever evaluates it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import HMC, MALA, Langevin, Tally, backend
from ebmzoo.networks import GaussianVAE, MLPDecoder, MLPEncoder, MLPEnergy

IMAGE = (1, 8, 8)


@pytest.fixture(autouse=True)
def no_traces():
    backend._traces.clear()


@pytest.fixture
def model():
    torch.manual_seed(0)
    vae = GaussianVAE(IMAGE, MLPEncoder, MLPDecoder, latent_dim=4)
    return nn.ModuleDict({"vae": vae, "energy": MLPEnergy(IMAGE, width=16)})


def potential(model):
    return lambda z: model["energy"](model["vae"].generate(z).mean)


@pytest.mark.parametrize("kind", ["eager", "trace"])
@pytest.mark.parametrize(
    ("sampler", "gradients", "plain"),
    [
        (Langevin(5, 0.1), 5, 0),
        (MALA(5, 0.1), 6, 0),
        (HMC(4, 0.1, leapfrogs=3), 13, 0),
        (MALA(5, 0.1, proposals=3), 6, 4),  # energies alone, of the start and of each proposal
    ],
)
def test_a_chain_costs_the_same_eager_and_traced(model, sampler, gradients, plain, kind):
    z = torch.randn(3, 4)
    with Tally(model) as tally:
        for times in (1, 2):  # the second time the trace is there
            replace(sampler, backend=kind)(potential(model), z, noise=1, networks=model.values(), white=True)
            each = times * 3 * (2 * gradients + plain)
            assert tally.networks == {"vae": each, "energy": each}
    assert tally.total == 2 * each


def test_training_is_still_traced_and_a_trace_from_before_is_counted_too(model):
    z, sampler = torch.randn(3, 4), Langevin(60, 0.1)
    sampler(potential(model), z, noise=1, networks=model.values())
    (before,) = backend._traces.values()
    assert isinstance(before, backend.Trace)
    with Tally(model) as tally:
        counted = sampler(potential(model), z, noise=1, networks=model.values())
        (during,) = backend._traces.values()
        sampler(potential(model), z, noise=1, networks=model.values())
    assert isinstance(during, backend.Trace) and tally.total == 2 * 60 * 3 * 2 * 2
    (after,) = backend._traces.values()
    assert after is during  # recorded once more at most
    assert torch.equal(sampler(potential(model), z, noise=1, networks=model.values()).x, counted.state)
    assert tally.total == 2 * 60 * 3 * 2 * 2  # no more once it is over


def test_hooks_of_others_still_forbid_a_trace(model):
    model["energy"].register_forward_hook(lambda *_: None)
    with Tally(model), pytest.raises(ValueError, match="MLPEnergy has hooks"):
        Langevin(2, 0.1, backend="trace")(potential(model), torch.randn(3, 4), networks=model.values())


def test_forwards_without_a_graph_are_one_and_copies_are_not_counted(model):
    x = torch.randn(7, *IMAGE)
    with Tally(model) as tally:
        twin = copy.deepcopy(model)
        twin["energy"](x)
        assert tally.total == 0
        with torch.no_grad():
            model["energy"](x)
        assert tally.networks == {"energy": 7}
        model["energy"](x)
    assert tally.networks == {"energy": 7 + 14}
    assert not any(part._forward_hooks for part in model.modules())
