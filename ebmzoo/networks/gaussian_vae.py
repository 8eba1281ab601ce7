"""A VAE with one Gaussian latent vector, from any encoder and decoder."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ebmzoo.networks.latent_vae import Draw, Latents, LatentVAE

__all__ = ["GaussianVAE"]


class GaussianVAE(LatentVAE):
    """VAE with p(z) = N(0, I), q(z|x) from an encoder and p(x|z) = N(x; decoder(z), σ²I).

    Its parts bear the names that they have in a checkpoint of `ebmzoo.methods.VAE`: encoder, decoder, log_sigma.

    Args:
        image_shape: shape of one example.
        encoder: makes the inference network from (image_shape, latent_dim): a class, a callable, or a
            ``{class_path, init_args}`` dict.
        decoder: makes the generator from (image_shape, latent_dim).
        latent_dim: size of z.
        sigma: standard deviation of the decoder, in the data's units, or "learned" (one number for all pixels).

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> vae = GaussianVAE((1, 8, 8), MLPEncoder, MLPDecoder, latent_dim=4)
        >>> vae.generate(torch.zeros(2, 4)).mean.shape
        torch.Size([2, 1, 8, 8])
    """

    log_sigma: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        encoder: Callable[[tuple[int, ...], int], nn.Module],
        decoder: Callable[[tuple[int, ...], int], nn.Module],
        latent_dim: int = 128,
        sigma: float | Literal["learned"] = "learned",
    ) -> None:
        super().__init__()
        self.image_shape, self.noise_shapes = tuple(image_shape), ((latent_dim,),)
        self.encoder = _made(encoder, self.image_shape, latent_dim)
        self.decoder = _made(decoder, self.image_shape, latent_dim)
        if sigma == "learned":
            self.log_sigma = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))

    def evaluate(self, *z: Tensor) -> Latents:
        (code,) = z
        zero = code.new_zeros(())
        return Latents((code,), ((zero, zero),), self.decoder(code).to(code.dtype), self.log_sigma)

    def generate(self, *noise: Tensor) -> Latents:
        return self.evaluate(*noise)  # the prior is white already

    def infer(self, x: Tensor, draw: Draw) -> Latents:
        mean, log_variance = (value.to(x.dtype) for value in self.encoder(x))
        log_sigma = 0.5 * log_variance
        z = mean + log_sigma.exp() * draw(mean.shape)
        return self.evaluate(z)._replace(posterior=((mean, log_sigma),))

    def generator(self) -> list[nn.Module | nn.Parameter]:
        return [self.decoder, *([self.log_sigma] if isinstance(self.log_sigma, nn.Parameter) else [])]


def _made(factory: Any, image_shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    """Call a factory, which a command line or a checkpoint may have left as plain data; a network is one already."""
    if isinstance(factory, nn.Module):
        return factory
    if not isinstance(factory, Mapping):
        return factory(image_shape, latent_dim)
    module, _, name = factory["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(image_shape, latent_dim, **factory.get("init_args", {}))
