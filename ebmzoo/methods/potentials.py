"""Posteriors of codes as potentials of chains in z."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ebmzoo.mcmc import Potential
from ebmzoo.mcmc.potential import squared_norm
from ebmzoo.objectives import gaussian_log_joint

__all__ = ["Joint", "Posterior"]


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
    """−log p(x, z) of a Gaussian VAE with x given, under whatever prior, nats.

    Args:
        decoder: of ``(B, d)`` to means of p(x|z).
        data: x.
        log_sigma: logarithm of the decoder's standard deviation.
        prior: p(z), with ``log_prob``; None is N(0, I).
    """

    def __init__(self, decoder: nn.Module, data: Tensor, log_sigma: Tensor, prior: Any = None):
        super().__init__()
        self.decoder, self.data, self.log_sigma, self.prior = decoder, data, log_sigma, prior

    def forward(self, z: Tensor) -> Tensor:
        log_prior = None if self.prior is None else self.prior.log_prob
        return -gaussian_log_joint(self.data, z, self.decoder, self.log_sigma, log_prior)
