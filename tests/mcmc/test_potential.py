"""Potentials: what can be one, what they return, and the parts of which some are made."""

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import Langevin, Potential, Row, Tethered, frozen
from ebmzoo.mcmc.potential import Function, Network, as_potential, per_example, squared_norm

START = torch.linspace(-1, 1, 8).view(4, 2)


def quartic(x):
    return (x**4).flatten(1).sum(1)


class Quartic(Potential):
    def forward(self, x):
        return quartic(x)


class Redrawn(Quartic):
    redraws = True

    def refresh(self, x, noise, level=None):
        self.eps = noise.normal(x.shape, x)


def test_energy_and_gradient_are_new_tensors_without_a_graph():
    x = START.clone().requires_grad_()
    with torch.no_grad():
        energy, grad = Quartic().value_and_grad(x)
    torch.testing.assert_close(energy, quartic(START))
    torch.testing.assert_close(grad, 4 * START**3)
    assert not energy.requires_grad and not grad.requires_grad and x.grad is None
    # A gradient that autograd would hand out as one number for all is written out.
    _, grad = as_potential(lambda x: x.sum(1)).value_and_grad(START)
    assert grad.is_contiguous() and torch.equal(grad, torch.ones(4, 2))


def test_a_potential_a_network_a_function_and_a_method_of_a_module():
    torch.manual_seed(0)
    network, potential = nn.Linear(2, 1), Quartic()
    assert as_potential(potential) is potential
    assert type(as_potential(network)) is Network and list(as_potential(network).modules())[1] is network
    assert type(as_potential(quartic)) is Function and not list(as_potential(quartic).children())

    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.seen = network, []

        def energy(self, x):
            self.seen.append(self.training)
            return self.network(x)

    owner = Owner()
    chains = [Langevin(2, 0.1)(one, START, noise=0) for one in (network, owner.energy, as_potential(owner.energy))]
    assert all(torch.equal(chain.x, chains[0].x) for chain in chains)
    assert owner.seen == 4 * [False] and owner.training and network.weight.requires_grad  # frozen, and as it was
    assert network.weight.grad is None


@pytest.mark.parametrize("backend", ["eager", "trace"])
def test_a_column_of_energies_is_taken_for_one_each(backend):
    torch.manual_seed(0)
    column = nn.Linear(2, 1)
    flat = nn.Sequential(column, nn.Flatten(0))
    found, expected = (Langevin(6, 0.1, backend=backend)(net, START, noise=0) for net in (column, flat))
    assert found.energy.shape == (4,)
    assert torch.equal(found.x, expected.x) and torch.equal(found.energy, expected.energy)
    tethered = [Tethered(net, START, 0.5)(START + 1) for net in (column, flat, lambda x: column(x))]
    assert tethered[0].shape == (4,) and all(torch.equal(tethered[0], other) for other in tethered)
    with pytest.raises(ValueError, match=r"shape \(4,\), not \(4, 2\)"):
        Langevin(6, 0.1, backend=backend)(nn.Linear(2, 2), START)
    one = Langevin(1, 0.1, backend=backend)(column, START[:1], noise=0)
    assert one.energy.shape == (1,)


def test_energies_are_fp32_at_least():
    assert Quartic().value_and_grad(START.double())[0].dtype == torch.float64
    energy, grad = as_potential(lambda x: quartic(x).bfloat16()).value_and_grad(START)
    assert energy.dtype == grad.dtype == torch.float32


def test_a_tether_is_its_formula_in_any_shape():
    x = torch.arange(24.0).view(2, 3, 2, 2) / 10
    potential = Tethered(quartic, x.flip(0), 0.7)
    expected = quartic(x) + 0.35 * ((x - x.flip(0)) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(potential(x), expected)
    _, grad = potential.value_and_grad(x)
    torch.testing.assert_close(grad, 4 * x**3 + 0.7 * (x - x.flip(0)))


def test_a_row_holds_parts_of_any_shape_as_views():
    row = Row(((1, 2, 2), (), (3,)))
    parts = torch.randn(5, 1, 2, 2), torch.randn(5), torch.randn(5, 3)
    x = row.pack(parts[0], parts[1][:, None], parts[2])
    assert x.shape == (5, 8) and x.is_contiguous()
    assert torch.equal(x[:, :4].view(5, 1, 2, 2), parts[0]) and torch.equal(x[:, 4], parts[1])
    found = Row(((1, 2, 2), (1,), (3,))).parts(x)
    assert all(torch.equal(a, b) for a, b in zip(found, (parts[0], parts[1][:, None], parts[2]), strict=True))
    found[2].zero_()
    assert not x[:, 5:].any() and x[:, :5].all()
    with pytest.raises(RuntimeError, match="split"):
        row.parts(torch.zeros(5, 9))


def test_sums_and_shapes_of_each_example():
    x = torch.arange(12.0).view(2, 3, 2)
    assert squared_norm(x).tolist() == [sum(k * k for k in range(6)), sum(k * k for k in range(6, 12))]
    assert per_example(torch.tensor([1.0, 2.0]), x).shape == (2, 1, 1)


def test_what_it_cannot_be_is_refused_in_one_line():
    with pytest.raises(ValueError, match="Quartic knows no noise levels"):
        Quartic().refresh(START, None, 0.5)
    with pytest.raises(ValueError, match="need a potential that is white noise, tilted: Quartic"):
        Quartic().tilt(START)
    with pytest.raises(ValueError, match="Redrawn redraws: chains on it cannot be tethered"):
        Tethered(Redrawn(), START, 1.0)
    with pytest.raises(TypeError, match="Forgot has a refresh of its own: it must say redraws = True"):

        class Forgot(Quartic):
            def refresh(self, x, noise, level=None):
                self.eps = noise.normal(x.shape, x)


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.SiLU(), nn.Conv2d(4, 1, 3)))


def test_every_flag_is_restored_also_on_an_exception():
    net = convolutions()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        raise KeyError
    assert [part.training for part in net] == [True, False, True] and net.training and net[2][1].training
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad


def test_several_modules_one_within_another_and_one_within_the_context_of_itself():
    net = convolutions()
    with frozen(net, net[2]):
        with frozen(net[0]):
            assert not net[0].training
        assert not net[0].training and not net[0].weight.requires_grad
    assert all(part.training for part in net.modules()) and all(p.requires_grad for p in net.parameters())


def test_gradients_of_what_goes_in_are_still_there():
    net, x = convolutions(), torch.randn(2, 3, 8, 8, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in net.parameters())
