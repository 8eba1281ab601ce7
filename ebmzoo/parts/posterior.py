"""The calibration of EC-VAE's posterior: a chain revises codes, and the encoder is pulled after them."""

from __future__ import annotations

from torch import Tensor

from ebmzoo.mcmc import Langevin, Noise, Tethered
from ebmzoo.parts.objectives import squared_error

from .calibration import Dual
from .latent_vae import LatentVAE
from .potentials import Joint


class CalibratedPosterior(Dual):
    """Energy-calibrated variational learning (EC-VAE, section 4.1), a part of `ECVAE`.

    Idea: what the energy's chain is to the decoder, a chain on the VAE's own posterior is to the encoder. It begins at
    the code that the encoder drew, and the encoder is pulled towards where it ends.

    Equations:
        chain: U(z̃) = −log p(x, z̃) + T·w·½‖z̃ − z‖², from z ~ q(z|x); w = 1 is the paper's conditional term.
        encoder: the VAE's loss + λ₂·½‖z − z̃‖², whose gradient reaches the encoder alone.
        dual (Eq. 2): λ₂ ← clip(λ₂ + η·(d/floor − margin)/margin, 0, λ_max), floor = K·s·T·D as in `ECVAE`.

    At T = 1 the chain samples the posterior, its noise included; a lower T makes it seek the posterior's mode. The pull
    also narrows q, because a chain moves codes towards the mode and forgets where they began: σ² of a Gaussian
    posterior becomes v/(1 + λ₂·s/2) for a chain of one step, so a large λ₂ costs bound.

    Args:
        sampler: the chain; the paper: 5 steps. The step must suit the posterior: s/2 below its smallest variance.
        condition_weight: w above.
        weight: λ₂ at the start.
        rate: η; 0 keeps λ₂ fixed.
        margin: tolerated d, in noise floors.
        maximum: λ_max.

    Example:
        >>> import torch
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = GaussianVAE((4,), MLPEncoder, MLPDecoder, latent_dim=2)
        >>> CalibratedPosterior().revise(vae, torch.zeros(3, 4), torch.ones(3, 2), noise=0).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        sampler: Langevin = Langevin(steps=5, step_size=1e-2),  # noqa: B008 - frozen, holds no state
        condition_weight: float = 1.0,
        weight: float = 1.0,
        rate: float = 0.0,
        margin: float = 2.0,
        maximum: float = 100.0,
    ):
        super().__init__(weight, rate, margin, maximum)
        self.sampler, self.condition_weight = sampler, condition_weight

    def revise(self, vae: LatentVAE, x: Tensor, z: Tensor, noise: None | int | Noise) -> Tensor:
        """Where the chains of the codes ``z`` end, ``(B, d)``, with no gradient.

        Args:
            vae: whose posterior it is.
            x: the data, ``(B, …)``.
            z: draws of q(z|x), ``(B, d)``.
            noise: the source of the chain's noise.
        """
        z = z.detach()
        tethered = Tethered(Joint(vae, x), z, self.sampler.temperature * self.condition_weight)
        return self.sampler(tethered, z, noise).x

    def forward(self, z: Tensor, revised: Tensor) -> Tensor:
        """λ₂·½‖z − z̃‖², a scalar."""
        return self.weight * 0.5 * squared_error(z, revised).mean()
