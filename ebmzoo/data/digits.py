"""Scikit-learn's handwritten digits: 1,797 real scans that need no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ebmzoo.data.base import DataModule, Examples, InMemory

SIZES = (8, 16, 32)
TRAIN = 1500


def digits(split: str, size: int = 8) -> tuple[Tensor, Tensor]:
    """The scans of one split with their labels.

    The split is fixed: of ``np.random.RandomState(0).permutation(1797)``, whose stream NumPy has frozen, the
    first 1,500 rows are for training and the last 297 for testing. The 17 grey levels v become v/8 - 1. Sizes
    16 and 32 are bilinear enlargements of the 8x8 scans (``align_corners=False``).

    Args:
        split: ``"train"`` or ``"test"``.
        size: 8, 16 or 32 px.

    Returns:
        Images, float32 ``(n, 1, size, size)`` in [-1, 1] (ink is 1), and labels 0..9, int64 ``(n,)``.

    Raises:
        ValueError: for another split or size.

    Example:
        >>> x, labels = digits("test", size=16)
        >>> x.shape, labels.shape
        (torch.Size([297, 1, 16, 16]), torch.Size([297]))
    """
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r} of the digits: train, test")
    if size not in SIZES:
        raise ValueError(f"digits come at 8, 16 or 32 px, not {size}")
    from sklearn.datasets import load_digits  # lazily: the import takes a second

    scans = load_digits()
    order = np.random.RandomState(0).permutation(len(scans.images))
    rows = order[:TRAIN] if split == "train" else order[TRAIN:]
    x = torch.from_numpy(scans.images[rows]).float()[:, None].div_(8).sub_(1)
    if size != 8:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x, torch.from_numpy(scans.target[rows]).long()


class Digits(DataModule):
    """1,797 real handwritten digits, grey, 8x8 with 17 grey levels; offline, deterministic.

    1,500 train and 297 test images (validation is the test split); see `digits` for the split.

    Args:
        size: 8, 16 or 32 px; the larger ones by bilinear enlargement.
        **kwargs: those of `DataModule`. A flip would turn digits into other shapes: leave it 0.

    Raises:
        ValueError: for another size.

    Example:
        >>> data = Digits(size=8, batch_size=100, seed=0)
        >>> x = next(iter(data.train_dataloader()))
        >>> x.shape, data.name, len(data.reference("train"))
        (torch.Size([100, 1, 8, 8]), 'digits-8', 1500)
    """

    def __init__(self, size: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size not in SIZES:
            raise ValueError(f"digits come at 8, 16 or 32 px, not {size}")
        self.size = size
        self.name = f"digits-{size}"
        self.image_shape = (1, size, size)

    def load(self, split: str) -> Examples:
        """The scans of ``"train"`` or ``"test"``."""
        return InMemory(digits(split, self.size)[0])

    def labels(self, split: str = "train") -> Tensor:
        """The digits 0..9."""
        return digits(self._own(split), self.size)[1]

    def outsiders(self) -> list[DataModule]:
        """Printed letters with the digits' grey levels and amounts of ink."""
        from ebmzoo.data.glyphs import Glyphs  # here: the letters' inks are the digits'

        return [Glyphs(size=self.size, like="digits", n_train=1, n_test=1000)]
