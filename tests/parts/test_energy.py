"""The energy as a part: its loss with data noise and penalties, its contrasts, its first scales."""

import pytest
import torch
from torch import nn

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.networks import MLPEnergy, VAEBMEnergy
from ebmzoo.parts import Energy
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.objectives import EnergyL2, Penalty

SHAPE = (1, 4, 4)
NETWORK = spec(MLPEnergy, width=6, depth=1)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
Y = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1)).double() - 1


def energy(**settings):
    torch.manual_seed(0)
    return Energy(SHAPE, NETWORK, **settings).double()


def test_the_loss_is_the_gap_of_noisy_data_and_negatives():
    part = energy(data_noise=0.1, penalties=[EnergyL2(0.2)])
    loss, seen = part.loss(X, Y[:5], as_noise(2))
    noisy = X + 0.1 * as_noise(2).normal(X.shape, X)
    data, model = part.network(noisy).flatten(), part.network(Y[:5]).flatten()
    expected = data.mean() - model.mean() + 0.2 * (data.square() + model.square()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(seen["train/energy_data"], data, rtol=1e-12, atol=0)
    torch.testing.assert_close(seen["train/energy_model"], model, rtol=1e-12, atol=0)
    torch.testing.assert_close(seen["train/energy_gap"], data.mean() - model.mean(), rtol=1e-12, atol=0)
    assert seen["train/loss_energy"] is loss and len(seen) == 4
    assert loss.requires_grad


def test_the_hinge_is_another_contrast():
    part = energy(contrast="hinge")
    data, model = part(X), part(Y[:5])
    expected = (torch.relu(1 + data) + torch.relu(1 - model)).mean()
    torch.testing.assert_close(part.loss(X, Y[:5], as_noise(0))[0], expected, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="unknown contrast 'wgan': choose one of gap, hinge"):
        energy(contrast="wgan")


def test_a_penalty_gets_what_the_loss_was_made_of_and_the_noise_after_the_datas():
    seen = []

    class Spy(Penalty):
        def __call__(self, *given):
            seen.append(given)
            return given[2].normal((1,)).sum()

    part = energy(data_noise=0.5, penalties=[Spy(), Spy()])
    loss, logged = part.loss(X, Y[:5], as_noise(2))
    noise = as_noise(2)
    noisy = X + 0.5 * noise.normal(X.shape, X)
    for network, (data, negatives, of_data, of_model), _ in seen:
        assert network is part.network and torch.equal(data, noisy) and torch.equal(negatives, Y[:5])
        assert torch.equal(of_data, logged["train/energy_data"]) and torch.equal(of_model, logged["train/energy_model"])
    drawn = noise.normal((1,)) + noise.normal((1,))
    torch.testing.assert_close(loss, logged["train/energy_gap"] + drawn.double().sum())


def test_one_energy_an_example_of_fp32_at_least():
    part = energy()
    assert part(X).shape == (5,) and part(X).dtype == torch.float64
    torch.testing.assert_close(part(X), part.network(X).flatten())
    single = part.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert single(X.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="one energy per example, shape \\(5,\\), not \\(5, 2\\)"):
        Energy(SHAPE, nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))(X.float())
    assert set(part.validate(X.float(), as_noise(0))) == {"energy_data"}
    torch.testing.assert_close(part.validate(X.float(), as_noise(0))["energy_data"], part(X.float()))


def test_an_energy_is_made_of_its_maker_a_network_or_itself():
    made = energy_of(spec(Energy, network=NETWORK, data_noise=0.3), SHAPE)
    assert type(made) is Energy and made.data_noise == 0.3
    bare = energy_of(NETWORK, SHAPE)
    assert type(bare) is Energy and isinstance(bare.network, MLPEnergy)
    assert (bare.data_noise, bare.penalties, bare.contrast) == (0.0, [], "gap")
    assert energy_of(made, SHAPE) is made
    network = MLPEnergy(SHAPE)
    assert energy_of(network, SHAPE).network is network


def test_first_scales_are_of_the_batches_of_all_processes_and_taken_once():
    def two(x):
        return torch.stack([x, 3 * x])  # what another process has

    torch.manual_seed(0)
    part = Energy((3, 8, 8), spec(VAEBMEnergy, column="stacked_mnist", width=4)).double()
    expected = Energy((3, 8, 8), spec(VAEBMEnergy, column="stacked_mnist", width=4)).double()
    expected.load_state_dict(part.state_dict())
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    part.take_scales(x, two)
    expected.network.initialise(torch.cat([x, 3 * x]))
    assert all(torch.equal(a, b) for a, b in zip(part.parameters(), expected.parameters(), strict=True))
    kept = [p.clone() for p in part.parameters()]
    part.take_scales(5 * x, two)
    assert all(torch.equal(a, b) for a, b in zip(part.parameters(), kept, strict=True))
    other = energy()
    other.take_scales(X, lambda x: pytest.fail("a network without scales needs no other processes"))


def test_an_energy_that_clamps_sees_no_value_that_no_image_has():
    """Data with their noise and negatives are clamped to [-1, 1]; points, which have no range, are not."""
    part = energy(data_noise=0.5, clamps=True)
    x = 1.5 * X
    assert torch.equal(part(x), part.network(x.clamp(-1, 1)).flatten()) and not torch.equal(part(x), energy()(x))
    loss, _ = part.loss(x, 2 * Y[:5], as_noise(2))
    noisy = (x + 0.5 * as_noise(2).normal(x.shape, x)).clamp(-1, 1)
    expected = part.network(noisy).mean() - part.network((2 * Y[:5]).clamp(-1, 1)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    points = Energy((2,), NETWORK, clamps=True)
    far = torch.full((3, 2), 4.0)
    assert torch.equal(points(far), points.network(far).flatten())
    assert not energy_of(NETWORK, SHAPE).clamps
