"""Does the model copy? Nearest training neighbours of samples, beside those of held-out data."""

from __future__ import annotations

from collections.abc import Callable
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
_AT_ONCE = 500  # training images read at once
_SHOWN = 10


def neighbours(e: Evaluation, samples: Tensor) -> str | None:
    """Distances in pixels (of the centre, with ``crop``) and in features; a picture of pairs, and histograms."""
    crop = e.plan.crop
    most = max(1, int(_MOST_COMPARISONS / (len(e.data.reference("train")) * samples[0].numel())))
    ours, theirs = samples[:most], e.bytes_of("test", range(min(most, len(e.data.reference("test")))))

    def cut(images: Tensor) -> Tensor:
        return images if crop is None else centre_crop(images, crop)

    settings: dict[str, Any] = {"distance": "root mean square over pixels, in [-1, 1]"}
    if crop is not None:
        settings["crop"] = crop
    label = "pixel distance (root mean square, in [-1, 1])"
    title = f"samples and their nearest neighbours in {e.name('train')}"
    shown = {"samples": ours[:_SHOWN]}
    shown["nearest in pixels"] = _compare(e, "nn_rmse", label, cut, ours, theirs, settings=settings)
    e.pictures["neighbours"] = rows(shown, title)
    if e.plan.extractor is not None:
        network = find_extractor(e.plan.extractor, e.plan.inception_path)
        features = network.build(e.device)

        def of(images: Tensor) -> Tensor:
            parts = [features(network.bytes_of(part).to(e.device))[0].cpu() for part in images.split(100)]
            return torch.cat(parts)

        options = {"settings": {"distance": "root mean square over features"}, **about(network)}
        label = f"distance in {network.name} features (root mean square)"
        name = f"nearest in\n{network.name} features"
        shown[name] = _compare(e, "nn_feature", label, of, ours, theirs, **options)
        e.pictures["neighbours"] = rows(shown, title)
    return None


def _compare(
    e: Evaluation,
    name: str,
    label: str,
    see: Callable[[Tensor], Tensor],
    ours: Tensor,
    theirs: Tensor,
    **protocol: Any,
) -> Tensor:
    """Add the distances of samples and of test data to the training data, as ``see`` sees them all.

    Returns:
        The nearest training images of the first samples, uint8.
    """
    asked = torch.cat([see(ours), see(theirs)]).to(e.device)
    batches = torch.arange(len(e.data.reference("train"))).split(_AT_ONCE)
    found = nearest_neighbours(asked, (see(e.bytes_of("train", rows.tolist())) for rows in batches))
    distances = found.distance.split([len(ours), len(theirs)])
    definition = protocol.pop("settings")
    protocols = {
        name: e.of_samples(len(ours), split="train", settings=definition, **protocol),
        f"{name}_test": e.of_data(
            len(theirs), split="train", rounding=ROUNDING, settings={**definition, "of": e.name("test")}, **protocol
        ),
    }
    for (key, how), distance in zip(protocols.items(), distances, strict=True):
        e.results.add(f"{key}_mean", distance.mean().item(), how)
        e.results.add(f"{key}_median", distance.median().item(), how)
    groups = {"test images": distances[1], "samples": distances[0]}
    e.pictures[f"{name}_histogram"] = histograms(groups, label, "distance to the nearest training image")
    return e.bytes_of("train", found.row[: min(_SHOWN, len(ours))].tolist())
