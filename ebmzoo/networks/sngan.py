"""The residual networks of BiDVL's code, after SNGAN (Miyato et al., 2018, arXiv:1802.05957)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ebmzoo.networks.layers import ConvMeanPool, check_input, check_square, doubled

SIZES = (8, 16, 32, 64, 128, 256)
WIDEST = 16  # over the base width: SNGAN's 1024 channels over 64


def start(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Xavier-uniform weight, zero bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class UpBlock(nn.Module):
    """BN - ReLU - doubling - convolution - BN - ReLU - convolution, plus a 1x1 convolution of the input, doubled.

    Doubling is bilinear.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        for layer, gain in ((self.conv1, 2**0.5), (self.conv2, 2**0.5), (self.skip, 1.0)):
            start(layer, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        h = self.conv1(doubled(F.relu(self.norm1(x))))
        # A 1x1 convolution commutes with the doubling, so the smaller map is convolved.
        return self.conv2(F.relu(self.norm2(h))) + doubled(self.skip(x))


class DownBlock(nn.Module):
    """ReLU - convolution - ReLU - convolution, plus a skip, all with spectral norm; with `down` mean-pooled.

    The skip is a 1x1 convolution where width or size change. The first block of a network sees the image
    itself and leaves out the first ReLU.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool, bias: bool = True) -> None:
        super().__init__()
        self.activates = not first
        conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        conv2 = (
            ConvMeanPool(outputs, outputs, bias=bias) if down else nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        )
        start(conv1, 2**0.5)
        start(conv2, 2**0.5)
        self.conv1, self.conv2 = spectral_norm(conv1), spectral_norm(conv2)
        self.skip: nn.Module = nn.Identity()
        if down or inputs != outputs:
            skip = ConvMeanPool(inputs, outputs, 1, bias) if down else nn.Conv2d(inputs, outputs, 1, bias=bias)
            start(skip)
            self.skip = spectral_norm(skip)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W), or with `down` to half that size."""
        h = self.conv1(F.relu(x) if self.activates else x)
        return self.conv2(F.relu(h)) + self.skip(x)


class Features(nn.Module):
    """Blocks that halve the image, ReLU and global **sum** pooling: what encoder and energy share."""

    def __init__(self, channels: int, size: int, width: int | None) -> None:
        super().__init__()
        if size <= 32:
            plan = [(width or 128, True)] * 2 + [(width or 128, False)] * 2
        else:
            halvings = range(size.bit_length() - 3)
            plan = [((width or 64) * min(2**level, WIDEST), True) for level in halvings]
            plan.append((plan[-1][0], False))
        self.blocks = nn.Sequential()
        before = channels
        for index, (outputs, down) in enumerate(plan):
            self.blocks.append(DownBlock(before, outputs, down, first=index == 0))
            before = outputs
        self.outputs = before

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, outputs)."""
        return F.relu(self.blocks(x)).sum(dim=(2, 3))

    def head(self, outputs: int) -> nn.Module:
        """A linear layer with spectral norm for these features."""
        layer = nn.Linear(self.outputs, outputs)
        start(layer)
        return spectral_norm(layer)


class SNGANEncoder(nn.Module):
    """Residual Gaussian encoder q(h|v) of BiDVL's code: SNGAN's discriminator with two heads.

    Up to 32 px two blocks that halve the map and two that keep it, all of one width (1.1M parameters with a
    latent code of 128); above, SNGAN's network for 128 px by its rule: blocks that halve until the map has
    4x4 pixels, the first of width 64, each twice as wide as the one before (up to 1024), and one block that
    keeps both. Then global sum pooling and a linear layer each for mean and log-variance, which is minus a
    softplus and so never positive. Everything has spectral norm. Kan et al., "Bi-level Doubly Variational
    Learning for Energy-based Latent Variable Models" (2022), appendix B.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128, 256.
        latent_dim: size of the latent code.
        width: channels of the first block; 128 up to 32 px and 64 above when not given.

    Raises:
        ValueError: on another image size, or another input shape.

    Example:
        >>> import torch
        >>> mean, log_variance = SNGANEncoder((3, 32, 32), latent_dim=16, width=4)(torch.zeros(5, 3, 32, 32))
        >>> mean.shape, bool((log_variance <= 0).all())
        (torch.Size([5, 16]), True)
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int | None = None) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        self.features = Features(channels, size, width)
        self.mean, self.log_variance = self.features.head(latent_dim), self.features.head(latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` (B, C, S, S) in [-1, 1] to the mean and the log-variance, both (B, latent_dim)."""
        check_input(x, self.image_shape, self)
        features = self.features(x)
        return self.mean(features), -F.softplus(self.log_variance(features))


class SNGANDecoder(nn.Module):
    """Residual generator of BiDVL's code, SNGAN's: the mean of p(v|h).

    A linear layer makes a 4x4 map, residual blocks with BatchNorm double it bilinearly; BatchNorm, ReLU, a
    3x3 convolution and tanh make the image. Up to 32 px all maps have one width (4.3M parameters with a
    latent code of 128); above, SNGAN's network for 128 px by its rule: 64 channels at full size, twice as
    many at each half, up to 1024. Kan et al., "Bi-level Doubly Variational Learning for Energy-based Latent
    Variable Models" (2022), appendix B.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128, 256.
        latent_dim: size of the latent code.
        width: channels of the largest map; 256 up to 32 px and 64 above when not given.

    Raises:
        ValueError: on another image size, or a code of another size.

    Example:
        >>> import torch
        >>> SNGANDecoder((3, 32, 32), latent_dim=16, width=4)(torch.zeros(5, 16)).shape
        torch.Size([5, 3, 32, 32])
    """

    channels_last_on_gpu = True  # its gradient at batch 100: 94 to 23 ms, bf16 91 to 20

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int | None = None) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        doublings = size.bit_length() - 3
        if size <= 32:
            widths = [width or 256] * (doublings + 1)
        else:
            widths = [(width or 64) * min(2**level, WIDEST) for level in range(doublings, -1, -1)]
        self.linear = nn.Linear(latent_dim, 16 * widths[0])
        self.blocks = nn.Sequential(*map(UpBlock, widths, widths[1:]))
        last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        start(self.linear)
        start(last)
        self.last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), last, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` (B, latent_dim) to the mean image (B, C, S, S) in (-1, 1)."""
        check_input(z, (self.latent_dim,), self)
        return self.last(self.blocks(self.linear(z).unflatten(1, (-1, 4, 4))))


class SNGANEnergy(nn.Module):
    """Residual energy of BiDVL's code: SNGAN's discriminator, the raw output.

    The blocks of `SNGANEncoder` and one linear layer, all with spectral norm: 1.1M parameters up to 32 px.
    Kan et al., "Bi-level Doubly Variational Learning for Energy-based Latent Variable Models" (2022),
    appendix B.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128, 256.
        width: channels of the first block; 128 up to 32 px and 64 above when not given.

    Raises:
        ValueError: on another image size, or another input shape.

    Example:
        >>> import torch
        >>> SNGANEnergy((3, 32, 32), width=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5])
    """

    def __init__(self, image_shape: tuple[int, ...], width: int | None = None) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        self.features = Features(channels, size, width)
        self.linear = self.features.head(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, S, S) in [-1, 1] to one energy per image (B,)."""
        check_input(x, self.image_shape, self)
        return self.linear(self.features(x)).squeeze(1)
