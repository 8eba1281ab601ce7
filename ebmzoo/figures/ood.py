"""Whether a method's score tells its test data from other data, and from its own training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ebmzoo.mcmc import GeneratorNoise, Noise
from ebmzoo.methods.capabilities import Scores

from .base import Array, Figure, Findings, Left, Look, Number, Picture, numbers
from .plots import histograms


@dataclass(frozen=True)
class OutOfDistribution(Figure):
    """AUROC, AUPR and FPR95 of the score against each set, and the AUROC of test against training data.

    A set that is missing or does not fit gives a line, and the rest goes on.

    Args:
        n: at most so many examples of each set are scored; 2 or more.
        sets: data modules, or "interpolations" (midpoints of pairs), "uniform noise" and "constants"; None takes what
            the data module names, and these three.

    Raises:
        ValueError: for another name or number.
    """

    n: int = 1000
    sets: Sequence[Literal["interpolations", "uniform noise", "constants"] | LightningDataModule] | None = None

    name, part, of, needs = "out-of-distribution", "ood", "images", (Scores,)

    def __post_init__(self) -> None:
        if unknown := sorted({one for one in self.sets or () if isinstance(one, str)} - set(MADE)):
            raise ValueError(f"no out-of-distribution sets {unknown}: choose from {', '.join(MADE)}, or data modules")
        if self.n < 2:
            raise ValueError(f"scores need n of at least 2, not {self.n}")

    def __call__(self, look: Look) -> Findings:
        score, label = look.model.score, f"score of {type(look.model).__name__} (high: in-distribution)"
        test = look.examples("test", self.n)
        inside = look.over(score, test)
        train = look.over(score, look.examples("train", self.n))
        # Overfitting would lift the training data above the test data, and this below one half.
        protocol = look.of_data(len(inside), None, reference=look.name("train"), n_reference=len(train))
        yield Number("auroc_test_against_train", detection(inside, train).auroc, protocol)
        groups = {look.name("train"): train, look.name("test"): inside}
        yield Picture("score_train_test", histograms(groups, label, "training against test data"))
        yield Array("score/train", train)
        yield Array("score/test", inside)
        outside: dict[str, Tensor] = {}
        for one in self._sets(look):
            name = one if isinstance(one, str) else one.name
            try:
                x = MADE[one](test, _cpu_noise(look)) if isinstance(one, str) else self._examples(look, one)
                scores = look.over(score, x)
                found = detection(inside, scores)
            except (ValueError, FileNotFoundError) as error:
                yield Left(f"{self.name}, {name}", str(error))
                continue
            how = {"reference": name, "n_reference": len(scores), "seed": look.seed}
            settings = {"inside": look.name("test"), "positive": "in-distribution"}
            values = {f"ood_{key}_{name.replace(' ', '_')}": value for key, value in found._asdict().items()}
            yield from numbers(values, look.of_data(len(inside), None, settings=settings, **how))
            yield Array(f"score/{name}", scores)
            outside[name] = scores
        if outside:
            groups = {look.name("test"): inside, **outside}
            yield Picture("score_ood", histograms(groups, label, f"{look.name('test')} against other sets"))

    def _sets(self, look: Look) -> list[Any]:
        if self.sets is not None:
            return list(self.sets)
        return [*(look.data.outsiders() if hasattr(look.data, "outsiders") else ()), *MADE]

    def _examples(self, look: Look, data: Any) -> Tensor:
        """The first test images of another data module."""
        own, other = tuple(look.model.image_shape), tuple(data.image_shape)
        if own != other:
            raise ValueError(f"its images are {other}, the model's {own}")
        examples = data.reference("test")
        return torch.stack([examples[i] for i in range(min(self.n, len(examples)))])


def _cpu_noise(look: Look) -> GeneratorNoise:
    """For what is made of data before it goes to the device."""
    return GeneratorNoise(torch.Generator().manual_seed(look.seed))


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
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve  # slow to import

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
