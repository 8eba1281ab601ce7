"""Multilayer perceptrons: structure, fixed scales, choices by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_of_the_25_gaussians_have_four_linear_layers_of_256():
    hidden = 2 * (256 * 256 + 256)
    assert parameters(MLPEnergy((2,))) == (2 * 256 + 256) + hidden + (256 + 1)
    assert parameters(MLPEncoder((2,), 20)) == (2 * 256 + 256) + hidden + (256 * 40 + 40)
    assert parameters(MLPDecoder((2,), 20)) == (20 * 256 + 256) + hidden + (256 * 2 + 2)
    assert sum(isinstance(layer, nn.Linear) for layer in MLPEnergy((2,)).modules()) == 4


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_depth_counts_hidden_layers(depth):
    energy = MLPEnergy((1, 8, 8), width=16, depth=depth)
    assert sum(isinstance(layer, nn.Linear) for layer in energy.modules()) == depth + 1
    assert energy(torch.zeros(3, 1, 8, 8)).shape == (3,)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", lambda h: torch.where(h > 0, h, 0.2 * h)),
        ("silu", lambda h: h * torch.sigmoid(h)),
        ("elu", lambda h: torch.where(h > 0, h, h.exp() - 1)),
        ("tanh", torch.tanh),
    ],
)
def test_energy_is_the_formula_of_a_perceptron(name, function):
    torch.manual_seed(0)
    energy = MLPEnergy((2,), width=5, depth=1, activation=name, input_scale=3.0).double()
    x = torch.randn(7, 2, dtype=torch.float64)
    (w1, b1), (w2, b2) = [(layer.weight, layer.bias) for layer in energy.modules() if isinstance(layer, nn.Linear)]
    expected = function(3 * x @ w1.T + b1) @ w2[0] + b2
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-14)


def test_encoder_scales_its_input_and_returns_mean_and_log_variance():
    torch.manual_seed(0)
    encoder = MLPEncoder((1, 4, 4), 3, width=8, input_scale=0.5).double()
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    both = encoder.net(0.5 * x.flatten(1))
    mean, log_variance = encoder(x)
    assert torch.equal(mean, both[:, :3])
    assert torch.equal(log_variance, both[:, 3:])


def test_tanh_output_is_the_tanh_of_the_linear_one():
    torch.manual_seed(0)
    linear = MLPDecoder((1, 8, 8), 4, width=8)
    bounded = MLPDecoder((1, 8, 8), 4, width=8, output="tanh")
    bounded.load_state_dict(linear.state_dict())
    z = 10 * torch.randn(5, 4)
    assert torch.equal(bounded(z), linear(z).tanh())


def test_batch_norm_sits_before_every_activation():
    for network in (MLPEncoder((2,), 3, depth=2, norm="batch"), MLPDecoder((2,), 3, depth=2, norm="batch")):
        kinds = [type(layer).__name__ for layer in network.net]
        assert kinds == ["Linear", "BatchNorm1d", "SiLU"] * 2 + ["Linear"]


def test_spectral_norm_bounds_the_slope():
    torch.manual_seed(0)
    energy = MLPEnergy((2,), width=32, activation="leaky_relu", input_scale=2.0, spectral_norm=True).double()
    with torch.no_grad():
        for layer in energy.net:
            if isinstance(layer, nn.Linear):
                layer.parametrizations.weight.original.mul_(50)
    x = torch.randn(256, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        energy(x.detach())
    (slope,) = torch.autograd.grad(energy.eval()(x).sum(), x)
    assert slope.norm(dim=1).max() <= 2.0 * (1 + 1e-6)
    for layer in energy.net:
        if isinstance(layer, nn.Linear):
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-6)


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(ValueError, match="unknown activation 'gelu': choose one of relu, leaky_relu, silu"):
        MLPEnergy((2,), activation="gelu")
    with pytest.raises(ValueError, match="unknown output 'sigmoid': choose one of linear, tanh"):
        MLPDecoder((2,), 3, output="sigmoid")
    with pytest.raises(ValueError, match="unknown norm 'layer': choose one of batch"):
        MLPEncoder((2,), 3, norm="layer")
