"""Out-of-distribution detection: how well a score tells test data from other data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from ebmzoo.mcmc import Noise

__all__ = ["MADE", "Detection", "constants", "detection", "interpolations", "uniform_noise"]


class Detection(NamedTuple):
    """How well scores detect; in-distribution is the positive class.

    Attributes:
        auroc: area under the ROC curve: the probability that an example from inside scores above one from outside.
        aupr: area under precision and recall, as average precision; it depends on the numbers of both.
        fpr95: share of the outside that passes where at least 95% of the inside do.
    """

    auroc: float
    aupr: float
    fpr95: float


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """Hold the scores of in-distribution examples against those of others.

    Args:
        inside: scores ``(n,)``; high should mean in-distribution.
        outside: scores ``(m,)``.

    Raises:
        ValueError: if either is empty or holds a NaN.

    Example:
        >>> detection(torch.tensor([3.0, 4.0, 5.0]), torch.tensor([1.0, 3.5]))  # 5 of 6 pairs in order
        Detection(auroc=0.833..., aupr=0.916..., fpr95=0.5)
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"detection needs scores on both sides, not {len(inside)} and {len(outside)}")
    scores = torch.cat([inside, outside]).double().cpu()
    if bool(scores.isnan().any()):
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN")
    values = scores.clamp(torch.finfo(torch.float64).min, torch.finfo(torch.float64).max).numpy()
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).int().numpy()
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    return Detection(
        float(roc_auc_score(labels, values)),
        float(average_precision_score(labels, values)),
        float(false[true >= 0.95][0]),
    )


def interpolations(x: Tensor, noise: Noise) -> Tensor:
    """Midpoints of pairs: each example with another, chosen at random.

    Example:
        >>> from ebmzoo.mcmc import as_noise
        >>> interpolations(torch.tensor([[0.0], [2.0]]), as_noise(0)).flatten()
        tensor([1., 1.])
    """
    if len(x) < 2:
        raise ValueError("interpolations need at least two examples")
    # A step of 1 to n − 1 in the cycle of examples: never the example itself.
    partner = (torch.arange(len(x)) + 1 + noise.integers(len(x) - 1, (len(x),))) % len(x)
    return (x + x[partner.to(x.device)]) / 2


def uniform_noise(x: Tensor, noise: Noise) -> Tensor:
    """Noise uniform in [-1, 1), as many and of the shape of ``x``."""
    return noise.uniform(x.shape, like=x) * 2 - 1


def constants(x: Tensor, noise: Noise) -> Tensor:
    """One level for each channel of each image, uniform in [-1, 1), as many and of the shape of ``x``."""
    level = noise.uniform(tuple(x.shape[:2]), like=x) * 2 - 1
    return level.view(*x.shape[:2], *[1] * (x.ndim - 2)).expand(x.shape).clone()


#: what is made out of the test data themselves, by name
MADE: dict[str, Callable[[Tensor, Noise], Tensor]] = {
    "interpolations": interpolations,
    "uniform noise": uniform_noise,
    "constants": constants,
}


def check_made(names: Sequence[str]) -> None:
    """Refuse names that are not in `MADE`.

    Raises:
        ValueError: one line that names them and what there is.
    """
    if unknown := sorted(set(names) - set(MADE)):
        raise ValueError(f"no out-of-distribution sets {unknown}: choose from {', '.join(MADE)}, or give data modules")
