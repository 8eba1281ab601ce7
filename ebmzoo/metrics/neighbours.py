"""Nearest neighbours among the training images: does a model copy?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ebmzoo.images import from_uint8

__all__ = ["Neighbours", "centre_crop", "nearest_neighbours"]


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


def nearest_neighbours(samples: Tensor, train: Tensor, chunk: int = 2000) -> Neighbours:
    """Find each sample's nearest training image, in pixels or in any features.

    A model that copies has distances well below those of held-out data, which are the yardstick.

    Args:
        samples: ``(n, ...)``, floats in the data's units or uint8 images, which become floats in [-1, 1].
        train: ``(m, ...)``, the same.
        chunk: rows compared at once; memory grows with its square.

    Raises:
        ValueError: if either is empty, or their shapes differ.

    Example:
        >>> import torch
        >>> train = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
        >>> nearest_neighbours(torch.tensor([[3.0, 4.0]]), train)  # sqrt(1 / 2)
        Neighbours(distance=tensor([0.7071], dtype=torch.float64), row=tensor([1]))
    """
    if samples.shape[1:] != train.shape[1:] or not len(samples) or not len(train):
        raise ValueError(f"{tuple(samples.shape)} and {tuple(train.shape)} are not examples of one shape")
    pixels = max(1, samples[0].numel())
    best = torch.full((len(samples),), float("inf"), dtype=torch.float64, device=samples.device)
    row = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    for start in range(0, len(train), chunk):
        right = _rows(train[start : start + chunk]).to(samples.device)
        for first in range(0, len(samples), chunk):
            rows = slice(first, first + chunk)
            distance, neighbour = torch.cdist(_rows(samples[rows]), right).min(1)
            closer = distance < best[rows]
            best[rows] = torch.where(closer, distance, best[rows])
            row[rows] = torch.where(closer, neighbour + start, row[rows])
    return Neighbours(best / pixels**0.5, row)


def _rows(x: Tensor) -> Tensor:
    return (from_uint8(x) if x.dtype == torch.uint8 else x).flatten(1).double()
