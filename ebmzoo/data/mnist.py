"""MNIST from its published idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ebmzoo.data.base import DataModule, Examples, InMemory
from ebmzoo.data.files import download, find, reason_of, square

SIZES = (8, 16, 28, 32)
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_STEMS = {"train": "train", "test": "t10k"}


def _places(root: Path, name: str) -> list[Path]:
    return [base / file for base in (root / "MNIST" / "raw", root) for file in (name, f"{name}.gz")]


def _names(split: str) -> tuple[str, str]:
    return f"{_STEMS[split]}-images-idx3-ubyte", f"{_STEMS[split]}-labels-idx1-ubyte"


def fetch_mnist(root: Path) -> None:
    """Download MNIST through torchvision (12 MB), where a file of it is missing.

    Raises:
        FileNotFoundError: one line, if it cannot be downloaded.
    """
    names = [name for split in _STEMS for name in _names(split)]
    if not all(any(place.exists() for place in _places(root, name)) for name in names):
        download("MNIST", "MNIST", _URL, root)


def _read_idx(path: Path, item: Sequence[int]) -> Tensor:
    """The bytes of an idx file, raw or gzipped: uint8 ``(n, *item)``.

    Torchvision's reader takes no gzipped ones, and says of a broken one neither which it is nor what is wrong.

    Raises:
        ValueError: one line that names the file, if it holds anything else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from error
    dims = 1 + len(item)
    start = 4 + 4 * dims
    # Two zeros, 8 for unsigned bytes, the number of dimensions; then their sizes, big-endian.
    if content[:4] != bytes([0, 0, 8, dims]) or len(content) < start:
        raise ValueError(f"{path} is not an idx file of bytes in {dims} dimensions")
    shape = tuple(np.frombuffer(content, ">u4", dims, offset=4).tolist())
    if shape[1:] != tuple(item) or not shape[0] or len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} should hold items of size {tuple(item)}: it says {shape} and holds "
            f"{len(content) - start} bytes after its header"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def mnist(root: str | Path, split: str, size: int = 28) -> tuple[Tensor, Tensor]:
    """The scans of one split with their labels.

    28 px is as published; 32 px adds a black border of 2 px on every side; 16 and 8 px are the images with that
    border, resized (bilinear with antialiasing, rounded to bytes).

    Args:
        root: the folder that holds the idx files, raw or gzipped, or has them in ``MNIST/raw``.
        split: ``"train"`` or ``"test"``.
        size: 8, 16, 28 or 32 px.

    Returns:
        Images, uint8 ``(n, 1, size, size)`` (ink is 255), and labels 0..9, int64 ``(n,)``.

    Raises:
        FileNotFoundError: one line, if a file is missing.
        ValueError: for another split or size, or one line that names a broken file.
    """
    if split not in _STEMS:
        raise ValueError(f"there is no split {split!r} of MNIST: train, test")
    if size not in SIZES:
        raise ValueError(f"MNIST comes at 8, 16, 28 or 32 px, not {size}")
    root = Path(root)
    how = f"Set download: true, or put the files of {_URL} in {root}"
    scans, numbers = (find(_places(root, name), "MNIST", how) for name in _names(split))
    x, labels = _read_idx(scans, (28, 28))[:, None], _read_idx(numbers, ()).long()
    if len(x) != len(labels) or labels.max() > 9:
        raise ValueError(
            f"{numbers} should hold a label 0..9 for each of the {len(x)} images of {scans}: it holds "
            f"{len(labels)}, the largest of them {labels.max().item()}"
        )
    if size != 28:
        x = square(functional.pad(x, (2, 2, 2, 2)), size)
    return x, labels


class MNIST(DataModule):
    """MNIST: 60,000 train and 10,000 test images of handwritten digits, grey (validation is the test split).

    Reads the four published idx files, raw or gzipped, in ``root/MNIST/raw`` (where torchvision puts them) or
    in ``root``; see `mnist` for the sizes.

    Args:
        root: the folder that holds them.
        size: 8, 16, 28 or 32 px.
        download: fetch them there (12 MB, through torchvision) where one is missing.
        **kwargs: those of `DataModule`. A flip would turn digits into other shapes: leave it 0.

    Raises:
        FileNotFoundError: at `setup`, one line, if a file is missing or cannot be downloaded.
        ValueError: for another size, or, at `setup`, one line that names a broken file.

    Example:
        >>> data = MNIST("somewhere", size=32)
        >>> data.image_shape, data.reference_name("test")
        ((1, 32, 32), 'mnist-32 test')
    """

    def __init__(self, root: str | Path, size: int = 28, download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size not in SIZES:
            raise ValueError(f"MNIST comes at 8, 16, 28 or 32 px, not {size}")
        self.root, self.size, self.download = Path(root), size, download
        self.name = f"mnist-{size}"
        self.image_shape = (1, size, size)

    def prepare_data(self) -> None:
        """Download, where asked for and missing."""
        if self.download:
            fetch_mnist(self.root)

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        return InMemory(mnist(self.root, split, self.size)[0])

    def labels(self, split: str = "train") -> Tensor:
        """The digits 0..9."""
        return mnist(self.root, self._own(split), 28)[1]
