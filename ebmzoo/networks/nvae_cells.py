"""The cells of NVAE (Vahdat & Kautz, 2020, arXiv:2007.03898)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks.layers import doubled, weight_norm


def conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (or halves it), with bias and weight norm: those that no BatchNorm follows."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)
    weight_norm(layer)
    return layer


def plain(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, without bias or weight norm: a BatchNorm follows it."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    layer.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
    return layer


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm whose statistics follow slowly, as NVAE's do: they are what samples are made with."""
    return nn.BatchNorm2d(channels, momentum=0.05)


class Excitation(nn.Module):
    """Squeeze and excitation: gates in (0, 1) for the channels, read off their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


class Halve(nn.Module):
    """A skip that halves the map: swish, then four 1x1 convolutions, one on each of the four shifts, concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        quarter = outputs // 4
        widths = [quarter, quarter, quarter, outputs - 3 * quarter]
        self.convs = nn.ModuleList(conv(inputs, width, stride=2) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        x = F.silu(x)
        shifts = (x[:, :, row:, column:] for row in (0, 1) for column in (0, 1))
        return torch.cat([layer(shift) for layer, shift in zip(self.convs, shifts, strict=True)], dim=1)


class EncoderCell(nn.Module):
    """BN - swish - conv3x3, twice, then squeeze and excitation: skip + 0.1 · branch.

    Args:
        inputs: channels in.
        outputs: channels out.
        down: halve the map.
    """

    def __init__(self, inputs: int, outputs: int, down: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(batch_norm(inputs), nn.SiLU(), conv(inputs, outputs, 3, 2 if down else 1)),
            *(batch_norm(outputs), nn.SiLU(), conv(outputs, outputs, 3)),
            Excitation(outputs),
        )
        self.skip: nn.Module = Halve(inputs, outputs) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), or with ``down`` to half that size."""
        return self.skip(x) + 0.1 * self.branch(x)


class Doubling(nn.Module):
    """Bilinear doubling whose corners stay where they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return doubled(x, align_corners=True)


class DecoderCell(nn.Module):
    """Inverted residual: BN - conv1x1 up - depthwise 5x5 - conv1x1 down, then squeeze and excitation.

    Each convolution is followed by BN, the first two by swish as well; the output is skip + 0.1 · branch.

    Args:
        inputs: channels in.
        outputs: channels out.
        expansion: hidden channels over ``inputs``.
        up: double the map.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int = 6, up: bool = False) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.branch = nn.Sequential(
            *([nn.Upsample(scale_factor=2)] if up else []),
            batch_norm(inputs),
            *(plain(inputs, hidden), batch_norm(hidden), nn.SiLU()),
            *(plain(hidden, hidden, 5, groups=hidden), batch_norm(hidden), nn.SiLU()),
            *(plain(hidden, outputs), batch_norm(outputs)),
            Excitation(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if up:
            # Convolve the small map, then enlarge it: both are linear and 1x1 commutes.
            self.skip = nn.Sequential(conv(inputs, outputs), Doubling())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), or with ``up`` to twice that size."""
        return self.skip(x) + 0.1 * self.branch(x)
