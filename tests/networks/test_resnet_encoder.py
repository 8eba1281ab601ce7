"""EC-VAE's encoder against its layer list, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ebmzoo.networks import (
    ResNetEncoder,
)


def test_encoder_is_a_resnet_that_halves_first():
    torch.manual_seed(0)
    encoder = ResNetEncoder((3, 32, 32), 5, width=4).double().eval()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    stem, norm, _, *blocks = encoder.body
    h = torch.relu(norm(F.conv2d(x, stem.weight, stride=2, padding=1)))
    shapes = [tuple(h.shape[1:])]
    for index, block in enumerate(blocks):
        conv1, norm1, _, conv2, norm2 = block.branch
        stride = 2 if index in (2, 4, 6) else 1
        branch = torch.relu(norm1(F.conv2d(h, conv1.weight, stride=stride, padding=1)))
        branch = norm2(F.conv2d(branch, conv2.weight, padding=1))
        skip = h if stride == 1 else block.skip[1](F.conv2d(h, block.skip[0].weight, stride=2))
        h = torch.relu(branch + skip)
        shapes.append(tuple(h.shape[1:]))
    assert shapes[0] == shapes[1] == shapes[2] == (4, 16, 16)
    assert shapes[4:9:2] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    pooled = h.mean(dim=(2, 3))
    mean, log_variance = encoder(x)
    head = encoder.mean[0]
    torch.testing.assert_close(mean, torch.tanh(pooled @ head.weight.T + head.bias), rtol=1e-12, atol=1e-14)
    linear = encoder.log_variance
    torch.testing.assert_close(log_variance, pooled @ linear.weight.T + linear.bias, rtol=1e-12, atol=1e-14)


def test_encoder_starts_from_small_normal_weights():
    torch.manual_seed(0)
    encoder = ResNetEncoder((3, 16, 16), 64, width=32, stages=2)
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert layer.bias is None or not layer.bias.any()


def test_encoder_mean_may_be_free():
    torch.manual_seed(0)
    bounded = ResNetEncoder((3, 16, 16), 5, width=4).eval()
    free = ResNetEncoder((3, 16, 16), 5, width=4, mean="linear").eval()
    free.load_state_dict(bounded.state_dict())
    x = 100 * torch.randn(4, 3, 16, 16)
    assert torch.equal(free(x)[0].tanh(), bounded(x)[0])
