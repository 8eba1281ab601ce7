"""Modules are put in eval mode without parameter gradients for a while, and get back the very flags they had."""

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import frozen


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.SiLU(), nn.Conv2d(4, 1, 3)))


def test_every_flag_is_restored_also_on_an_exception():
    net = network()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        raise KeyError
    assert [part.training for part in net] == [True, False, True] and net.training and net[2][1].training
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad


def test_several_modules_one_within_another_and_one_within_the_context_of_itself():
    net = network()
    with frozen(net, net[2]):
        with frozen(net[0]):
            assert not net[0].training
        assert not net[0].training and not net[0].weight.requires_grad
    assert all(part.training for part in net.modules()) and all(p.requires_grad for p in net.parameters())


def test_gradients_of_what_goes_in_are_still_there():
    net, x = network(), torch.randn(2, 3, 8, 8, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in net.parameters())
