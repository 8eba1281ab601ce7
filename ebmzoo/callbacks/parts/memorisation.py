"""Does the model copy? Nearest training neighbours of samples, beside those of held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.callbacks.figures import histograms, rows
from ebmzoo.callbacks.parts.generation import about
from ebmzoo.metrics import find_extractor, nearest_neighbours
from ebmzoo.metrics.neighbours import centre_crop
from ebmzoo.metrics.protocol import ROUNDING

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["neighbours"]

_MOST_COMPARISONS = 5e11  # values compared in the search: a minute or two on a CPU
_MOST_VALUES = 2e9  # of the training images held for it, a byte each
_SHOWN = 10


def neighbours(e: Evaluation, samples: Tensor) -> str | None:
    """Distances in pixels (of the centre, with ``crop``) and in features; a picture of pairs, and histograms."""
    reference, held_out, crop = e.data.reference("train"), e.data.reference("test"), e.plan.crop
    pixels = samples[0].numel()
    if len(reference) * pixels > _MOST_VALUES:
        return f"{len(reference):,} training images of {pixels:,} values are more than fit in memory"
    most = max(1, int(_MOST_COMPARISONS / (len(reference) * pixels)))
    train = e.bytes_of(reference, len(reference))
    ours, theirs = samples[:most], e.bytes_of(held_out, most)
    cut = [images if crop is None else centre_crop(images, crop) for images in (ours, theirs, train)]
    settings: dict[str, Any] = {"distance": "root mean square over pixels, in [-1, 1]"}
    if crop is not None:
        settings["crop"] = crop
    pairs = _compare(e, "nn_rmse", "pixel distance (root mean square, in [-1, 1])", *cut, settings=settings)
    shown = {"samples": ours[:_SHOWN], "nearest in pixels": train[pairs[:_SHOWN]]}
    if e.plan.extractor is not None:
        network = find_extractor(e.plan.extractor, e.plan.inception_path)
        features = network.build(e.device)

        def of(images: Tensor) -> Tensor:
            parts = [features(network.bytes_of(part).to(e.device))[0].cpu() for part in images.split(100)]
            return torch.cat(parts)

        settings = {"distance": "root mean square over features"}
        options = {"settings": settings, **about(network)}
        label = f"distance in {network.name} features (root mean square)"
        pairs = _compare(e, "nn_feature", label, of(ours), of(theirs), of(train), **options)
        shown[f"in {network.name} features"] = train[pairs[:_SHOWN]]
    e.pictures["neighbours"] = rows(shown, f"samples and their nearest neighbours in {e.name('train')}")
    return None


def _compare(
    e: Evaluation, name: str, label: str, ours: Tensor, theirs: Tensor, train: Tensor, **protocol: Any
) -> Tensor:
    """Add the distances of samples and of test data to the training data; the samples' neighbours, as rows."""
    train = train.to(e.device)
    found = {key: nearest_neighbours(x.to(e.device), train) for key, x in (("ours", ours), ("theirs", theirs))}
    definition = {**protocol.pop("settings"), "of": e.name("test")}
    protocols = {
        name: e.of_samples(
            len(ours), split="train", settings={k: v for k, v in definition.items() if k != "of"}, **protocol
        ),
        f"{name}_test": e.of_data(len(theirs), split="train", rounding=ROUNDING, settings=definition, **protocol),
    }
    for (key, how), side in zip(protocols.items(), ("ours", "theirs"), strict=True):
        distance = found[side].distance
        e.results.add(f"{key}_mean", distance.mean().item(), how)
        e.results.add(f"{key}_median", distance.median().item(), how)
    groups = {"test images": found["theirs"].distance, "samples": found["ours"].distance}
    e.pictures[f"{name}_histogram"] = histograms(groups, label, "distance to the nearest training image")
    return found["ours"].row.cpu()
