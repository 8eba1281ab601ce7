"""The FastGAN-like decoder of EC-VAE's code."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ebmzoo.networks.layers import check_input

SIZES = (8, 16, 32, 64, 128, 256)
# Channels of each map over `width`: one table up to 64 px, FastGAN's own above.
SMALL = {4: 16.0, 8: 8.0, 16: 8.0, 32: 8.0, 64: 8.0}
LARGE = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5}


def conv(inputs: int, outputs: int, size: int) -> nn.Module:
    """A spectrally normalised convolution without bias; kernels of odd size keep the size of the map."""
    return spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2 if size % 2 else 0, bias=False))


def gated(layer: nn.Module, outputs: int) -> list[nn.Module]:
    """A layer with `2 * outputs` channels, BatchNorm and a gated linear unit, which leaves `outputs`."""
    return [layer, nn.BatchNorm2d(2 * outputs), nn.GLU(dim=1)]


def up(inputs: int, outputs: int, composite: bool) -> nn.Sequential:
    """Double the map: nearest neighbour, then one gated 3x3 convolution, or two for a composite block."""
    layers = [nn.Upsample(scale_factor=2), *gated(conv(inputs, 2 * outputs, 3), outputs)]
    if composite:
        layers += gated(conv(outputs, 2 * outputs, 3), outputs)
    return nn.Sequential(*layers)


def excitation(inputs: int, outputs: int) -> nn.Sequential:
    """Skip-layer excitation: gates in (0, 1) for the channels of a large map, read off a small one."""
    squeeze, gate = conv(inputs, outputs, 4), conv(outputs, outputs, 1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), squeeze, nn.SiLU(), gate, nn.Sigmoid())


class FastGANDecoder(nn.Module):
    """Decoder of EC-VAE's code, after FastGAN (Liu et al., 2021, arXiv:2101.04775): the mean of p(x|z).

    A transposed convolution makes a 4x4 map of the code; blocks of nearest-neighbour doubling, 3x3
    convolution, BatchNorm and gated linear unit double it until it has the image's size, the first block
    and every second one after it with two convolutions; a 1x1 convolution and tanh make the image. All
    convolutions have spectral norm and no bias, and PyTorch's default initialisation.

    Up to 64 px the maps have `16 * width` channels at 4x4 and `8 * width` above: at 32 px that is the
    released network (32.5M parameters with a latent code of 128); the other sizes drop or add blocks. Above
    64 px the maps narrow as FastGAN's do, and those of 64, 128 and 256 px are gated by those of 4, 8 and 16
    px (skip-layer excitation): 24.9M parameters at 256 px with a latent code of 128. The kernel of the 256
    px network's last layer does not follow from that count (1x1 and 3x3 differ by 768 parameters); it is
    1x1 at all sizes here. Luo et al., "Energy-Calibrated VAE with Test Time Free Lunch" (2023).

    Args:
        image_shape: (C, H, W), square, of 8, 16, 32, 64, 128 or 256 px.
        latent_dim: size of the latent code.
        width: base width; 16 gives the small network of the same structure (2.8M parameters at 32 px).

    Raises:
        ValueError: on another image size, or a code of another size.

    Example:
        >>> import torch
        >>> FastGANDecoder((3, 32, 32), latent_dim=16, width=2)(torch.zeros(5, 16)).shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int = 64) -> None:
        super().__init__()
        if len(image_shape) != 3 or image_shape[1] != image_shape[2] or image_shape[1] not in SIZES:
            got = tuple(image_shape)
            raise ValueError(f"FastGANDecoder makes images (C, S, S) with S one of {SIZES}, got {got}")
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        size = image_shape[1]
        table = SMALL if size <= 64 else LARGE
        channels = {side: max(1, round(width * factor)) for side, factor in table.items() if side <= size}
        first = spectral_norm(nn.ConvTranspose2d(latent_dim, 2 * channels[4], 4, bias=False))
        self.first = nn.Sequential(*gated(first, channels[4]))
        self.blocks, self.excitations = nn.ModuleDict(), nn.ModuleDict()
        for index, side in enumerate(list(channels)[1:]):
            self.blocks[str(side)] = up(channels[side // 2], channels[side], composite=index % 2 == 0)
            if size > 64 and side >= 64:
                self.excitations[str(side)] = excitation(channels[side // 16], channels[side])
        self.last = nn.Sequential(conv(channels[size], image_shape[0], 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` (B, latent_dim) to the mean image (B, C, H, W) in (-1, 1)."""
        check_input(z, (self.latent_dim,), self)
        maps = {4: self.first(z[:, :, None, None])}
        for key, block in self.blocks.items():
            side = int(key)
            maps[side] = block(maps[side // 2])
            if key in self.excitations:
                maps[side] = maps[side] * self.excitations[key](maps[side // 16])
        return self.last(maps[self.image_shape[1]])
