"""Nearest neighbours among the training images: does a model copy?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ebmzoo.images import from_uint8
from ebmzoo.metrics.protocol import ROUNDING

from .base import Figure, Findings, Found, Look, Number, Picture
from .plots import histograms, rows

_MOST_COMPARISONS = 5e11  # values compared in the search: a minute or two on a CPU
_AT_ONCE = 500  # training images read at once
_VALUES = 20_000_000  # of the images that are compared at once, as float64
_SHOWN = 10


@dataclass(frozen=True)
class Neighbours(Figure):
    """Distances of samples to the nearest training images, in pixels and in features, beside those of test images.

    A picture of pairs, and histograms.

    Args:
        crop: px of the centre of images that pixels are compared of; None compares whole images.
    """

    crop: int | None = None

    name, part, of, takes = "nearest neighbours", "memorisation", "images", "samples"

    def __call__(self, look: Look) -> Findings:
        samples, crop = look.samples, self.crop
        most = max(1, int(_MOST_COMPARISONS / (len(look.data.reference("train")) * samples[0].numel())))
        both = samples[:most], look.bytes_of("test", range(min(most, len(look.data.reference("test")))))
        title = f"samples and their nearest neighbours in {look.name('train')}"
        shown = {"samples": both[0][:_SHOWN]}

        def cut(images: Tensor) -> Tensor:
            return images if crop is None else centre_crop(images, crop)

        settings: dict[str, Any] = {"distance": "root mean square over pixels, in [-1, 1]"}
        settings |= {} if crop is None else {"crop": crop}
        label = "pixel distance (root mean square, in [-1, 1])"
        shown["nearest in pixels"] = yield from _compared(look, "nn_rmse", label, cut, *both, settings=settings)
        yield Picture("neighbours", rows(shown, title))
        if look.extractor is None:
            return
        network = look.features
        features = network.build(look.device)

        def seen(images: Tensor) -> Tensor:
            parts = images.split(100)
            return torch.cat([features(network.bytes_of(part).to(look.device))[0].cpu() for part in parts])

        how = {"settings": {"distance": "root mean square over features"}, **look.by_features}
        label, title_of = (
            f"distance in {network.name} features (root mean square)",
            f"nearest in\n{network.name} features",
        )
        shown[title_of] = yield from _compared(look, "nn_feature", label, seen, *both, **how)
        yield Picture("neighbours", rows(shown, title))


def _compared(
    look: Look,
    name: str,
    label: str,
    see: Callable[[Tensor], Tensor],
    ours: Tensor,
    theirs: Tensor,
    settings: dict[str, Any],
    **how: Any,
) -> Generator[Found, None, Tensor]:
    """The distances of samples and of test images to the training images, as ``see`` sees them all.

    Returns:
        The nearest training images of the first samples, uint8.
    """
    asked = torch.cat([see(ours), see(theirs)]).to(look.device)
    batches = torch.arange(len(look.data.reference("train"))).split(_AT_ONCE)
    found = nearest_neighbours(asked, (see(look.bytes_of("train", part.tolist())) for part in batches))
    own, held_out = found.distance.split([len(ours), len(theirs)])
    of_test = {"rounding": ROUNDING, "settings": {**settings, "of": look.name("test")}, **how}
    for key, distance, protocol in (
        (name, own, look.of_samples(len(ours), "train", settings=settings, **how)),
        (f"{name}_test", held_out, look.of_data(len(theirs), "train", **of_test)),
    ):
        yield Number(f"{key}_mean", distance.mean().item(), protocol)
        yield Number(f"{key}_median", distance.median().item(), protocol)
    groups = {"test images": held_out, "samples": own}
    yield Picture(f"{name}_histogram", histograms(groups, label, "distance to the nearest training image"))
    return look.bytes_of("train", found.row[: min(_SHOWN, len(ours))].tolist())


class Nearest(NamedTuple):
    """Nearest neighbours of n samples.

    Attributes:
        distance: ``(n,)`` float64, root mean squared difference per value, in the data's units.
        row: ``(n,)`` int64, the neighbour's row.
    """

    distance: Tensor
    row: Tensor


def centre_crop(x: Tensor, side: int) -> Tensor:
    """The middle ``side`` x ``side`` pixels of images ``(n, C, H, W)``: where a face is, without its background.

    Raises:
        ValueError: if the images are smaller.

    Example:
        >>> centre_crop(torch.arange(16.0).view(1, 1, 4, 4), 2).flatten()
        tensor([ 5.,  6.,  9., 10.])
    """
    height, width = x.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise ValueError(f"a centre crop of {side} px does not fit images of {height} x {width} px")
    top, left = (height - side) // 2, (width - side) // 2
    return x[..., top : top + side, left : left + side]


def nearest_neighbours(samples: Tensor, train: Tensor | Iterable[Tensor], chunk: int = 2000) -> Nearest:
    """Find each sample's nearest training image, in pixels or in any features.

    A model that copies has distances well below those of held-out data, which are the yardstick.

    Args:
        samples: ``(n, ...)``, floats in the data's units or uint8 images, which become floats in [-1, 1].
        train: ``(m, ...)``, the same, or batches of it one after another, so that it need not fit in memory.
        chunk: rows compared at once, fewer of large images.

    Raises:
        ValueError: if either is empty, or their shapes differ.

    Example:
        >>> import torch
        >>> train = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
        >>> nearest_neighbours(torch.tensor([[3.0, 4.0]]), train)  # sqrt(1 / 2)
        Nearest(distance=tensor([0.7071], dtype=torch.float64), row=tensor([1]))
    """
    pixels = max(1, samples.shape[1:].numel())
    chunk = max(1, min(chunk, _VALUES // pixels))
    best = torch.full((len(samples),), float("inf"), dtype=torch.float64, device=samples.device)
    row = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    start = 0
    for batch in (train,) if isinstance(train, Tensor) else train:
        if samples.shape[1:] != batch.shape[1:]:
            raise ValueError(f"{tuple(samples.shape)} and {tuple(batch.shape)} are not examples of one shape")
        for part in batch.split(chunk):
            right = _rows(part.to(samples.device))
            for first in range(0, len(samples), chunk):
                rows = slice(first, first + chunk)
                distance, neighbour = torch.cdist(_rows(samples[rows]), right).min(1)
                closer = distance < best[rows]
                best[rows] = torch.where(closer, distance, best[rows])
                row[rows] = torch.where(closer, neighbour + start, row[rows])
            start += len(part)
    if not start or not len(samples):
        raise ValueError(f"{len(samples)} samples and {start} training examples: neighbours need one of each")
    return Nearest(best / pixels**0.5, row)


def _rows(x: Tensor) -> Tensor:
    return (from_uint8(x) if x.dtype == torch.uint8 else x).flatten(1).double()
