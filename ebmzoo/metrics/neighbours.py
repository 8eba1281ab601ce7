"""Nearest neighbours among the training images: does a model copy?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmzoo.images import from_uint8

__all__ = ["Neighbours", "centre_crop", "nearest_neighbours"]


_VALUES = 20_000_000  # of the images that are compared at once, as float64


class Neighbours(NamedTuple):
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


def nearest_neighbours(samples: Tensor, train: Tensor | Iterable[Tensor], chunk: int = 2000) -> Neighbours:
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
        Neighbours(distance=tensor([0.7071], dtype=torch.float64), row=tensor([1]))
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
    return Neighbours(best / pixels**0.5, row)


def _rows(x: Tensor) -> Tensor:
    return (from_uint8(x) if x.dtype == torch.uint8 else x).flatten(1).double()
