"""Residual energies for images: the multi-scale network of EC-VAE's code, the networks of VAEBM's Table 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ebmzoo.networks.layers import (
    ConvMeanPool,
    WeightNorm,
    channels_last,
    check_image,
    check_input,
    is_set,
    narrow,
    pick,
    spectral_norms,
    weight_norm,
)


def conv(inputs: int, outputs: int, size: int = 3, bias: bool = True, down: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size, or with `down` halves it by mean pooling."""
    if down:
        return ConvMeanPool(inputs, outputs, size, bias=bias)
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


class PreActivationBlock(nn.Module):
    """Leaky ReLU - convolution, twice, plus a skip; with `down` mean-pooled.

    The skip is a 1x1 convolution where the width changes.
    """

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs)
        self.conv2 = conv(outputs, outputs, down=down)
        self.skip: nn.Module = nn.AvgPool2d(2) if down else nn.Identity()
        if inputs != outputs:
            self.skip = conv(inputs, outputs, size=1, bias=False, down=down)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), or with `down` to half that size."""
        h = self.conv1(F.leaky_relu(x, 0.2))
        return self.conv2(F.leaky_relu(h, 0.2)) + self.skip(x)


class MultiScaleResNetEnergy(nn.Module):
    """The energy of EC-VAE's code: independent residual towers on the image and on its mean-pooled halves.

    Each tower is a 3x3 convolution, stages of pre-activation blocks with 2x2 mean pooling between the
    stages, a leaky ReLU (0.2) and global mean pooling; the towers' features meet in two linear layers.
    Every convolution and linear layer has spectral norm. The output is the raw one: the temperature, by
    which the published code divides it, belongs to the sampler. Luo et al., "Energy-Calibrated VAE with
    Test Time Free Lunch" (2023).

    The defaults are the network for 32 px (23.8M parameters), which takes larger multiples of 32 as well; its
    single-tower alternative (11.8M) is `width=256, multipliers=(1, 1, 2, 2), blocks=1, scales=1`.

    Args:
        image_shape: (C, H, W); H and W multiples of 2^(scales + stages - 2).
        width: channels of the first stage.
        multipliers: channels of each stage over `width`.
        blocks: residual blocks per stage.
        scales: number of towers; tower i sees the image mean-pooled by 2^i.
        head: width of the hidden linear layer.

    Raises:
        ValueError: on a size that does not halve often enough, or another input shape.

    Example:
        >>> energy = MultiScaleResNetEnergy((1, 16, 16), width=8, multipliers=(1, 2), blocks=1, head=32)
        >>> energy(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5])
    """

    channels_last_on_gpu = True  # a chain's step at batch 128, bf16: 7.1 to 5.9 ms

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        scales: int = 3,
        head: int = 2048,
    ) -> None:
        super().__init__()
        self.image_shape = check_image(image_shape, 2 ** (scales + len(multipliers) - 2), self)
        self.channels_last = narrow(width)
        widths = [width * multiplier for multiplier in multipliers]
        self.towers = nn.ModuleList(self._tower(widths, blocks) for _ in range(scales))
        self.head = nn.Sequential(nn.Linear(scales * widths[-1], head), nn.LeakyReLU(0.2), nn.Linear(head, 1))
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                self._initialise(layer)
                parametrizations.spectral_norm(layer)

    def _tower(self, widths: list[int], blocks: int) -> nn.Sequential:
        layers: list[nn.Module] = [conv(self.image_shape[0], widths[0])]
        before = widths[0]
        for stage, width in enumerate(widths, start=1):
            for block in range(1, blocks + 1):
                layers.append(PreActivationBlock(before, width, down=block == blocks and stage < len(widths)))
                before = width
        return nn.Sequential(*layers, nn.LeakyReLU(0.2))

    @staticmethod
    def _initialise(layer: nn.Conv2d | nn.Linear) -> None:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, H, W) in [-1, 1] to one energy per image (B,)."""
        check_input(x, self.image_shape, self)
        x = channels_last(x, self.channels_last)
        pooled = (F.avg_pool2d(x, 2**scale) for scale in range(len(self.towers)))
        features = [tower(image).mean(dim=(2, 3)) for tower, image in zip(self.towers, pooled, strict=True)]
        return self.head(torch.cat(features, dim=1)).squeeze(1)


def swish(x: Tensor) -> Tensor:
    """Swish over 1.1, x · sigmoid(x) / 1.1, whose slope is at most 1."""
    return F.silu(x) / 1.1


class PostActivationBlock(nn.Module):
    """Convolution - swish - convolution, plus a skip; with `down` mean-pooled; then swish.

    The skip is a 1x1 convolution where width or size change.
    """

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs)
        self.conv2 = conv(outputs, outputs, down=down)
        self.skip: nn.Module = nn.Identity()
        if down or inputs != outputs:
            self.skip = conv(inputs, outputs, size=1, bias=False, down=down)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), or with `down` to half that size."""
        return swish(self.conv2(swish(self.conv1(x))) + self.skip(x))


Column = Literal["cifar10", "celeba64", "lsun64", "celebahq256", "stacked_mnist"]

# Width of the first convolution, then the widths of each stage's blocks over it; the first block halves.
COLUMNS: dict[str, tuple[int, tuple[tuple[int, ...], ...]]] = {
    "cifar10": (128, ((1, 1), (2, 2), (2, 2))),
    "celeba64": (64, ((1, 1), (2, 2), (2, 4), (4, 4))),
    "lsun64": (64, ((1, 1), (2, 2, 2), (2, 4, 4), (4, 4))),
    "celebahq256": (64, ((1, 1), (2, 2), (2, 2), (4, 4), (4, 4), (8, 8))),
    "stacked_mnist": (64, ((1, 1), (2, 2))),
}


class VAEBMEnergy(nn.Module):
    """The energies of VAEBM: Table 7 of Xiao et al., "VAEBM" (2021, arXiv:2010.00654).

    A 3x3 convolution, residual blocks with swish, global **sum** pooling and a linear layer to the energy.
    The only normalisation is weight norm with a learned log-gain, which `initialise` sets from data;
    `spectral_penalty` is the regulariser that the paper adds to the loss with weight 0.2. What these two
    keep (whether they have run, and the vectors of the power iteration) are buffers, so a checkpoint
    carries them.

    Where table and published code differ, the code is followed: `celeba64` has a second block of the first
    width, `celebahq256` one more of the second, and swish is divided by 1.1. `stacked_mnist` is the code's
    net for that set, the smallest.

    Args:
        image_shape: (C, H, W); H and W multiples of 8 (cifar10), 16 (celeba64, lsun64), 64 (celebahq256) or
            4 (stacked_mnist).
        column: the column of the table.
        width: channels of the first convolution; the column's own (128 for cifar10, else 64) when not given.

    Raises:
        ValueError: on an unknown column, a size that does not halve often enough, or another input shape.

    Example:
        >>> energy = VAEBMEnergy((1, 8, 8), column="stacked_mnist", width=8)
        >>> energy.initialise(torch.rand(32, 1, 8, 8))
        >>> energy(torch.zeros(5, 1, 8, 8)).shape, energy.spectral_penalty().shape
        (torch.Size([5]), torch.Size([]))
    """

    channels_last_on_gpu = True  # a chain's step at batch 512, bf16: 9.2 to 8.4 ms
    initialised: Tensor
    penalised: Tensor

    def __init__(self, image_shape: tuple[int, ...], column: Column = "cifar10", width: int | None = None) -> None:
        super().__init__()
        default, stages = pick(COLUMNS, column, "column")
        width = width or default
        self.image_shape = check_image(image_shape, 2 ** len(stages), self)
        self.channels_last = narrow(width)
        self.stem = conv(self.image_shape[0], width)
        self.blocks = nn.Sequential()
        before = width
        for stage in stages:
            for block, multiplier in enumerate(stage):
                self.blocks.append(PostActivationBlock(before, width * multiplier, down=block == 0))
                before = width * multiplier
        self.linear = nn.Linear(before, 1)
        for layer in self._convs():
            weight_norm(layer)
        self.register_buffer("initialised", torch.tensor(False))
        self.register_buffer("penalised", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, H, W) in [-1, 1] to one energy per image (B,)."""
        check_input(x, self.image_shape, self)
        x = channels_last(x, self.channels_last)
        return self.linear(self.blocks(swish(self.stem(x))).sum(dim=(2, 3))).squeeze(1)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set gains and biases from a batch, layer by layer, so that every convolution's output has std 0.2.

        The published code takes five training batches. Statistics are those of the convolution before its
        pooling; convolutions with a bias get mean zero. It runs once in the life of a network: a second
        call changes nothing, nor does one on a network restored from a checkpoint after its initialisation.

        Args:
            x: data in [-1, 1], (B, C, H, W).
        """
        if self.initialised:
            return

        def fit(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.Conv2d)
            _norm(layer).fit(layer, inputs[0])

        hooks = [layer.register_forward_pre_hook(fit) for layer in self._convs()]
        try:
            with torch.autocast(x.device.type, enabled=False):
                self(x)
        finally:
            for hook in hooks:
                hook.remove()
        self.initialised.fill_(True)

    def spectral_penalty(self) -> Tensor:
        """Sum of the spectral norms of all convolutions' normalised weights; the linear layer is left out.

        Power iteration follows them, 4 steps a call and 40 in the first. Its vectors move in training only.
        """
        steps, move = 4 if is_set(self.penalised) else 40, self.training
        if move and steps == 40:
            self.penalised.fill_(True)
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            return spectral_norms(self._convs(), steps, move).sum()

    def _convs(self) -> list[nn.Conv2d]:
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]


def _norm(layer: nn.Conv2d) -> WeightNorm:
    norm = layer.get_submodule("parametrizations.weight.0")
    assert isinstance(norm, WeightNorm)
    return norm
