"""Keys: equal for the same function of x and the tensors, whatever the tensors hold; what cannot be told is refused."""

import copy
import enum
import math
from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim import SGD, Adam

from ebmzoo.mcmc import Potential, Tethered
from ebmzoo.mcmc.reading import Reading
from ebmzoo.mcmc.trace import Untraceable
from ebmzoo.networks import MLPEnergy

from .examples import Held, Spread, Two, linear

START = torch.linspace(-1, 1, 8).view(4, 2)


def energy(**settings):
    torch.manual_seed(0)
    return MLPEnergy((2,), width=8, **settings)


def key(potential):
    return Reading(potential).key


def stepped(make):
    def change(net):
        optimiser = make(net.parameters())
        net(START).sum().backward()
        optimiser.step()

    return change


def written(net):
    for parameter in net.parameters():
        parameter.data.mul_(1.1)


def replaced(net):
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter)


def exchanged(net):
    net.net[0].bias = nn.Parameter(torch.randn_like(net.net[0].bias))


def loaded(net):
    net.load_state_dict({name: value + 0.1 for name, value in net.state_dict().items()})


def assigned(net):
    net.load_state_dict({name: value + 0.1 for name, value in net.state_dict().items()}, assign=True)


def called(net):
    net.train()(START)  # the spectral norm's vectors move
    net.eval()


SAME = [stepped(partial(SGD, lr=0.1)), stepped(partial(Adam, lr=0.1, fused=True)), written, replaced, exchanged]


@pytest.mark.parametrize(
    "change", [*SAME, loaded, assigned, called], ids=lambda change: change.__qualname__.partition(".")[0]
)
def test_values_of_weights_and_buffers_are_no_part_of_a_key(change):
    net = energy(spectral_norm=True).eval()
    tethered = Tethered(net, START, 0.3)
    before, values = key(tethered), [value.clone() for value in net.state_dict().values()]
    change(net)
    assert any(not torch.equal(a, b) for a, b in zip(values, net.state_dict().values(), strict=True))
    assert key(tethered) == key(Tethered(net, torch.randn(4, 2), 0.3)) == before
    hash(before)


def test_copies_share_a_key_and_reading_finds_the_tensors_that_stand_there_now():
    net = energy()
    potential, twin = Tethered(net, START, 0.3), Tethered(copy.deepcopy(net), START.clone(), 0.3)
    reading = Reading(potential)
    assert reading.key == key(twin) and not reading.moving
    assert [standing.now for standing in reading.still][0] is potential.origin
    assert {id(standing.now) for standing in reading.still[1:]} == {id(parameter) for parameter in net.parameters()}
    potential.origin = other = torch.zeros(4, 2)
    assert reading.still[0].now is other
    put = tuple(torch.full_like(standing.now, 2.0) for standing in reading.still)
    with pytest.raises(KeyError), reading.put(put):
        assert potential.origin is put[0] and all((p == 2).all() for p in net.parameters())
        assert reading.holds(put)
        potential.origin = START
        assert not reading.holds(put)
        raise KeyError
    assert potential.origin is other and type(net.net[0].weight) is nn.Parameter


def other_number(potential):
    potential.weight = 0.9


def deep_number(potential):
    potential.network.input_scale = 3.0


def rebuilt(potential):
    potential.network.net[1] = nn.Tanh()


def grown(potential):
    parametrize.register_parametrization(potential.network.net[0], "weight", nn.Tanh())


def in_train_mode(potential):
    potential.network.net[0].train(not potential.network.net[0].training)


def of_another_width(potential):
    potential.network = MLPEnergy((2,), width=9)


def in_double(potential):
    potential.network.double()


def relaid(potential):
    potential.network.net[2].weight.data = potential.network.net[2].weight.data.t().contiguous().t()


def broadcast(potential):
    potential.origin = torch.zeros(1, 2)


def another_attribute(potential):
    potential.more = None


def another_function(potential):
    potential.function = torch.cos


CHANGES = [other_number, deep_number, rebuilt, grown, in_train_mode, of_another_width, in_double, relaid, broadcast]


@pytest.mark.parametrize("change", [*CHANGES, another_attribute, another_function], ids=lambda change: change.__name__)
def test_numbers_kinds_shapes_and_layouts_are(change):
    potential = Held(energy(), None)
    potential.weight, potential.origin, potential.function = 0.3, START, torch.sin
    before = key(potential)
    change(potential)
    assert key(potential) != before


def test_numbers_are_compared_by_kind_and_bits():
    def keys(wrap):
        values = [1, 1.0, True, 0.0, -0.0, 0, False, None, "1", b"1", math.nan, math.inf]
        return [key(Held(linear(), wrap(value))) for value in values], values

    @dataclass(frozen=True)
    class Settings:
        weight: object

    Pair = namedtuple("Pair", "weight")
    wraps = [lambda v: v, lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {v: 1}, Settings, Pair]
    for wrap in [*wraps, lambda v: partial(math.pow, v), lambda v: partial(math.pow, y=v)]:
        found, values = keys(wrap)
        assert len(set(found)) == len(values)
        assert found == keys(wrap)[0]  # nan is nan
    assert len({key(Held(linear(), wrap(1))) for wrap in wraps[:3]}) == 3


def test_which_tensor_stands_where_is_part_of_it():
    a, b = torch.randn(4, 2), torch.randn(4, 2)
    assert key(Two(a, a)) != key(Two(a, b))
    assert key(Two(a, b)) == key(Two(b, a)) == key(Two(a, a.clone()))
    assert len(Reading(Two(a, a)).still) == 1
    net, other = linear(), linear(1)
    assert key(Held(net, [net])) != key(Held(net, [other]))
    nested = Held(linear(), {"deep": [torch.zeros(2)]})
    reading = Reading(nested)
    with reading.put(tuple(torch.ones_like(standing.now) for standing in reading.still)):
        assert nested.held["deep"][0].tolist() == [1, 1]
    assert nested.held["deep"][0].tolist() == [0, 0]


def test_two_potentials_of_one_class_and_two_classes_of_one_form():
    class Other(Two):
        pass

    a, b = torch.randn(4, 2), torch.randn(4, 2)
    assert key(Two(a, b)) == key(Two(b.clone(), a)) != key(Other(a, b))


def test_what_moves_with_the_steps_is_a_redrawing_potentials_own():
    spread = Spread(linear())
    spread.refresh(START, torch_noise())
    reading = Reading(spread)
    assert {id(standing.now) for standing in reading.moving} == {id(spread.sigma), id(spread.eps)}
    assert len(reading.still) == 2
    spread.more = [torch.zeros(1)]
    spread.register_buffer("kept", torch.zeros(2))
    assert len(Reading(spread).moving) == 4

    class Still(Potential):
        def __init__(self):
            super().__init__()
            self.eps, self.sigma = torch.zeros(4, 2), torch.zeros(())

    assert not Reading(Still()).moving


def torch_noise():
    from ebmzoo.mcmc import as_noise

    return as_noise(0)


def test_functions_are_told_by_their_code():
    def of(function):
        return key(Held(linear(), function))

    assert of(F.silu) == of(F.silu) != of(F.softplus)
    assert of(torch.tanh) != of(torch.sin)
    assert of(lambda x: x) != of(lambda x: 2 * x)
    for make in (with_default, with_keyword):
        assert of(make(2.0)) == of(make(2.0)) != of(make(3.0))
    assert of(partial(F.elu, alpha=0.5)) != of(partial(F.elu, alpha=0.6))
    assert of(nn.Linear) != of(nn.Conv2d)


def hooked():
    net = linear()
    net.register_forward_hook(lambda *args: None)
    return net


def patched():
    net, weight = linear(), 2.0
    net.forward = lambda x: weight * x.sum(1)
    return net


class Colour(enum.Enum):
    RED = 1


def closure(weight):
    return lambda x: weight * x


def with_default(weight):
    def function(x, weight=weight):
        return weight * x

    return function


def with_keyword(weight):
    def function(x, *, weight=weight):
        return weight * x

    return function


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (hooked(), "Linear has hooks"),
        (patched(), r"it holds a function \(forward\)"),
        (closure(2.0), r"it holds a function \(held\), whose contents"),
        (with_default(torch.zeros(2)), "it holds a tensor where no other can be put"),
        (linear().forward, "it holds a method"),
        ([2.0].__getitem__, "it holds a builtin_function_or_method"),
        (np.ones(2), "it holds a ndarray"),
        (np.float64(2.0), "it holds a float64"),
        (object(), "it holds a object"),
        (Colour.RED, "it holds a Colour"),
        ({1.5}, "it holds a set"),
        ((torch.zeros(2),), "it holds a tensor where no other can be put"),
        (partial(torch.mul, torch.zeros(2)), "it holds a tensor where no other can be put"),
        (Tethered(lambda x: x.sum(1), torch.zeros(2), 1.0), "what a plain function reads cannot be compared"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_compared_is_refused(held, why):
    with pytest.raises(Untraceable, match=why):
        Reading(Held(linear(), held))


def test_hooks_that_only_look_and_those_of_checkpoints_are_none():
    net = parametrizations.weight_norm(linear())
    net.register_state_dict_post_hook(lambda *args: None)

    def look(module, inputs, output, times=1):
        pass

    look.observes = True
    before = key(Held(net, None))
    handles = [net.register_forward_hook(look), net.register_forward_hook(partial(look))]
    assert key(Held(net, None)) == before
    for handle in handles:
        handle.remove()
