"""Makers as arguments: classes, callables and plain data, and plain data again."""

from functools import partial

import pytest
import torch
from torch import nn

from ebmzoo.factories import build, class_path, parameters_of, plain, spec
from ebmzoo.mcmc import HMC, Langevin


def test_a_maker_is_called_whatever_its_form():
    made = [
        build(nn.Linear, 2, 3),
        build(partial(nn.Linear, 2), 3),
        build(lambda inputs, outputs: nn.Linear(inputs, outputs), 2, 3),
        build(spec(nn.Linear, bias=True), 2, 3),
        build({"class_path": "torch.nn.Linear"}, 2, 3),
    ]
    assert all(type(one) is nn.Linear and one.weight.shape == (3, 2) and one.bias is not None for one in made)
    network = nn.Linear(1, 1)
    assert build(network, "what it is not asked") is network


def test_what_no_file_holds_is_named():
    with pytest.raises(ValueError, match="mine was given as a function or an instance, which no file holds"):
        build({"callable": "mine"})


def test_what_is_built_of_plain_data_is_what_they_were_made_of():
    for value in (nn.SiLU, partial(nn.Linear, bias=False), spec(torch.optim.Adam, lr=0.1, betas=[0.0, 0.9])):
        data = plain(value)
        assert data == plain(data) and data["class_path"].startswith("torch.")
    assert build(plain(partial(nn.Linear, bias=False)), 2, 3).bias is None
    sampler = HMC(steps=3, leapfrogs=2)
    assert build(plain(sampler)) == sampler and plain(sampler)["class_path"] == class_path(HMC)
    values = {1: (1.5, None), "a": [True, "b", Langevin(steps=2)]}
    found = plain(values)
    assert found["1"] == [1.5, None] and found["a"][:2] == [True, "b"]
    assert found["a"][2]["init_args"]["steps"] == 2


def test_what_is_no_class_becomes_its_name():
    assert plain(build) == {"callable": "build"}
    assert plain(nn.Linear(1, 1)) == {"callable": "Linear"}
    assert plain(partial(build, nn.Linear)) != {"callable": "build"}  # a command line's maker
    assert plain(partial(nn.Linear, 2)) == {"callable": "partial"}  # a number without a name would be lost


def test_parameters_of_modules_and_of_bare_ones_in_order():
    first, second = nn.Linear(1, 2), nn.Parameter(torch.zeros(3))
    assert [*map(id, parameters_of([second, first]))] == [id(second), id(first.weight), id(first.bias)]
    assert parameters_of([]) == []
