"""A normalising flow of images with grey levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmzoo.factories import FlowFactory, ImageShape, build
from ebmzoo.mcmc import Noise


class ImageFlow(nn.Module):
    """A normalising flow of images in [−1, 1] that have so many grey levels.

    Data are dequantised: uniform noise as wide as the step between two levels makes their density finite; samples are
    rounded to the nearest level again.

    Args:
        image_shape: shape of one example.
        network: makes the flow from image_shape.
        levels: grey levels of the data, evenly spaced in [−1, 1].

    Raises:
        ValueError: fewer than two levels.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import Glow
        >>> flow = ImageFlow((1, 8, 8), partial(Glow, levels=2, steps=1, width=8), levels=3)
        >>> flow.quantise(torch.tensor([-2.0, -0.4, 0.6])).tolist()
        [-1.0, 0.0, 1.0]
    """

    def __init__(self, image_shape: ImageShape, network: FlowFactory, levels: int = 256):
        super().__init__()
        if levels < 2:
            raise ValueError(f"images have at least 2 grey levels, not {levels}")
        self.image_shape, self.levels = tuple(image_shape), levels
        self.network = build(network, self.image_shape)

    @property
    def step(self) -> float:
        """From one level to the next."""
        return 2 / (self.levels - 1)

    def dequantise(self, x: Tensor, noise: Noise) -> Tensor:
        """Add noise uniform in ±half a level."""
        return x + (noise.uniform(x.shape, like=x) - 0.5) * self.step

    def quantise(self, x: Tensor) -> Tensor:
        """The nearest of the levels, in [−1, 1]."""
        return ((x.clamp(-1, 1) + 1) / self.step).round() * self.step - 1

    def generate(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """Draws, ``(n, *image_shape)``, not rounded; gradients reach the flow."""
        return self.network.sample(noise.normal((n, math.prod(self.image_shape)), like=like)).to(like.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), ``(B,)`` nats, of dequantised images."""
        return self.network.log_prob(x)

    def log_likelihood_bound(self, x: Tensor, samples: int, noise: Noise) -> Tensor:
        """Lower bound of the log of the density averaged over x's level, ``(B,)`` nats.

        The discrete log-probability is this plus log(2/(levels − 1)) for each pixel and channel.
        """
        draws = [self.log_prob(self.dequantise(x, noise)).to(x.dtype) for _ in range(samples)]
        return torch.logsumexp(torch.stack(draws), 0) - math.log(samples)

    def bits_per_dim(self, bound: Tensor) -> Tensor:
        """A bound of the density as bits per dimension of the discrete images."""
        return -(bound / math.prod(self.image_shape) + math.log(self.step)) / math.log(2)

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """What is logged of held-out data."""
        return {"bits_per_dim": self.bits_per_dim(self.log_likelihood_bound(x, 1, noise))}
