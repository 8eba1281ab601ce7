"""Normalising flows from the parts of normflows: Glow for images, a Glow of MLPs as the prior of a latent code.

normflows (Stimper et al., JOSS 2023) gives the invertible layers; here they are put in order. Its layers call the way
from noise to data ``forward`` and the way back ``inverse``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from normflows.flows import AffineCouplingBlock, Flow, Invertible1x1Conv, InvertibleAffine
from normflows.nets import MLP, ConvNet2d
from torch import Tensor, nn

from ebmzoo.networks.layers import check_image, check_input, is_set


class ActNorm(Flow):
    """A learned scale and shift of each channel, which the caller initialises: normflows' own does so in any forward.

    Args:
        channels: number of channels.
        sides: number of sides of a map; 0 for vectors.
    """

    def __init__(self, channels: int, sides: int = 2) -> None:
        super().__init__()
        shape = (1, channels, *[1] * sides)
        self.s, self.t = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """From noise to data."""
        return z * self.s.exp() + self.t, self.s.sum() * z[0, 0].numel()

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data to noise."""
        return (x - self.t) * (-self.s).exp(), -self.s.sum() * x[0, 0].numel()

    def initialise(self, x: Tensor) -> None:
        """Choose scale and shift so that `inverse` gives `x` mean zero and variance one, channel by channel."""
        others = [dim for dim in range(x.dim()) if dim != 1]
        variance, mean = torch.var_mean(x, dim=others, correction=0, keepdim=True)
        # The floor keeps a channel that saw a constant input from getting an enormous gain.
        self.s.copy_(variance.sqrt().clamp_min(1e-4).log())
        self.t.copy_(mean)


class Glow(nn.Module):
    """Glow (Kingma & Dhariwal, 2018, arXiv:1807.03039): an invertible map between images and white noise.

    Each level folds 2x2 pixels into channels, takes `steps` steps of ActNorm, invertible 1x1 convolution and affine
    coupling (3x3, 1x1 and 3x3 convolutions, the last one zero at the start), and sets half of the channels aside as
    noise, but for the last level. ActNorm is initialised by the first training batch, of all processes together: each
    channel leaves it with mean zero and variance one. Densities are computed in the parameters' precision, under
    autocast too.

    Where it differs from the original: a coupling's scale, a sigmoid, multiplies on the way from noise to images, not
    on the way back, so that samples cannot grow without bound (with the original's, some samples of digits were not
    finite); the noise that is set aside is N(0, I), without a learned mean and scale; the coupling's hidden layers
    have biases and no ActNorm. Glow on CIFAR-10 has 3 levels of 32 steps, width 512.

    Args:
        image_shape: (C, H, W), both sides multiples of 2^levels.
        levels: number of scales.
        steps: flow steps a level.
        width: channels of the coupling's hidden layers.

    Raises:
        ValueError: on an image size that cannot be halved so often, or an input of another shape.

    Example:
        >>> flow = Glow((1, 8, 8), levels=2, steps=2, width=8)
        >>> flow.sample(torch.randn(5, 64)).shape, flow.log_prob(torch.zeros(5, 1, 8, 8)).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """

    initialised: Tensor

    def __init__(self, image_shape: tuple[int, ...], levels: int = 3, steps: int = 32, width: int = 512) -> None:
        super().__init__()
        channels = check_image(image_shape, 2**levels, self)[0]
        self.image_shape = tuple(image_shape)
        self.levels = nn.ModuleList()
        for _ in range(levels):
            channels *= 4
            self.levels.append(nn.ModuleList(_glow_step(channels, width) for _ in range(steps)))
            channels //= 2
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images `x` (B, C, H, W) to white noise (B, C·H·W) and the log-determinant of that map (B,)."""
        check_input(x, self.image_shape, self)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(next(self.parameters()).dtype)
            if self.training and not is_set(self.initialised):
                self._initialise(x)
            return self._to_noise(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (B,) of images `x`, nats."""
        noise, log_det = self(x)
        return _white(noise) + log_det

    def sample(self, noise: Tensor) -> Tensor:
        """Map white noise (B, C·H·W) to images (B, C, H, W): the inverse of `forward`."""
        check_input(noise, (math.prod(self.image_shape),), self)
        with torch.autocast(noise.device.type, enabled=False):
            return self._to_images(noise.to(next(self.parameters()).dtype))

    def _to_noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det, aside = x.new_zeros(len(x)), []
        for index, level in enumerate(self.levels):
            x = F.pixel_unshuffle(x, 2)
            for layer in _layers(level):
                x, change = layer.inverse(x)
                log_det = log_det + change
            if index < len(self.levels) - 1:
                x, done = x.chunk(2, dim=1)
                aside.append(done.flatten(1))
        return torch.cat([*aside, x.flatten(1)], dim=1), log_det

    def _to_images(self, noise: Tensor) -> Tensor:
        channels, height, width = self.image_shape
        shapes = []
        for index in range(len(self.levels)):
            # Half of the numbers that are left are set aside; the last level keeps all.
            channels, height, width = (
                channels * 4 // (1 if index == len(self.levels) - 1 else 2),
                height // 2,
                width // 2,
            )
            shapes.append((channels, height, width))
        parts = noise.split([math.prod(shape) for shape in shapes], dim=1)
        x = noise.new_zeros(len(noise), 0, *shapes[-1][1:])
        for level, part, shape in zip(reversed(self.levels), reversed(parts), reversed(shapes), strict=True):
            x = torch.cat([x, part.unflatten(1, shape)], dim=1)
            for layer in reversed(_layers(level)):
                x, _ = layer(x)
            x = F.pixel_shuffle(x, 2)
        return x

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        """Set each ActNorm so that its outputs have mean zero and variance one on `x`, level by level."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shares = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(shares, x.contiguous())
            x = torch.cat(shares)
        for level in self.levels:
            x = F.pixel_unshuffle(x, 2)
            for layer in _layers(level):
                if isinstance(layer, ActNorm):
                    layer.initialise(x)
                x, _ = layer.inverse(x)
            x = x[:, : x.shape[1] // 2]
        self.initialised.fill_(True)


class FlowPrior(nn.Module):
    """A learned prior p(z) of a latent code: Glow with MLPs in place of its convolutions (EC-VAE, appendix E).

    Each step is a learned scale and shift, an invertible linear map and an affine coupling whose scale and shift an
    MLP reads off half of the code. It starts near N(0, I): scales at one, couplings at a constant factor.

    Args:
        latent_dim: size of the code, at least 2.
        steps: flow steps.
        width: width of the MLPs' two hidden layers; the released code: 256.

    Raises:
        ValueError: on a code that cannot be halved, or of another size.

    Example:
        >>> prior = FlowPrior(4, steps=2, width=8)
        >>> prior.sample(torch.randn(5, 4)).shape, prior.log_prob(torch.zeros(5, 4)).shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(self, latent_dim: int, steps: int = 8, width: int = 256) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(f"FlowPrior couples two halves of a code: its size is at least 2, not {latent_dim}")
        self.latent_dim = latent_dim
        half = latent_dim // 2
        self.steps = nn.ModuleList()
        for _ in range(steps):
            net = MLP([latent_dim - half, width, width, 2 * half], init_zeros=True)
            coupling = AffineCouplingBlock(net, scale_map="sigmoid_inv")
            mixing = InvertibleAffine(latent_dim, use_lu=False)
            self.steps.append(nn.ModuleList([ActNorm(latent_dim, sides=0), mixing, coupling]))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes `z` (B, latent_dim) to white noise (B, latent_dim) and the log-determinant of that map (B,)."""
        check_input(z, (self.latent_dim,), self)
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(next(self.parameters()).dtype)
            log_det = z.new_zeros(len(z))
            for layer in _layers(self.steps):
                z, change = layer.inverse(z)
                log_det = log_det + change
        return z, log_det

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (B,) of codes `z`, nats."""
        noise, log_det = self(z)
        return _white(noise) + log_det

    def sample(self, noise: Tensor) -> Tensor:
        """Map white noise (B, latent_dim) to codes (B, latent_dim): the inverse of `forward`."""
        check_input(noise, (self.latent_dim,), self)
        with torch.autocast(noise.device.type, enabled=False):
            z = noise.to(next(self.parameters()).dtype)
            for layer in reversed(_layers(self.steps)):
                z, _ = layer(z)
        return z


def _glow_step(channels: int, width: int) -> nn.ModuleList:
    """ActNorm, invertible 1x1 convolution, affine coupling, in the order from images to noise."""
    half = channels // 2
    net = ConvNet2d((channels - half, width, width, 2 * half), (3, 1, 3), init_zeros=True)
    coupling = AffineCouplingBlock(net, scale_map="sigmoid_inv")
    # Without normflows' LU form: it is built on a function that PyTorch has announced to remove.
    return nn.ModuleList([ActNorm(channels), Invertible1x1Conv(channels, use_lu=False), coupling])


def _layers(steps: Any) -> list[Any]:
    """All layers of a list of steps, in the order from data to noise."""
    return [layer for step in steps for layer in step]


def _white(noise: Tensor) -> Tensor:
    """log N(noise; 0, I), (B,)."""
    return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
