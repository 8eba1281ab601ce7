"""The calibration of EC-VAE's posterior: a chain revises codes, and the encoder is pulled after them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Langevin, Noise, Tethered
from ebmzoo.objectives import dual_ascent

from .potentials import Joint


class CalibratedPosterior(nn.Module):
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
        dual_rate: η; 0 keeps λ₂ fixed.
        dual_margin: tolerated d, in noise floors.
        dual_max: λ_max.

    Example:
        >>> posterior = CalibratedPosterior(Langevin(steps=2, step_size=0.1))
        >>> x, z, log_sigma = torch.zeros(3, 4), torch.ones(3, 4), torch.zeros(())
        >>> posterior.revise(x, z, nn.Identity(), log_sigma, None, noise=0).shape
        torch.Size([3, 4])
    """

    weight: Tensor

    def __init__(
        self,
        sampler: Langevin = Langevin(steps=5, step_size=1e-2),  # noqa: B008 - frozen, holds no state
        condition_weight: float = 1.0,
        weight: float = 1.0,
        dual_rate: float = 0.0,
        dual_margin: float = 2.0,
        dual_max: float = 100.0,
    ):
        super().__init__()
        self.sampler, self.condition_weight = sampler, condition_weight
        self.dual_rate, self.dual_margin, self.dual_max = dual_rate, dual_margin, dual_max
        self.register_buffer("weight", torch.tensor(float(weight)))

    def revise(
        self, x: Tensor, z: Tensor, decoder: nn.Module, log_sigma: Tensor, prior: Any, noise: None | int | Noise
    ) -> Tensor:
        """Where the chains of the codes ``z`` end, ``(B, d)``, with no gradient.

        Args:
            x: the data, ``(B, …)``.
            z: draws of q(z|x), ``(B, d)``.
            decoder: z to the mean of p(x|z).
            log_sigma: logarithm of the decoder's standard deviation.
            prior: p(z), with ``log_prob``; None is N(0, I).
            noise: the source of the chain's noise.
        """
        posterior, weight = Joint(decoder, x, log_sigma, prior), self.sampler.temperature * self.condition_weight
        return self.sampler(Tethered(posterior, z.detach(), weight), z.detach(), noise).x

    def ascend(self, ratio: Tensor) -> None:
        """The dual step, from d in noise floors."""
        if self.dual_rate:
            dual_ascent(self.weight, ratio, self.dual_rate, self.dual_margin, self.dual_max)
