"""The residual energies of VAEBM and EC-VAE against their tables, written out with plain functions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks import (
    ConvEnergy,
    FastGANDecoder,
    MultiScaleResNetEnergy,
    SNGANEncoder,
    SNGANEnergy,
    VAEBMEnergy,
)

from .plain import same


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def vaebm(column: str = "cifar10", size: int = 16, width: int = 6) -> tuple[VAEBMEnergy, Tensor]:
    torch.manual_seed(0)
    return VAEBMEnergy((3, size, size), column, width).double(), torch.rand(8, 3, size, size).double() * 2 - 1


@pytest.mark.parametrize("column", ["cifar10", "celeba64", "lsun64"])
def test_vaebm_energy_is_table_7_with_pooling_after_the_sum(column):
    energy, x = vaebm(column)

    def swish(h: Tensor) -> Tensor:
        return h * torch.sigmoid(h) / 1.1

    h = swish(same(energy.stem, x))
    downs = {"cifar10": {0, 2, 4}, "celeba64": {0, 2, 4, 6}, "lsun64": {0, 2, 5, 8}}[column]
    for index, block in enumerate(energy.blocks):
        branch = same(block.conv2, swish(same(block.conv1, h)))
        skip = h if isinstance(block.skip, nn.Identity) else same(block.skip, h)
        h = branch + skip
        h = swish(F.avg_pool2d(h, 2) if index in downs else h)
    expected = h.sum(dim=(2, 3)) @ energy.linear.weight[0] + energy.linear.bias
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-12)


def conv_outputs(energy: VAEBMEnergy, x: Tensor) -> list[tuple[nn.Conv2d, Tensor]]:
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, _: seen.append((layer, same(layer, inputs[0]))))
        for layer in convolutions(energy)
    ]
    energy(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_initialise_gives_every_convolution_a_deviation_of_a_fifth():
    energy, x = vaebm()
    energy.initialise(x)
    outputs = conv_outputs(energy, x)
    assert len(outputs) == len(convolutions(energy)) == 1 + 2 * 6 + 3
    for layer, y in outputs:
        std = y.std(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(std, torch.full_like(std, 0.2), rtol=1e-10, atol=0)
        if layer.bias is not None:
            assert y.mean(dim=(0, 2, 3)).abs().max() < 1e-12


def test_initialise_happens_once_and_survives_a_state_dict():
    energy, x = vaebm()
    energy.initialise(x)
    state = copy.deepcopy(energy.state_dict())
    torch.manual_seed(5)
    restored = VAEBMEnergy((3, 16, 16), width=6).double()
    assert not restored.initialised
    restored.load_state_dict(state)
    for network in (energy, restored):
        network.initialise(3 * x + 1)
        assert network.initialised
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(energy(x), restored(x))


def test_initialise_and_penalty_are_exact_under_autocast():
    torch.manual_seed(0)
    plain = VAEBMEnergy((3, 16, 16), width=6)
    mixed = copy.deepcopy(plain)
    x = torch.rand(8, 3, 16, 16)
    plain.initialise(x)
    penalty = plain.spectral_penalty()
    with torch.autocast("cpu", torch.bfloat16):
        mixed.initialise(x)
        assert torch.equal(mixed.spectral_penalty(), penalty)
        assert mixed(x).dtype == torch.bfloat16
    assert all(torch.equal(value, mixed.state_dict()[name]) for name, value in plain.state_dict().items())


def test_forward_works_before_initialise_and_leaves_no_hooks_after():
    energy, x = vaebm()
    assert energy(x).isfinite().all()
    with pytest.raises(ValueError, match="was built for"):
        energy.initialise(x[:, :1])
    assert not energy.initialised
    before = energy(x)
    assert torch.equal(energy(x), before)


def test_spectral_penalty_is_the_sum_of_largest_singular_values():
    energy, x = vaebm()
    energy.initialise(x)
    for _ in range(150):
        penalty = energy.spectral_penalty()
    expected = sum(torch.linalg.svdvals(layer.weight.flatten(1))[0] for layer in convolutions(energy))
    torch.testing.assert_close(penalty, expected, rtol=1e-8, atol=0)
    assert sum(layer.kernel_size == (1, 1) for layer in convolutions(energy)) == 3
    penalty.backward()
    assert energy.linear.weight.grad is None
    assert all(energy.get_parameter(name).grad is not None for name in gains(energy))


def gains(energy: VAEBMEnergy) -> list[str]:
    return [name for name, _ in energy.named_parameters() if name.endswith("log_gain")]


def test_penalty_of_gains_is_its_own_slope():
    # Spectral norms are homogeneous in the gains: the derivative along all log-gains is the penalty itself.
    energy, _ = vaebm()
    for _ in range(10):
        penalty = energy.spectral_penalty()
    penalty.backward()
    slope = sum(energy.get_parameter(name).grad.sum() for name in gains(energy))
    torch.testing.assert_close(slope, penalty.detach(), rtol=1e-8, atol=0)


def test_first_penalty_takes_40_power_iterations_and_later_ones_4():
    energy, _ = vaebm()
    layer = energy.stem
    matrix = layer.weight.detach().flatten(1)

    def iterate(u: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            u = F.normalize(matrix @ F.normalize(matrix.T @ u, dim=0), dim=0)
        return u

    buffer = energy.get_buffer("stem.parametrizations.weight.0.u")
    start = buffer.clone()
    energy.spectral_penalty()
    torch.testing.assert_close(buffer, iterate(start, 40), rtol=1e-12, atol=1e-14)
    buffer.copy_(start)
    energy.spectral_penalty()
    torch.testing.assert_close(buffer, iterate(start, 4), rtol=1e-12, atol=1e-14)
    assert "stem.parametrizations.weight.0.u" in energy.state_dict()
    assert {"initialised", "penalised"} <= set(energy.state_dict())


def test_multi_scale_energy_is_its_layer_list():
    torch.manual_seed(0)
    energy = MultiScaleResNetEnergy((3, 16, 16), width=4, multipliers=(1, 2, 2), scales=2, head=16)
    energy = energy.double().eval()
    x = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    features = []
    for scale, tower in enumerate(energy.towers):
        first, *blocks, _ = tower
        h = same(first, F.avg_pool2d(x, 2**scale) if scale else x)
        for index, block in enumerate(blocks):
            if index in (2, 4):  # before the second and the third stage of two blocks
                h = F.avg_pool2d(h, 2)
            branch = same(block.conv2, F.leaky_relu(same(block.conv1, F.leaky_relu(h, 0.2)), 0.2))
            h = branch + (same(block.skip, h) if isinstance(block.skip, nn.Conv2d) else h)
        features.append(F.leaky_relu(h, 0.2).mean(dim=(2, 3)))
    hidden = F.leaky_relu(torch.cat(features, dim=1) @ energy.head[0].weight.T + energy.head[0].bias, 0.2)
    expected = (hidden @ energy.head[2].weight.T + energy.head[2].bias)[:, 0]
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-14)


def singular_value(layer: nn.Module) -> float:
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    return torch.linalg.svdvals(weight.flatten(1).detach())[0].item()


@pytest.mark.parametrize(
    "network",
    [
        lambda: MultiScaleResNetEnergy((3, 8, 8), width=4, multipliers=(1, 2), blocks=1, scales=2, head=16),
        lambda: FastGANDecoder((3, 8, 8), 6, width=1),
        lambda: FastGANDecoder((3, 128, 128), 6, width=2),
        lambda: ConvEnergy((3, 16, 16), width=4),
        lambda: SNGANEnergy((3, 16, 16), width=4),
        lambda: SNGANEncoder((3, 64, 64), 6, width=1),
    ],
    ids=["energy", "decoder", "decoder-excitation", "conv-energy", "sngan-energy", "sngan-encoder"],
)
def test_spectral_norm_holds_every_layer_after_training_forwards(network):
    torch.manual_seed(0)
    network = network().double()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(10)
            for _ in range(400):  # what a training forward does to the vectors, layer by layer
                layer.weight  # noqa: B018
    assert all(singular_value(layer) == pytest.approx(1, abs=1e-4) for layer in layers)


def test_multi_scale_energy_starts_as_published():
    torch.manual_seed(0)
    energy = MultiScaleResNetEnergy((3, 16, 16), width=32, multipliers=(1, 2), blocks=1, scales=1, head=512)
    for layer in energy.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.parametrizations.weight.original
            expected = 0.01 if isinstance(layer, nn.Linear) else weight[0].numel() ** -0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.1)
            assert layer.bias is None or not layer.bias.any()
