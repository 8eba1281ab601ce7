"""What a VAE must offer to be the base of VAEBM, whether its latents are one vector or a hierarchy of groups."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Draw", "LatentVAE", "Latents", "Normal"]

Normal = tuple[Tensor, Tensor]
"""Mean and log standard deviation of a diagonal Gaussian; both broadcast to what it is a density of."""

Draw = Callable[[Sequence[int]], Tensor]
"""Gives standard normal numbers of a shape, batch first."""


class Latents(NamedTuple):
    """One pass through a VAE, groups of latents from the top down.

    Attributes:
        z: the latents, one ``(B, …)`` a group.
        prior: p(z_l | z_<l) of each group.
        mean: mean of p(x|z), ``(B, *image_shape)``.
        log_sigma: log standard deviation of p(x|z); broadcasts to ``mean``.
        posterior: q(z_l | z_<l, x) of each group, where x was given.
    """

    z: tuple[Tensor, ...]
    prior: tuple[Normal, ...]
    mean: Tensor
    log_sigma: Tensor
    posterior: tuple[Normal, ...] = ()

    @property
    def noise(self) -> tuple[Tensor, ...]:
        """The white noise that the prior turns into ``z`` (the inverse of VAEBM's Eq. 8)."""
        pairs = zip(self.z, self.prior, strict=True)
        return tuple((z - mean) * (-log_sigma).exp() for z, (mean, log_sigma) in pairs)


class LatentVAE(nn.Module, ABC):
    """Base of the VAEs: Gaussian prior, posterior and likelihood, all three as shift and scale of white noise.

    Attributes:
        image_shape: shape of one example.
        noise_shapes: shape of each group of latents, from the top down, without the batch.
    """

    image_shape: tuple[int, ...]
    noise_shapes: tuple[tuple[int, ...], ...]

    @abstractmethod
    def generate(self, *noise: Tensor) -> Latents:
        """White noise, one ``(B, …)`` a group, to the latents and the distribution of x (VAEBM Eq. 8)."""

    @abstractmethod
    def evaluate(self, *z: Tensor) -> Latents:
        """Given latents to their priors and the distribution of x."""

    @abstractmethod
    def infer(self, x: Tensor, draw: Draw) -> Latents:
        """Latents drawn from q(z|x), with the noise of ``draw``."""

    @abstractmethod
    def generator(self) -> list[nn.Module | nn.Parameter]:
        """The parts that `generate` uses: prior and decoder."""

    def regularisation(self) -> Tensor:
        """What is added to the loss of the first stage; nothing unless a network says otherwise."""
        return torch.zeros(())

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions, all groups together."""
        return sum(math.prod(shape) for shape in self.noise_shapes)

    def encode(self, x: Tensor) -> Normal:
        """Mean and log-variance of q(z|x), both ``(B, latent_dim)``; below the top, given the means above."""
        posterior = self.infer(x, lambda shape: x.new_zeros(tuple(shape))).posterior
        mean = torch.cat([mean.flatten(1) for mean, _ in posterior], dim=1)
        return mean, torch.cat([2 * log_sigma.flatten(1) for _, log_sigma in posterior], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """Latents ``(B, latent_dim)`` to the mean of p(x|z)."""
        parts = z.split([math.prod(shape) for shape in self.noise_shapes], dim=1)
        return self.evaluate(*(p.unflatten(1, shape) for p, shape in zip(parts, self.noise_shapes, strict=True))).mean

    @torch.no_grad()
    def readjusted(self, temperature: float, draw: Draw, batch: int = 64, passes: int = 20) -> LatentVAE:
        """A copy whose BatchNorm statistics are those of its own samples at a temperature (NVAE, section 4.1).

        Statistics of the training do not hold for samples of scaled-down noise. The copy is for `generate` alone: what
        only the encoder uses has lost its statistics.

        Args:
            temperature: factor on the white noise.
            draw: gives the noise.
            batch: size of a batch.
            passes: number of batches; the statistics are the mean over them.
        """
        other = copy.deepcopy(self).eval()
        norms = [layer for layer in other.modules() if isinstance(layer, _BatchNorm)]
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over the passes
            layer.train()
        for _ in range(passes if norms else 0):
            other.generate(*(temperature * draw((batch, *shape)) for shape in self.noise_shapes))
        return other.eval()
