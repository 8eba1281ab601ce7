"""The mathematics that methods share, in pieces of a few lines.

Every function takes and returns one value per example, ``(B,)``, unless it says otherwise; squared errors are sums over
pixels; likelihoods are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.mcmc import Noise


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


def denoising_loss(r: Tensor, x: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """w(σ)·‖r − x‖² with w = (σ² + σ_d²)/(σ·σ_d)², which gives all noise levels about the same weight (EDM, Table 1).

    Args:
        r: the denoised examples.
        x: the clean ones.
        sigma: noise level of each, ``(B,)``.
        sigma_data: σ_d, the data's standard deviation.

    Example:
        >>> denoising_loss(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0.5]), 0.5).item()
        16.0
    """
    weight = (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
    return weight * squared_error(r, x)


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


def slope(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇E at each example, ``(B, D)``, with a graph that leads to the energy's parameters."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x).float().sum(), x, create_graph=True)
    return gradient.flatten(1)


def lipschitz_penalty(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean of (‖∇E(x)‖ − 1)², a scalar that keeps slopes near one (WGAN-GP, Gulrajani et al. 2017, Eq. 3).

    Example:
        >>> lipschitz_penalty(lambda x: 3 * x.sum(1), torch.zeros(4, 1)).item()
        4.0
    """
    return (slope(energy, x).norm(dim=1) - 1).square().mean()


class Contrasted(NamedTuple):
    """What an energy's loss holds against each other.

    Attributes:
        data: as the energy saw them, ``(B, …)``.
        negatives: ``(B, …)``.
        energy_data: E(data), ``(B,)``.
        energy_model: E(negatives), ``(B,)``.
    """

    data: Tensor
    negatives: Tensor
    energy_data: Tensor
    energy_model: Tensor


class Penalty:
    """Base of what is added to an energy's loss; called with the network, what was held against what, and a noise."""

    def __call__(self, energy: nn.Module, batch: Contrasted, noise: Noise) -> Tensor:
        """A scalar that is added to the energy's loss."""
        raise TypeError(f"{type(self).__name__} is the base of the penalties: use one of the others")


@dataclass(frozen=True)
class EnergyL2(Penalty):
    """weight · mean(E(data)² + E(model)²): keeps the energies near zero (IGEBM).

    Example:
        >>> EnergyL2(0.5)(None, Contrasted(None, None, torch.tensor([1.0]), torch.tensor([3.0])), None).item()
        5.0
    """

    weight: float

    def __call__(self, energy: nn.Module, batch: Contrasted, noise: Noise) -> Tensor:
        return self.weight * (batch.energy_data.square() + batch.energy_model.square()).mean()


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """weight · mean‖∇E(data)‖²: flattens the energy where the data is (zero-centred, on data)."""

    weight: float

    def __call__(self, energy: nn.Module, batch: Contrasted, noise: Noise) -> Tensor:
        return self.weight * slope(energy, batch.data).square().sum(1).mean()


@dataclass(frozen=True)
class SpectralPenalty(Penalty):
    """weight · sum of the spectral norms of the energy's convolutions (VAEBM, appendix E: weight 0.2)."""

    weight: float = 0.2

    def __call__(self, energy: nn.Module, batch: Contrasted, noise: Noise) -> Tensor:
        norms = getattr(energy, "spectral_penalty", None)
        if norms is None:
            raise ValueError(f"{type(energy).__name__} has no spectral_penalty(): SpectralPenalty needs VAEBMEnergy")
        return self.weight * norms()


@dataclass(frozen=True)
class LipschitzPenalty(Penalty):
    """weight · mean (‖∇E(x′)‖ − 1)², x′ = u·data + (1 − u)·negatives, u uniform (WGAN-GP; its paper: weight 10)."""

    weight: float

    def __call__(self, energy: nn.Module, batch: Contrasted, noise: Noise) -> Tensor:
        data = batch.data
        share = noise.uniform((len(data), *[1] * (data.dim() - 1)), data)
        between = share * data + (1 - share) * batch.negatives
        return self.weight * lipschitz_penalty(energy, between)
