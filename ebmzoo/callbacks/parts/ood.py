"""Whether a method's score tells its test data from other data, and from its own training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.callbacks.figures import histograms
from ebmzoo.methods.capabilities import Scores
from ebmzoo.metrics.ood import MADE, detection

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["out_of_distribution"]


def out_of_distribution(e: Evaluation) -> str | None:
    """AUROC, AUPR and FPR95 of the score against each set, and the same of training against test data.

    A set that is missing or does not fit gives a line, and the rest goes on.
    """
    if not isinstance(e.model, Scores):
        return f"{type(e.model).__name__} has no score"
    n = e.plan.n_scored
    test = e.examples("test", n)
    inside = _scores(e, test)
    train = _scores(e, e.examples("train", n))
    found = detection(inside, train)
    # Overfitting would lift the training data above the test data, and this below one half.
    protocol = e.of_data(len(inside), split=None, reference=e.name("train"), n_reference=len(train))
    e.results.add("auroc_test_against_train", found.auroc, protocol)
    label = f"score of {type(e.model).__name__} (high: in-distribution)"
    groups = {e.name("train"): train, e.name("test"): inside}
    e.pictures["score_train_test"] = histograms(groups, label, "training against test data")
    e.arrays |= {"score/train": train, "score/test": inside}
    outside: dict[str, Tensor] = {}
    for one in _sets(e):
        name = one if isinstance(one, str) else one.name
        try:
            x = MADE[one](test, e.cpu_noise()) if isinstance(one, str) else _examples(e, one)
            scores = _scores(e, x)
            found = detection(inside, scores)
        except (ValueError, FileNotFoundError) as error:
            e.skip(f"out-of-distribution, {name}", str(error))
            continue
        protocol = e.of_data(
            len(inside),
            split=None,
            seed=e.plan.seed,
            reference=name,
            n_reference=len(scores),
            settings={"inside": e.name("test"), "positive": "in-distribution"},
        )
        for metric, value in found._asdict().items():
            e.results.add(f"ood_{metric}_{name.replace(' ', '_')}", value, protocol)
        outside[name] = e.arrays[f"score/{name}"] = scores
    if outside:
        title = f"{e.name('test')} against other sets"
        e.pictures["score_ood"] = histograms({e.name("test"): inside, **outside}, label, title)
    return None


def _sets(e: Evaluation) -> list[Any]:
    if e.plan.ood is not None:
        return list(e.plan.ood)
    return [*(e.data.outsiders() if hasattr(e.data, "outsiders") else ()), *MADE]


def _examples(e: Evaluation, data: Any) -> Tensor:
    """The first test images of another data module."""
    own, other = tuple(e.model.image_shape), tuple(data.image_shape)
    if own != other:
        raise ValueError(f"its images are {other}, the model's {own}")
    examples = data.reference("test")
    return torch.stack([examples[i] for i in range(min(e.plan.n_scored, len(examples)))])


def _scores(e: Evaluation, x: Tensor) -> Tensor:
    return torch.cat([e.model.score(part.to(e.like)).double().cpu() for part in x.split(e.plan.batch_size)])
