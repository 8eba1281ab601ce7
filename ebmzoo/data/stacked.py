"""Three digits stacked as red, green and blue: 1,000 modes, of handwritten scans or of MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmzoo.data.base import DataModule, Examples
from ebmzoo.data.digits import SIZES, digits
from ebmzoo.data.mnist import fetch_mnist, mnist
from ebmzoo.images import from_uint8

_SEEDS = {"train": 1000, "test": 1001}


class Stacked(Examples):
    """Colour images made of three grey ones, put together when a batch is read.

    Only the grey images and the row numbers are held: 56 bytes for an image, whatever its size.

    Args:
        images: grey ``(n, 1, H, W)``: float32 in [-1, 1], or uint8, which become floats when read.
        labels: their classes 0..9, int64 ``(n,)``.
        triples: which of them are the red, the green and the blue of each image, int64 ``(N, 3)``.

    Attributes:
        labels: classes of the three channels, int64 ``(N, 3)``.
        modes: 100 red + 10 green + blue, int64 ``(N,)`` in [0, 1000).

    Example:
        >>> grey = torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1, 1)
        >>> stacked = Stacked(grey, torch.tensor([7, 8, 9]), torch.tensor([[2, 0, 0]]))
        >>> stacked[0].flatten(), stacked.modes
        (tensor([0.2000, 0.0000, 0.0000]), tensor([977]))
    """

    def __init__(self, images: Tensor, labels: Tensor, triples: Tensor) -> None:
        self.images, self.triples = images, triples
        self.labels = labels[triples]
        self.modes = (self.labels * torch.tensor([100, 10, 1])).sum(1)

    def __len__(self) -> int:
        return len(self.triples)

    def batch(self, numbers: Tensor) -> Tensor:
        """Look the three channels of each image up."""
        x = self.images[self.triples[numbers], 0]
        return from_uint8(x) if x.dtype == torch.uint8 else x


def _stack(images: Tensor, labels: Tensor, count: int, split: str) -> Stacked:
    # NumPy has frozen this stream: the triples are the same with every version. Fewer of them are the first
    # of more.
    rows = np.random.RandomState(_SEEDS[split]).randint(0, len(images), (count, 3))
    return Stacked(images, labels, torch.from_numpy(rows).long())


def _check(n_train: int, n_test: int) -> dict[str, int]:
    if n_train < 1 or n_test < 1:
        raise ValueError(f"n_train >= 1 and n_test >= 1 are needed, not {n_train} and {n_test}")
    return {"train": n_train, "test": n_test}


class StackedDigits(DataModule):
    """Three of scikit-learn's digits as red, green and blue: 1,000 modes; offline, deterministic.

    The triples of a split are drawn once, uniformly and with repetition, from the scans of the same split of
    `Digits` and from a fixed seed: no scan of the test split is ever trained on.

    Args:
        size: 8, 16 or 32 px.
        n_train: number of training triples.
        n_test: number of test triples (validation is the test split).
        **kwargs: those of `DataModule`. A flip would turn digits into other shapes: leave it 0.

    Raises:
        ValueError: for another size, or a number that is not positive.

    Example:
        >>> data = StackedDigits(batch_size=100)
        >>> next(iter(data.train_dataloader())).shape, len(data.reference("train"))
        (torch.Size([100, 3, 8, 8]), 50000)
        >>> data.reference("train").modes.unique().shape
        torch.Size([1000])
    """

    def __init__(self, size: int = 8, n_train: int = 50_000, n_test: int = 10_000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size not in SIZES:
            raise ValueError(f"digits come at 8, 16 or 32 px, not {size}")
        self.size, self.counts = size, _check(n_train, n_test)
        self.name = f"stacked-digits-{size}"
        self.image_shape = (3, size, size)

    def load(self, split: str) -> Stacked:
        """The triples of ``"train"`` or ``"test"``."""
        return _stack(*digits(split, self.size), self.counts[split], split)


class StackedMNIST(DataModule):
    """Three MNIST images as red, green and blue: 1,000 modes, 32 px.

    Reads the files of `MNIST`. The images get a black border of 2 px on every side. The triples of a split are
    drawn once, uniformly and with repetition, from the images of the same split and from a fixed seed.

    Args:
        root: the folder that holds MNIST.
        n_train: number of training triples.
        n_test: number of test triples (validation is the test split).
        download: fetch MNIST there (12 MB, through torchvision) where a file is missing.
        classifier: weights of a classifier of MNIST, which counts the modes of samples (``python -m
            ebmzoo.metrics.digit_classifier --mnist ROOT --out FILE`` makes them); without it they are not counted.
        **kwargs: those of `DataModule`. A flip would turn digits into other shapes: leave it 0.

    Raises:
        FileNotFoundError: at `setup`, one line, if a file is missing or cannot be downloaded.
        ValueError: for a number that is not positive, or, at `setup`, one line that names a broken file.

    Example:
        >>> StackedMNIST("somewhere").reference_name("train")
        'stacked-mnist-32 train'
    """

    def __init__(
        self,
        root: str | Path,
        n_train: int = 120_000,
        n_test: int = 10_000,
        download: bool = False,
        classifier: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.counts, self.download = Path(root), _check(n_train, n_test), download
        self.classifier = classifier
        self.name = "stacked-mnist-32"
        self.image_shape = (3, 32, 32)

    def prepare_data(self) -> None:
        """Download, where asked for and missing."""
        if self.download:
            fetch_mnist(self.root)

    def load(self, split: str) -> Stacked:
        """The triples of ``"train"`` or ``"test"``."""
        return _stack(*mnist(self.root, split, 32), self.counts[split], split)
