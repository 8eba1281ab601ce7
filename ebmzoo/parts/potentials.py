"""Posteriors of codes as potentials of chains in z."""

from __future__ import annotations

from torch import Tensor, nn

from ebmzoo.mcmc import Potential
from ebmzoo.mcmc.potential import squared_norm

from .latent_vae import LatentVAE


class Posterior(Potential):
    """−log p(x, z) with x given and z ~ N(0, I), up to a constant: (1/2σ²)·‖x − decoder(z)‖² + ½‖z‖².

    Args:
        decoder: of ``(B, d)`` to means of p(x|z).
        data: x.
        precision: 1/σ².

    Example:
        >>> import torch
        >>> Posterior(nn.Identity(), torch.zeros(1, 2), 3.0)(torch.ones(1, 2)).item()
        4.0
    """

    def __init__(self, decoder: nn.Module, data: Tensor, precision: float):
        super().__init__()
        self.decoder, self.data, self.precision = decoder, data, precision

    def tilt(self, z: Tensor) -> Tensor:
        """Without the white noise's ½‖z‖²."""
        return 0.5 * self.precision * squared_norm(self.decoder(z).to(self.data.dtype) - self.data)

    def forward(self, z: Tensor) -> Tensor:
        return self.tilt(z) + 0.5 * squared_norm(z)


class Joint(Potential):
    """−log p(x, z) of a VAE with x given, under whatever prior, nats.

    Args:
        vae: the VAE.
        data: x.
    """

    def __init__(self, vae: LatentVAE, data: Tensor):
        super().__init__()
        self.vae, self.data = vae, data

    def forward(self, z: Tensor) -> Tensor:
        return -self.vae.log_joint(self.data, self.vae.evaluate(*self.vae.groups(z)))
