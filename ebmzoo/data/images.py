"""The papers' image sets that are published as arrays, held in memory: CIFAR, SVHN, STL-10 and ImageNet 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmzoo.data.base import DataModule, Examples, InMemory
from ebmzoo.data.files import download, find, read_pickled_labels, read_pickled_pixels, square

_SVHN = "http://ufldl.stanford.edu/housenumbers"
_STL10 = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
_IMAGENET32 = "https://image-net.org/download-images"


class _CIFAR(DataModule):
    """What the two CIFARs share: pickles of images, in a folder that bears the archive's name, or in ``root``."""

    _what: str
    _url: str
    _folder: str
    _files: dict[str, list[str]]
    _labels: str

    def __init__(self, root: str | Path, download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.download = Path(root), download
        self.name = self._what.replace("-", "").lower()
        self.image_shape = (3, 32, 32)

    def prepare_data(self) -> None:
        """Download, where asked for and missing."""
        if self.download and not self._places(self._files["test"][0])[0].exists():
            download(self._what.replace("-", ""), self._what, self._url, self.root)

    def _places(self, name: str) -> list[Path]:
        return [self.root / self._folder / name, self.root / name]

    def _paths(self, split: str) -> list[Path]:
        how = f"Set download: true, or unpack {self._url} in {self.root}"
        return [find(self._places(name), self._what, how) for name in self._files[split]]

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        return InMemory(torch.cat([read_pickled_pixels(path, 3072) for path in self._paths(split)]).view(-1, 3, 32, 32))

    def labels(self, split: str = "train") -> Tensor:
        """The published classes, of CIFAR-100 the fine ones."""
        return torch.cat([read_pickled_labels(path, self._labels) for path in self._paths(self._own(split))])


class CIFAR10(_CIFAR):
    """CIFAR-10: 50,000 train and 10,000 test images, colour, 32 px (validation is the test split).

    Reads ``data_batch_1`` to ``_5`` and ``test_batch``, the published Python version, in
    ``root/cifar-10-batches-py`` or in ``root``. The papers train with ``flip=0.5``.

    Args:
        root: the folder that holds it.
        download: fetch it there (170 MB, through torchvision) where it is missing.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if it is missing or cannot be downloaded.
        ValueError: at `setup`, one line that names a broken file.

    Example:
        >>> data = CIFAR10("somewhere", batch_size=128, flip=0.5)
        >>> data.image_shape, data.name, data.reference_name("val")
        ((3, 32, 32), 'cifar10', 'cifar10 test')
    """

    _what, _folder, _labels = "CIFAR-10", "cifar-10-batches-py", "labels"
    _url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    _files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

    def outsiders(self) -> list[DataModule]:
        """The papers' sets, looked for in the same folder: SVHN, CIFAR-100, CelebA at 32 px."""
        from ebmzoo.data.folders import CelebA  # here: folders come later in this package

        return [SVHN(self.root), CIFAR100(self.root), CelebA(self.root, size=32)]


class CIFAR100(_CIFAR):
    """CIFAR-100: 50,000 train and 10,000 test images, colour, 32 px (validation is the test split).

    Reads ``train`` and ``test``, the published Python version, in ``root/cifar-100-python`` or in ``root``.

    Args:
        root: the folder that holds it.
        download: fetch it there (170 MB, through torchvision) where it is missing.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if it is missing or cannot be downloaded.
        ValueError: at `setup`, one line that names a broken file.

    Example:
        >>> CIFAR100("somewhere").reference_name("test")
        'cifar100 test'
    """

    _what, _folder, _labels = "CIFAR-100", "cifar-100-python", "fine_labels"
    _url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    _files = {"train": ["train"], "test": ["test"]}


class SVHN(DataModule):
    """Street View House Numbers: 73,257 train and 26,032 test images, colour, 32 px.

    Reads ``train_32x32.mat``, ``test_32x32.mat`` and, where asked for, ``extra_32x32.mat``, as published, in
    ``root``. Validation is the test split.

    Args:
        root: the folder that holds them.
        extra: train on the 531,131 extra images too; they need 3.7 GB while they are read, 1.9 GB after.
        download: fetch what is missing there (0.2 GB, 1.5 GB with the extra images, through torchvision).
        **kwargs: those of `DataModule`. A flip would turn digits into other shapes: leave it 0.

    Raises:
        FileNotFoundError: at `setup`, one line, if a file is missing or cannot be downloaded.
        ValueError: at `setup`, one line that names a broken file.

    Example:
        >>> SVHN("somewhere").reference_name("train"), SVHN("somewhere", extra=True).reference_name("train")
        ('svhn train', 'svhn-extra train')
    """

    def __init__(self, root: str | Path, extra: bool = False, download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.extra, self.download = Path(root), extra, download
        self.name = "svhn-extra" if extra else "svhn"
        self.image_shape = (3, 32, 32)

    def _parts(self, split: str) -> list[str]:
        return ["train", "extra"] if split == "train" and self.extra else [split]

    def prepare_data(self) -> None:
        """Download, where asked for and missing."""
        parts = [*self._parts("train"), "test"] if self.download else []
        for part in parts:
            if not self._place(part).exists():
                download("SVHN", "SVHN", f"{_SVHN}/{part}_32x32.mat", self.root, split=part)

    def _place(self, part: str) -> Path:
        return self.root / f"{part}_32x32.mat"

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        from ebmzoo.data.matlab import read_matlab_images  # here: the other sets have no such files

        paths = []
        for part in self._parts(split):
            how = f"Set download: true, or put {_SVHN}/{part}_32x32.mat in {self.root}"
            paths.append(find([self._place(part)], "SVHN", how))
        pixels = [read_matlab_images(path, "X", (32, 32, 3)) for path in paths]
        return InMemory(pixels[0] if len(pixels) == 1 else torch.cat(pixels))


class STL10(DataModule):
    """STL-10 at 32 px: the 5,000 training and 100,000 unlabelled images to train on, 8,000 to test.

    Reads ``train_X.bin``, ``unlabeled_X.bin`` and ``test_X.bin``, the published binary version, in
    ``root/stl10_binary`` or in ``root``. The 96 px images are resized once, when they are read: bilinear with
    antialiasing. Validation is the test split.

    Args:
        root: the folder that holds it.
        size: px, up to 96.
        unlabelled: train on the unlabelled images too, as the papers do.
        download: fetch it there (2.6 GB, through torchvision) where it is missing.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if it is missing or cannot be downloaded.
        ValueError: for another size, or, at `setup`, one line that names a broken file.

    Example:
        >>> STL10("somewhere").reference_name("train")
        'stl10-32 train'
    """

    _VALUES = 3 * 96 * 96
    _CHUNK = 1000  # images resized at a time: the whole set at 96 px is 2.9 GB

    def __init__(
        self,
        root: str | Path,
        size: int = 32,
        unlabelled: bool = True,
        download: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= size <= 96:
            raise ValueError(f"STL-10 comes at up to 96 px, not {size}")
        self.root, self.size, self.unlabelled, self.download = Path(root), size, unlabelled, download
        self.name = f"stl10-{size}" if unlabelled else f"stl10-labelled-{size}"
        self.image_shape = (3, size, size)

    def prepare_data(self) -> None:
        """Download, where asked for and missing."""
        if self.download and not self._places("test_X.bin")[0].exists():
            download("STL10", "STL-10", _STL10, self.root)

    def _places(self, name: str) -> list[Path]:
        return [self.root / "stl10_binary" / name, self.root / name]

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        names = ["test_X.bin"]
        if split == "train":
            names = ["train_X.bin", *(["unlabeled_X.bin"] if self.unlabelled else [])]
        how = f"Set download: true, or unpack {_STL10} in {self.root}"
        paths = [find(self._places(name), "STL-10", how) for name in names]
        return InMemory(torch.cat([part for path in paths for part in self._read(path)]))

    def _read(self, path: Path) -> list[Tensor]:
        count, rest = divmod(path.stat().st_size, self._VALUES)
        if rest or not count:
            raise ValueError(f"{path} is not a whole number of 96 x 96 colour images: it may be cut short")
        # The file holds each channel column by column.
        columns = np.memmap(path, dtype=np.uint8, mode="r").reshape(count, 3, 96, 96)
        chunks = (np.array(columns[i : i + self._CHUNK]) for i in range(0, count, self._CHUNK))
        return [square(torch.from_numpy(chunk).transpose(-1, -2), self.size) for chunk in chunks]


class ImageNet32(DataModule):
    """ImageNet at 32 px: 1,281,167 train and 50,000 validation images (test is the validation split).

    Reads ``train_data_batch_1`` to ``_10`` and ``val_data``, the published pickles, in ``root`` or in its
    subfolders ``Imagenet32_train`` and ``Imagenet32_val``. They are held in memory: 3.9 GB in each process.

    Args:
        root: the folder that holds them.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if a file is missing.
        ValueError: at `setup`, one line that names a broken file.

    Example:
        >>> ImageNet32("somewhere").reference_name("test")
        'imagenet32 val'
    """

    splits = {"train": "train", "val": "val", "test": "val"}

    def __init__(self, root: str | Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)
        self.name = "imagenet32"
        self.image_shape = (3, 32, 32)

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"val"``."""
        names = [f"train_data_batch_{i}" for i in range(1, 11)] if split == "train" else ["val_data"]
        how = f"Get the 32 x 32 version from {_IMAGENET32} and unpack it in {self.root}"
        places = [[self.root / name, self.root / f"Imagenet32_{split}" / name] for name in names]
        paths = [find(candidates, "ImageNet 32", how) for candidates in places]
        parts = [read_pickled_pixels(path, 3072) for path in paths]
        # Filled part by part, each freed once copied: memory peaks one part above the whole.
        data = torch.empty(sum(len(part) for part in parts), 3072, dtype=torch.uint8)
        end = len(data)
        while parts:
            part = parts.pop()
            data[end - len(part) : end] = part
            end -= len(part)
        return InMemory(data.view(-1, 3, 32, 32))
