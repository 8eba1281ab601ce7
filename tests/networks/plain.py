"""What layer lists are written out with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def images(size: int) -> Tensor:
    return torch.randn(4, 3, size, size, dtype=torch.float64)


def moved(network: nn.Module, x: Tensor) -> nn.Module:
    """The network in float64 and eval mode, its statistics and spectral vectors moved from their start."""
    network = network.double()
    for _ in range(3):
        network(x)
    return network.eval()


def same(layer: nn.Module, x: Tensor) -> Tensor:
    """The convolution of a layer with its own kernel, size kept, whatever the layer does after it."""
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
