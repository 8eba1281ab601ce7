"""A kept program follows its tensors and is of these numbers: nothing of what it was recorded from is left in it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam

from ebmzoo.mcmc import Langevin, Potential, Tethered
from ebmzoo.networks import MLPDecoder
from ebmzoo.parts.potentials import Posterior

from .examples import IMAGE, Two, assert_backends_agree, assert_same, kept, made

TRACE = Langevin(2, 0.1, backend="trace")


def test_buffers_that_move_in_training_are_read_anew():
    torch.manual_seed(0)
    decoder, z = MLPDecoder(IMAGE, 4, width=16, depth=1, norm="batch"), torch.randn(3, 4)
    potential = Posterior(decoder, torch.randn(3, *IMAGE), 25.0)
    before = assert_backends_agree(Langevin(3, 0.01), potential, z)
    decoder(torch.randn(20, 4))
    assert not torch.equal(assert_backends_agree(Langevin(3, 0.01), potential, z).x, before.x)
    assert len(kept()) == 1


def in_place(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)


def data_written(net):
    for parameter in net.parameters():
        parameter.data.mul_(1.1)


def data_swapped(net):
    for parameter in net.parameters():
        parameter.data = parameter.data + 0.1


def by_numpy(net):
    for parameter in net.parameters():
        parameter.detach().numpy()[...] += 0.1


def loaded(net):
    net.load_state_dict({key: value + 0.1 for key, value in net.state_dict().items()})


def loaded_by_assignment(net):
    net.load_state_dict({key: value + 0.1 for key, value in net.state_dict().items()}, assign=True)


def by_fused_adam(net):
    optimiser = Adam(net.parameters(), 0.1, fused=True)  # moves no version counter
    net(torch.ones(3, *IMAGE)).sum().backward()
    optimiser.step()


def by_descent(net):
    net(torch.ones(3, *IMAGE)).sum().backward()
    SGD(net.parameters(), 0.1).step()


def moved(net):
    net.double()


def relaid(net):
    net.net[2].weight.data = net.net[2].weight.data.t().contiguous().t()


def rescaled(net):
    net.input_scale = 3.0


def rebuilt(net):
    net.net[1] = nn.Tanh()


def grown(net):
    parametrize.register_parametrization(net.net[0], "weight", nn.Tanh())


VALUES = [in_place, data_written, data_swapped, by_numpy, loaded, loaded_by_assignment, by_fused_adam, by_descent]
CHANGES = [moved, relaid, rescaled, rebuilt, grown]


@pytest.mark.parametrize("change", [*VALUES, *CHANGES], ids=lambda change: change.__name__)
def test_a_kept_program_follows_what_becomes_of_the_network(change):
    net, x = made("mlp")
    before = TRACE(net, x, noise=1)
    TRACE(net, x, noise=1)
    assert len(kept()) == 1  # one program for both
    change(net)
    if change is moved:
        x = x.double()
    after = TRACE(net, x, noise=1)
    assert_same(after, replace(TRACE, backend="eager")(net, x, noise=1))
    assert change is relaid or not torch.equal(before.x, after.x.float())
    assert len(kept()) == (1 if change in VALUES else 2)


def test_weights_of_a_parametrisation_are_read_anew():
    net, x = made("mlp_sn")
    before = assert_backends_agree(TRACE, net, x)
    for change in (in_place, lambda net: net.train()(x)):  # the second moves the norm's vectors alone
        change(net)
        after = assert_backends_agree(TRACE, net, x)
        assert not torch.equal(before.x, after.x)
        before = after
    assert len(kept()) == 1


def test_copies_of_one_architecture_share_a_program():
    net, x = made("mlp")
    twin = copy.deepcopy(net)
    in_place(twin)
    one, other = assert_backends_agree(TRACE, net, x), assert_backends_agree(TRACE, twin, x)
    assert not torch.equal(one.x, other.x)
    assert_same(TRACE(net, x, noise=1), one)  # what the other baked is not in it
    assert len(kept()) == 1


def test_what_a_potential_is_conditioned_on_is_read_anew():
    net, x = made("mlp")
    origin = torch.randn_like(x)
    states = [assert_backends_agree(TRACE, Tethered(net, origin, 0.3), x).x]
    potential = Tethered(net, 2 * origin, 0.3)
    states.append(assert_backends_agree(TRACE, potential, x).x)
    potential.origin = 3 * origin
    states.append(assert_backends_agree(TRACE, potential, x).x)
    potential.origin.add_(1.0)
    states.append(assert_backends_agree(TRACE, potential, x).x)
    potential.origin = x  # the very tensor where the chain begins
    states.append(assert_backends_agree(TRACE, potential, x).x)
    assert len(kept()) == 1
    potential.origin = torch.zeros(1, *IMAGE)
    states.append(assert_backends_agree(TRACE, potential, x).x)
    potential.weight = 0.9
    states.append(assert_backends_agree(TRACE, potential, x).x)
    assert len(kept()) == 3 and len({tuple(state.flatten().tolist()) for state in states}) == 7


@pytest.mark.parametrize("deep", [False, True])
def test_numbers_are_written_into_a_program_each_into_its_own(deep):
    class Scaled(Potential):
        def __init__(self, weight):
            super().__init__()
            self.held = {"weight": [weight]} if deep else weight

        def forward(self, x):
            weight = self.held["weight"][0] if deep else self.held
            return (x.square() * weight).sum(1)

    x = torch.ones(3, 2)
    for number in (1, 1.0, True, 0.0, -0.0):
        assert_backends_agree(TRACE, Scaled(number), x)
    assert len(kept()) == 5
    for number in (1, 1.0, True, 0.0, -0.0):
        assert_backends_agree(TRACE, Scaled(number), x)
    assert len(kept()) == 5


def test_batches_dtypes_and_layouts_of_the_state_have_programs_of_their_own():
    net, x = made("mlp")
    for state in (x, x[:2], x.double(), x.expand(3, *IMAGE)):
        assert_backends_agree(TRACE, net.double() if state.dtype == torch.float64 else net.float(), state)
    assert len(kept()) == 3  # a state is contiguous


def test_one_tensor_in_two_places_is_not_two_tensors():
    x, a, b = torch.randn(3, 2), torch.randn(3, 2), torch.randn(3, 2)
    for pair in ((a, a), (a, b), (b, a), (b, b)):
        assert_backends_agree(TRACE, Two(*pair), x)
    assert len(kept()) == 2
    shared, one, other = Two(a, a), Two(b, b), Two(a, b)
    chains = [assert_backends_agree(TRACE, potential, x).x for potential in (shared, one, other)]
    assert len({tuple(chain.flatten().tolist()) for chain in chains}) == 3 and len(kept()) == 2
