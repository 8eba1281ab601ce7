"""Which modes of a known mixture the samples cover, and how evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Modes:
    """How samples are spread over the modes of a mixture.

    Attributes:
        covered: modes with at least a tenth of their fair share of samples within 4 s.
        total: number of modes M.
        high_quality_share: share of samples within 4 s of some mode.
        least_share: the least mode's share of samples within 4 s, in fair shares (1/M).
        kl: KL divergence, in nats, of the shares by nearest mean from the uniform distribution over modes.
        within_std: standard deviation of the samples within 4 s around their mode's mean, per coordinate, in
            the data's units; NaN where there are none.
    """

    covered: int
    total: int
    high_quality_share: float
    least_share: float
    kl: float
    within_std: float


def share_divergence(counts: Tensor) -> float:
    """KL divergence, in nats, of observed shares from the uniform distribution over the same classes.

    Args:
        counts: ``(M,)`` samples in each class.

    Raises:
        ValueError: if there are none.

    Example:
        >>> import torch
        >>> round(share_divergence(torch.tensor([5, 0])), 4)  # log 2
        0.6931
    """
    total = counts.sum()
    if not total > 0:
        raise ValueError("shares of no samples: give at least one")
    shares = counts.double() / total
    return torch.special.xlogy(shares, shares).sum().item() + math.log(len(counts))


def mode_coverage(
    samples: Tensor, means: Tensor, std: Tensor | float, within: float = 4.0, chunk: int = 10_000
) -> Modes:
    """Mode coverage of samples from a mixture of equally likely round Gaussians.

    Args:
        samples: ``(n, D)`` in the data's units.
        means: ``(M, D)``, the modes.
        std: standard deviation s of each mode in each direction, one number or ``(M,)``.
        within: how many s from its mean a sample still belongs to a mode.
        chunk: samples at once.

    Raises:
        ValueError: if there are no samples, or the shapes do not fit.

    Example:
        >>> import torch
        >>> means = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
        >>> found = mode_coverage(torch.tensor([[0.0, 0.1], [5.0, 0.0]]), means, 0.1)
        >>> found.covered, found.high_quality_share
        (1, 0.5)
    """
    if samples.ndim != 2 or means.ndim != 2 or samples.shape[1] != means.shape[1] or not len(samples):
        raise ValueError(f"samples (n, D) and modes (M, D), not {tuple(samples.shape)}, {tuple(means.shape)}")
    means = means.to(samples.device).double()
    radius = within * torch.as_tensor(std, dtype=torch.float64, device=samples.device).expand(len(means))
    nearest, good = [], []
    squared = means.new_zeros(())
    for part in samples.split(chunk):
        distances = torch.cdist(part.double(), means, compute_mode="donot_use_mm_for_euclid_dist")
        distance, label = distances.min(1)
        inside = distance <= radius[label]
        squared = squared + distance[inside].square().sum()
        nearest.append(label)
        good.append(label[inside])
    count = len(means)
    near = torch.bincount(torch.cat(nearest), minlength=count)
    high = torch.bincount(torch.cat(good), minlength=count)
    fair = len(samples) / count
    spread = (squared / (high.sum() * samples.shape[1])).sqrt().item()
    return Modes(
        covered=int((high >= 0.1 * fair).sum()),
        total=count,
        high_quality_share=high.sum().item() / len(samples),
        least_share=high.min().item() / fair,
        kl=share_divergence(near),
        within_std=spread,
    )
