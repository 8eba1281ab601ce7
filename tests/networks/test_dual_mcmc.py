"""Dual-MCMC's networks against their layer lists, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks import DualMCMCEncoder, DualMCMCEnergy


@pytest.mark.parametrize(
    ("size", "width", "rows"),
    [
        (8, 3, [(3, 3, 1), (6, 4, 2)]),
        (32, 3, [(3, 3, 1), (6, 4, 2), (12, 4, 2), (24, 4, 2)]),
        (64, 3, [(3, 4, 2), (6, 4, 2), (12, 4, 2), (24, 4, 2)]),
        (256, 1, [(1, 4, 2), (2, 4, 2), (4, 4, 2), (8, 4, 2), (16, 4, 2), (32, 4, 2)]),
    ],
)
def test_encoder_is_its_layer_list(size, width, rows):
    """Rows: channels, kernel, stride."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    encoder = DualMCMCEncoder((3, size, size), 5, width).double()
    assert not any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in encoder.modules())
    h = x
    convs = [layer for layer in encoder.body if isinstance(layer, nn.Conv2d)]
    for conv, (channels, kernel, stride) in zip(convs, rows, strict=True):
        assert conv.weight.shape[0] == channels and conv.weight.shape[-1] == kernel
        assert not conv.bias.any()
        h = F.leaky_relu(F.conv2d(h, conv.weight, conv.bias, stride=stride, padding=1), 0.2)
    assert h.shape == (4, rows[-1][0], 4, 4)
    for head, part in zip((encoder.mean, encoder.log_variance), encoder(x), strict=True):
        expected = torch.einsum("bcij,ocij->bo", h, head.weight) + head.bias
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)


def test_encoder_starts_xavier_normal():
    torch.manual_seed(0)
    for layer in DualMCMCEncoder((3, 32, 32), 16, width=16).modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
            outputs, inputs, kernel, _ = layer.weight.shape
            expected = (2 / (kernel**2 * (inputs + outputs))) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)


def same(conv: nn.Conv2d, h: Tensor) -> Tensor:
    assert conv.bias is None
    return F.conv2d(h, conv.weight, padding=conv.weight.shape[-1] // 2)


@pytest.mark.parametrize(
    ("size", "width", "plan"),
    [
        (8, 4, [(4, True), (4, True), (4, False), (4, False)]),
        (32, 3, [(3, True), (3, True), (3, False), (3, False)]),
        (64, 2, [(2, True), (4, True), (8, True), (16, True), (32, True)]),
        (256, 1, [(1, True), (2, True), (4, True), (8, True), (16, True), (16, True), (16, True)]),
    ],
)
def test_energy_is_its_layer_list(size, width, plan):
    torch.manual_seed(0)
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    energy = DualMCMCEnergy((3, size, size), width).double()
    for _ in range(3):
        energy(x)  # the spectral vectors leave their start
    energy.eval()
    h = x
    for index, (block, (channels, down)) in enumerate(zip(energy.blocks, plan, strict=True)):
        branch = same(block.conv2, torch.relu(same(block.conv1, torch.relu(h) if index else h)))
        h = branch + (h if isinstance(block.skip, nn.Identity) else same(block.skip, h))
        h = F.avg_pool2d(h, 2) if down else h
        assert h.shape[1] == channels
    features = torch.relu(h).mean(dim=(2, 3))
    assert energy.linear.bias is None
    torch.testing.assert_close(energy(x), features @ energy.linear.weight[0], rtol=1e-10, atol=1e-12)
    normed = [layer for layer in energy.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert all(hasattr(layer, "parametrizations") for layer in normed)
