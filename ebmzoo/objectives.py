"""The mathematics that methods share, in pieces of a few lines.

Every function takes and returns one value per example, ``(B,)``, unless it says otherwise; squared errors are sums over
pixels; likelihoods are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]
Decoder = Callable[[Tensor], Tensor]


def contrastive_gap(energy_data: Tensor, energy_model: Tensor) -> Tensor:
    """Mean energy of data minus mean energy of model samples: a scalar whose gradient is that of −log p.

    ∇L(ω) = E_data[∇E] − E_model[∇E] (EC-VAE section 2.3, VAEBM Eq. 7).

    Example:
        >>> contrastive_gap(torch.tensor([1.0, 3.0]), torch.tensor([5.0, 5.0])).item()
        -3.0
    """
    return energy_data.mean() - energy_model.mean()


def hinge(energy_data: Tensor, energy_model: Tensor) -> Tensor:
    """Mean of max(0, 1 + E(data)) + max(0, 1 − E(model)): a bounded pull in place of `contrastive_gap`'s.

    Example:
        >>> hinge(torch.tensor([-2.0, 0.5]), torch.tensor([0.0, 3.0])).item()
        1.25
    """
    return (F.relu(1 + energy_data) + F.relu(1 - energy_model)).mean()


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """‖x − y‖² of each example."""
    return (x - y).flatten(1).square().sum(1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) ‖ N(0, I)), both arguments ``(B, d)``.

    Example:
        >>> gaussian_kl(torch.ones(1, 2), torch.zeros(1, 2)).item()
        1.0
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; mean, diag exp(2·log_sigma)); ``log_sigma`` broadcasts to ``x``."""
    scaled = (x - mean) * (-log_sigma).exp()
    return -(0.5 * scaled.square() + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


class Elbo(NamedTuple):
    """The pieces of the evidence lower bound, each ``(B,)`` but ``mean`` and ``z``."""

    log_likelihood: Tensor
    kl: Tensor
    mean: Tensor
    z: Tensor

    @property
    def bound(self) -> Tensor:
        """The bound itself, E_q[log p(x|z)] − KL(q ‖ p), in nats."""
        return self.log_likelihood - self.kl


def elbo(x: Tensor, encoder: Encoder, decoder: Decoder, log_sigma: Tensor, xi: Tensor) -> Elbo:
    """The evidence lower bound of a Gaussian VAE with one draw from the posterior.

    Args:
        x: data ``(B, …)``.
        encoder: x to (mean, log-variance), both ``(B, d)``.
        decoder: z ``(B, d)`` to the mean of p(x|z).
        log_sigma: logarithm of the decoder's standard deviation; broadcasts to ``x``.
        xi: ``(B, d)`` standard normal noise of the reparametrisation.
    """
    mean, log_variance = (value.to(x.dtype) for value in encoder(x))
    z = mean + (0.5 * log_variance).exp() * xi
    reconstruction = decoder(z).to(x.dtype)
    return Elbo(gaussian_log_prob(x, reconstruction, log_sigma), gaussian_kl(mean, log_variance), reconstruction, z)


def importance_weighted_bound(
    x: Tensor,
    encoder: Encoder,
    decoder: Decoder,
    log_sigma: Tensor,
    draw: Callable[[tuple[int, ...]], Tensor],
    samples: int,
) -> Tensor:
    """The importance-weighted bound log 1/k Σ p(x, z_k)/q(z_k|x), nats; with one sample it is the ELBO's estimate.

    Args:
        x: data, as in `elbo`.
        encoder: as in `elbo`.
        decoder: as in `elbo`.
        log_sigma: as in `elbo`.
        draw: gives standard normal noise of a shape.
        samples: k.
    """
    mean, log_variance = (value.to(x.dtype) for value in encoder(x))
    log_weights = []
    for _ in range(samples):
        xi = draw(tuple(mean.shape))
        z = mean + (0.5 * log_variance).exp() * xi
        log_joint = gaussian_log_prob(x, decoder(z).to(x.dtype), log_sigma) + gaussian_log_prob(
            z, 0 * z, z.new_zeros(())
        )
        log_weights.append(log_joint - gaussian_log_prob(z, mean, 0.5 * log_variance))
    return torch.logsumexp(torch.stack(log_weights), 0) - math.log(samples)


class LatentVariables(Protocol):
    """What a pass through a VAE of VAEBM gives: Gaussians as (mean, log standard deviation), groups top down."""

    @property
    def z(self) -> tuple[Tensor, ...]:
        """The latents, one ``(B, …)`` a group."""

    @property
    def prior(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """p(z_l | z_<l)."""

    @property
    def posterior(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """q(z_l | z_<l, x)."""

    @property
    def mean(self) -> Tensor:
        """Mean of p(x|z)."""

    @property
    def log_sigma(self) -> Tensor:
        """Log standard deviation of p(x|z)."""


def normal_kl(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians given as (mean, log standard deviation).

    Example:
        >>> one, zero = torch.ones(1, 2), torch.zeros(())
        >>> normal_kl((one, 0 * one), (zero, zero)).item()
        1.0
    """
    (mean_q, log_q), (mean_p, log_p) = q, p
    square = (2 * (log_q - log_p)).exp() + ((mean_q - mean_p) * (-log_p).exp()).square()
    return (log_p - log_q + 0.5 * (square - 1)).flatten(1).sum(1)


def latent_bound(x: Tensor, latents: LatentVariables) -> tuple[Tensor, Tensor]:
    """log p(x|z) ``(B,)`` and the KL of each group ``(groups, B)``: what the ELBO of a hierarchy consists of."""
    kl = [normal_kl(q, p) for q, p in zip(latents.posterior, latents.prior, strict=True)]
    return gaussian_log_prob(x, latents.mean, latents.log_sigma), torch.stack(kl)


def latent_log_joint(x: Tensor, latents: LatentVariables) -> Tensor:
    """log p(x, z) of a VAE with groups of latents."""
    log_p = gaussian_log_prob(x, latents.mean, latents.log_sigma)
    for z, (mean, log_sigma) in zip(latents.z, latents.prior, strict=True):
        log_p = log_p + gaussian_log_prob(z, mean, log_sigma)
    return log_p


def latent_log_weight(x: Tensor, latents: LatentVariables) -> Tensor:
    """log p(x, z)/q(z|x): the logarithm of the mean of such weights is the importance-weighted bound."""
    log_weight = latent_log_joint(x, latents)
    for z, (mean, log_sigma) in zip(latents.z, latents.posterior, strict=True):
        log_weight = log_weight - gaussian_log_prob(z, mean, log_sigma)
    return log_weight


def balanced_kl(kl: Tensor, sizes: Sequence[int]) -> Tensor:
    """The KL terms of the groups weighted in proportion to their mean per latent dimension, so that none collapses.

    NVAE's KL balancing for the warm-up: the weights have mean one and carry no gradient.

    Args:
        kl: ``(groups, B)``.
        sizes: number of latent dimensions of each group.

    Example:
        >>> round(balanced_kl(torch.tensor([[1.0], [3.0]]), [1, 1]).item(), 2)  # weights 0.5 and 1.5, nearly
        5.0
    """
    # The constant keeps a group that has died from losing its weight for ever.
    share = (kl.detach().mean(1) + 0.01) / kl.new_tensor(list(sizes))
    return ((share / share.mean())[:, None] * kl).sum(0)


def lipschitz_penalty(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean of (‖∇E(x)‖ − 1)², a scalar that keeps slopes near one (WGAN-GP, Gulrajani et al. 2017, Eq. 3).

    Example:
        >>> lipschitz_penalty(lambda x: 3 * x.sum(1), torch.zeros(4, 1)).item()
        4.0
    """
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


class Penalty:
    """Base of what is added to an energy's loss; called with the energy, both batches and both energies."""

    def __call__(
        self, energy: nn.Module, data: Tensor, negatives: Tensor, energy_data: Tensor, energy_model: Tensor
    ) -> Tensor:
        """A scalar that is added to the energy's loss."""
        raise TypeError(f"{type(self).__name__} is the base of the penalties: use one of the others")


@dataclass(frozen=True)
class EnergyL2(Penalty):
    """weight · mean(E(data)² + E(model)²): keeps the energies near zero (IGEBM).

    Example:
        >>> EnergyL2(0.5)(None, None, None, torch.tensor([1.0]), torch.tensor([3.0])).item()
        5.0
    """

    weight: float

    def __call__(
        self, energy: nn.Module, data: Tensor, negatives: Tensor, energy_data: Tensor, energy_model: Tensor
    ) -> Tensor:
        return self.weight * (energy_data.square() + energy_model.square()).mean()


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """weight · mean‖∇E(data)‖²: flattens the energy where the data is (zero-centred, on data)."""

    weight: float

    def __call__(
        self, energy: nn.Module, data: Tensor, negatives: Tensor, energy_data: Tensor, energy_model: Tensor
    ) -> Tensor:
        x = data.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).float().sum(), x, create_graph=True)
        return self.weight * gradient.flatten(1).square().sum(1).mean()


@dataclass(frozen=True)
class SpectralPenalty(Penalty):
    """weight · sum of the spectral norms of the energy's convolutions (VAEBM, appendix E: weight 0.2)."""

    weight: float = 0.2

    def __call__(
        self, energy: nn.Module, data: Tensor, negatives: Tensor, energy_data: Tensor, energy_model: Tensor
    ) -> Tensor:
        norms = getattr(energy, "spectral_penalty", None)
        if norms is None:
            raise ValueError(f"{type(energy).__name__} has no spectral_penalty(): SpectralPenalty needs VAEBMEnergy")
        return self.weight * norms()
