"""Denoisers conditioned on the noise level σ, whose encoder gives a code, and a residual decoder of such codes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks.layers import check_image, check_input
from ebmzoo.networks.mlp import mlp


class Denoiser(nn.Module):
    """Base of the denoisers r(x̃, σ): EDM's preconditioning around a network F, and a code z of unit scale.

    r(x̃, σ) = c_skip·x̃ + c_out·F(c_in·x̃, σ) with c_skip = σ_d²/(σ² + σ_d²), c_out = σ·σ_d/√(σ² + σ_d²) and
    c_in = 1/√(σ² + σ_d²), so that F sees inputs and learns targets of unit variance at every σ (Karras et al.,
    "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, Table 1).

    A subclass writes `down` and `up`; the code is scaled to ‖z‖² = latent_dim, the norm of white noise.

    Args:
        image_shape: shape of one example.
        latent_dim: size of the code.
        sigma_data: σ_d, the data's standard deviation, in their units.
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, sigma_data: float) -> None:
        super().__init__()
        self.image_shape, self.latent_dim, self.sigma_data = tuple(image_shape), latent_dim, sigma_data

    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Map noisy `x` (B, *image_shape) and σ (B,) to r(x, σ), shaped like `x`, and z (B, latent_dim)."""
        scaled, total = self._scaled(x, sigma)
        features, code = self.down(scaled, sigma.log())
        z = self._unit(code)
        raw = self.up(features, z, sigma.log())
        sigma = sigma.view(total.shape)
        return (self.sigma_data / total).square() * x + sigma * self.sigma_data / total * raw, z

    def encode(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The code alone, (B, latent_dim): half the network."""
        return self._unit(self.down(self._scaled(x, sigma)[0], sigma.log())[1])

    def down(self, x: Tensor, log_sigma: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features that `up` takes besides the code, and the code before it is scaled."""
        raise TypeError(f"{type(self).__name__} is the base of the denoisers: use UNetDenoiser or MLPDenoiser")

    def up(self, features: list[Tensor], z: Tensor, log_sigma: Tensor) -> Tensor:
        """F's output, shaped like the image."""
        raise TypeError(f"{type(self).__name__} is the base of the denoisers: use UNetDenoiser or MLPDenoiser")

    def _scaled(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        check_input(x, self.image_shape, self)
        total = (sigma.square() + self.sigma_data**2).sqrt().view(-1, *[1] * (x.ndim - 1))
        return x / total, total

    @staticmethod
    def _unit(code: Tensor) -> Tensor:
        return code * (code.square().mean(1, keepdim=True) + 1e-6).rsqrt()


class UNetDenoiser(Denoiser):
    """U-Net of residual blocks with GroupNorm and SiLU; the bottleneck is the code, the skips pass it by.

    Each level has `blocks` residual blocks downwards and one more upwards, which see the skip of each block
    below; σ scales and shifts the features inside every block. The paper says "ResNet" and "U-Net" and no
    more: the defaults are a common size for 32 px (47M parameters).

    Args:
        image_shape: (C, H, W), the sides multiples of 2^(levels − 1).
        latent_dim: size of the code.
        width: channels of the first level.
        multipliers: channels of each level in units of `width`; each level but the first halves the map.
        blocks: residual blocks of a level.
        sigma_data: σ_d; 0.5 is EDM's for images in [-1, 1].

    Raises:
        ValueError: if a side cannot be halved so often, or the width is no multiple of 4.

    Example:
        >>> network = UNetDenoiser((1, 8, 8), latent_dim=16, width=8, multipliers=(1, 2), blocks=1)
        >>> r, z = network(torch.zeros(5, 1, 8, 8), torch.full((5,), 0.4))
        >>> r.shape, z.shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5, 16]))
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(image_shape, latent_dim, sigma_data)
        levels = len(multipliers)
        channels, self.bottom = _ends(image_shape, width, multipliers, self)
        self.embed = SigmaEmbedding(4 * width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        now, skips = width, []
        for level, factor in enumerate(multipliers):
            for block in range(blocks):
                halve = level > 0 and block == 0
                self.downs.append(ResidualBlock(now, factor * width, "down" if halve else None, 4 * width))
                now = factor * width
                skips.append(now)
        size = math.prod(self.bottom)
        self.to_code = nn.Sequential(group_norm(now), nn.SiLU(), nn.Flatten(), nn.Linear(size, latent_dim))
        self.from_code = nn.Linear(latent_dim, size)
        for level, factor in reversed(list(enumerate(multipliers))):
            for block in range(blocks):
                double = level < levels - 1 and block == 0
                inputs = now + (0 if double else skips.pop())
                self.ups.append(ResidualBlock(inputs, factor * width, "up" if double else None, 4 * width))
                now = factor * width
                if double:
                    self.ups.append(ResidualBlock(now + skips.pop(), now, None, 4 * width))
        self.last = nn.Sequential(group_norm(now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1))

    def down(self, x: Tensor, log_sigma: Tensor) -> tuple[list[Tensor], Tensor]:
        """The output of every block downwards, and the code before it is scaled."""
        condition = self.embed(log_sigma)
        h, features = self.first(x), []
        for block in self.downs:
            h = block(h, condition)
            features.append(h)
        return features, self.to_code(h)

    def up(self, features: list[Tensor], z: Tensor, log_sigma: Tensor) -> Tensor:
        """From the code, through the skips, to the image."""
        condition, skips = self.embed(log_sigma), list(features)
        h = self.from_code(z).unflatten(1, self.bottom)
        for block in self.ups:
            h = block(h if block.resample == "up" else torch.cat([h, skips.pop()], 1), condition)
        return self.last(h)


class MLPDenoiser(Denoiser):
    """Denoiser of multilayer perceptrons, for points: x̃ and the code decide, σ is told to both halves.

    Args:
        image_shape: shape of one example, `(2,)` or `(C, H, W)`.
        latent_dim: size of the code.
        width: width of the hidden layers.
        depth: number of hidden layers, of each half.
        input_scale: fixed factor on F's input, which has unit variance.
        octaves: number of doublings k from 0 at which sin and cos of 2^k times that are further inputs: what gaps
            between modes are drawn with (on the 25 Gaussians 3 of them, scale 3, say more than any scale alone).
        sigma_data: σ_d, the data's standard deviation.

    Example:
        >>> r, z = MLPDenoiser((2,), latent_dim=8, width=32)(torch.zeros(5, 2), torch.ones(5))
        >>> r.shape, z.shape
        (torch.Size([5, 2]), torch.Size([5, 8]))
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 256,
        depth: int = 2,
        input_scale: float = 1.0,
        octaves: int = 0,
        sigma_data: float = 1.0,
    ) -> None:
        super().__init__(image_shape, latent_dim, sigma_data)
        self.input_scale, self.octaves = input_scale, octaves
        size, level = math.prod(image_shape), 16
        inputs = (1 + 2 * octaves) * size + level
        self.embed = SigmaEmbedding(level)
        self.encoder = mlp(inputs, latent_dim, width, depth, "silu")
        self.decoder = mlp(inputs + latent_dim, size, width, depth, "silu")

    def down(self, x: Tensor, log_sigma: Tensor) -> tuple[list[Tensor], Tensor]:
        """The inputs themselves, and the code before it is scaled."""
        x = self.input_scale * x.flatten(1)
        waves = [wave(2**k * x) for k in range(self.octaves) for wave in (torch.sin, torch.cos)]
        h = torch.cat([x, *waves, self.embed(log_sigma)], 1)
        return [h], self.encoder(h)

    def up(self, features: list[Tensor], z: Tensor, log_sigma: Tensor) -> Tensor:
        """From input and code to the image."""
        return self.decoder(torch.cat([*features, z], 1)).unflatten(1, self.image_shape)


class ResNetDecoder(nn.Module):
    """Residual decoder of a code, the mirror of one half of `UNetDenoiser` without skips: the semantic decoder.

    Args:
        image_shape: (C, H, W), the sides multiples of 2^(levels − 1).
        latent_dim: size of the code.
        width: channels of the last level.
        multipliers: channels of each level in units of `width`, the largest map first.
        blocks: residual blocks of a level.

    Raises:
        ValueError: if a side cannot be halved so often, or the width is no multiple of 4.

    Example:
        >>> ResNetDecoder((1, 8, 8), latent_dim=16, width=8, multipliers=(1, 2), blocks=1)(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        levels = len(multipliers)
        channels, self.bottom = _ends(image_shape, width, multipliers, self)
        now = self.bottom[0]
        self.first = nn.Linear(latent_dim, math.prod(self.bottom))
        self.blocks = nn.Sequential()
        for level, factor in reversed(list(enumerate(multipliers))):
            for block in range(blocks):
                double = level < levels - 1 and block == 0
                self.blocks.append(ResidualBlock(now, factor * width, "up" if double else None))
                now = factor * width
        self.last = nn.Sequential(group_norm(now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` (B, latent_dim) to an image (B, *image_shape)."""
        check_input(z, (self.latent_dim,), self)
        return self.last(self.blocks(self.first(z).unflatten(1, self.bottom)))


def _ends(
    image_shape: tuple[int, ...], width: int, multipliers: tuple[int, ...], network: nn.Module
) -> tuple[int, tuple[int, int, int]]:
    """The image's channels, and the shape of the map at the lowest level, to which each level but one halves it."""
    halvings = len(multipliers) - 1
    channels, height, width_px = check_image(image_shape, 2**halvings, network)
    return channels, (multipliers[-1] * width, height >> halvings, width_px >> halvings)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU and a 3x3 convolution, twice, beside a skip; a condition scales and shifts in between.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        resample: "down" halves the map, "up" doubles it, before the first convolution.
        condition: size of the condition; 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, resample: str | None = None, condition: int = 0) -> None:
        super().__init__()
        self.resample = resample
        self.norm1, self.norm2 = group_norm(inputs), group_norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.affine = nn.Linear(condition, 2 * outputs) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        h = self._resampled(F.silu(self.norm1(x)))
        h = self.norm2(self.conv1(h))
        if self.affine is not None:
            scale, shift = self.affine(condition)[:, :, None, None].chunk(2, 1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.conv2(F.silu(h)) + self.skip(self._resampled(x))

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x


class SigmaEmbedding(nn.Module):
    """Sines and cosines of log σ at eight frequencies from ½ to 4, then two layers."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 ** torch.linspace(-1, 2, 8), persistent=False)
        self.layers = nn.Sequential(nn.Linear(16, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())

    def forward(self, log_sigma: Tensor) -> Tensor:
        """Map log σ (B,) to (B, size)."""
        angle = log_sigma[:, None] * self.frequencies
        return self.layers(torch.cat([angle.sin(), angle.cos()], 1))


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of four channels, at most 32 groups."""
    if channels % 4:
        raise ValueError(f"these networks normalise groups of 4 channels: {channels} is no multiple of 4")
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-5)
