"""Image sets that are read file by file: any folder of images, CelebA, CelebA-HQ and LSUN church."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmzoo.data.base import DataModule, Examples, PerItem
from ebmzoo.data.files import decode, find, image_files, read_image, square
from ebmzoo.data.listing import folder, is_held_out


class _Folder(DataModule):
    """What sets share that lie in a folder, file by file, or may do so."""

    def __init__(
        self, root: str | Path, size: int, channels: int, holdout: float, skip_broken: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if size < 1 or not 0 <= holdout < 1 or channels not in (1, 3):
            raise ValueError(
                f"size >= 1, 0 <= holdout < 1 and channels 1 or 3 are needed, not {size}, {holdout}, {channels}"
            )
        self.root, self.size, self.channels = Path(root), size, channels
        self.holdout, self.skip_broken = holdout, skip_broken
        if holdout == 0:
            self.splits = {"train": "train", "val": "train", "test": "train"}
        self.image_shape = (channels, size, size)

    def _files(self, split: str, read: Callable[..., Tensor], what: str, how: str, **other: Any) -> Examples:
        """The images of a split, see `folder`."""
        own = {"holdout": self.holdout, "channels": self.channels, "skip_broken": self.skip_broken}
        return folder(self.root, split, partial(read, size=self.size), what, how, **{**own, **other})


class ImageFolder(_Folder):
    """Any folder of images, with all its subfolders, linked ones too: PNG, JPEG, WebP, BMP, TIFF, PPM.

    Each image is turned as its EXIF orientation says, its centre square is cut out and resized (bilinear with
    antialiasing, torchvision v2), transparency is laid on white. Every header is opened at `setup`.

    No test image is trained on: a training file that is a test file by another path (a folder within the other, a
    link), or has the bytes of one, is left out of training, and a line counts them. Files of equal size are read for
    that, once at `setup`; copies that were encoded anew are not found.

    Args:
        root: the folder.
        size: side of the images, px.
        channels: 3 (colour) or 1 (grey); others are converted, and said so once.
        holdout: share of the images for validation and test, in [0, 1); their names alone decide which ones.
            With 0 all are trained on, and evaluation reads the training images.
        test_root: a folder with the test images instead; ``holdout`` is then not used.
        skip_broken: leave out the images that cannot be read, with a line that counts them, in place of an error.
            All are read once at `setup`. Which ones are held out does not depend on it.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if there is no folder or no image.
        ValueError: if a number is out of range; at `setup`, one line, if all training images are test images too;
            at `setup`, or on reading, one line that names a broken file.

    Example:
        >>> ImageFolder("my/Holiday photos", size=64).reference_name("test")
        'holiday-photos-64 test'
    """

    def __init__(
        self,
        root: str | Path,
        size: int,
        channels: int = 3,
        holdout: float = 0.1,
        test_root: str | Path | None = None,
        skip_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, size, channels, holdout, skip_broken, **kwargs)
        self.test_root = None if test_root is None else Path(test_root)
        if test_root is not None:
            self.splits = DataModule.splits
        slug = re.sub(r"[^a-z0-9]+", "-", self.root.resolve().name.lower()).strip("-") or "folder"
        self.name = f"{slug}-{size}" if channels == 3 else f"{slug}-grey-{size}"

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        read = partial(read_image, channels=self.channels)
        what, how = "A folder of images", "Give the folder of your images as root"
        return self._files(split, read, what, how, test_root=self.test_root)

    def labels(self, split: str = "train") -> Tensor:
        """The first subfolder that an image lies in, numbered in the order of the training folder's names."""
        root = (self.test_root or self.root) if self._own(split) == "test" else self.root
        own = _classes(root, self.reference(split))
        number = {name: i for i, name in enumerate(sorted(set(_classes(self.root, self.reference("train")))))}
        if unknown := sorted(set(own) - set(number)):
            raise ValueError(f"{root} has the class {unknown[0]!r}, of which no image is trained on")
        return torch.tensor([number[name] for name in own])


def _classes(root: Path, images: Examples) -> list[str]:
    paths = [Path(path).relative_to(root) for path in images.items] if isinstance(images, PerItem) else []
    found = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
    if "" in found or len(set(found)) < 2:
        what = f"{paths[found.index('')]} lies in none" if "" in found else "there is one"
        raise ValueError(f"{root} has no classes: a subfolder for each of two or more is needed, and {what}")
    return found


class CelebA(DataModule):
    """CelebA, the aligned faces: 162,770 train, 19,867 validation and 19,962 test images.

    Reads ``img_align_celeba/*.jpg`` and ``list_eval_partition.txt``, as published, in ``root`` or
    ``root/celeba``. The images have 178 x 218 pixels; papers cut them differently, and the Fréchet distance
    depends on it.

    Args:
        root: the folder that holds them.
        size: 32, 64 or 128 px; bilinear with antialiasing.
        crop: the square that is kept, ``(left, top, right, bottom)`` in px. The default, 148 px at (15, 40),
            is that of VAEBM and Dual-MCMC; the centre 160 px of BiDVL are ``(9, 29, 169, 189)``.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if the folder, the list or a listed image is missing.
        ValueError: for another size or crop; when it is read, one line that names a broken file.

    Example:
        >>> CelebA("somewhere", size=64).name, CelebA("somewhere", size=64, crop=(9, 29, 169, 189)).name
        ('celeba-64', 'celeba-64-crop-9-29-169-189')
    """

    splits = {"train": "train", "val": "val", "test": "test"}
    _CROP = (15, 40, 163, 188)

    def __init__(
        self, root: str | Path, size: int = 64, crop: tuple[int, int, int, int] = _CROP, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if size not in (32, 64, 128):
            raise ValueError(f"CelebA comes at 32, 64 or 128 px, not {size}")
        left, top, right, bottom = crop
        if right - left != bottom - top or not (0 <= left < right <= 178 and 0 <= top < bottom <= 218):
            raise ValueError(f"crop is a square (left, top, right, bottom) in 178 x 218 px, not {crop}")
        self.root, self.size, self.crop = Path(root), size, (left, top, right, bottom)
        # Another crop is another set of images, so the name that protocols carry tells them apart.
        cut = "" if self.crop == self._CROP else "-crop-" + "-".join(map(str, self.crop))
        self.name = f"celeba-{size}{cut}"
        self.image_shape = (3, size, size)

    def load(self, split: str) -> Examples:
        """The images of ``"train"``, ``"val"`` or ``"test"``."""
        how = f"Unpack CelebA's img_align_celeba.zip, and put its list_eval_partition.txt, in {self.root}"
        bases = [self.root, self.root / "celeba"]
        table = find([base / "list_eval_partition.txt" for base in bases], "CelebA's partition list", how)
        images = find([base / "img_align_celeba" for base in bases], "CelebA", how, folder=True)
        part = str(["train", "val", "test"].index(split))
        names: list[str] = []
        for number, line in enumerate(table.read_text(errors="replace").splitlines(), start=1):
            fields = line.split()
            if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
                raise ValueError(f"{table}, line {number} is not 'name.jpg 0|1|2': {line[:80]!r}")
            if fields[1] == part:
                names.append(fields[0])
        there = set(os.listdir(images))
        missing = [name for name in names if name not in there]
        if missing or not names:
            raise FileNotFoundError(
                f"CelebA is incomplete: {len(missing)} of {len(names)} {split} images listed in {table} are "
                f"not in {images}{f', such as {missing[0]}' if missing else ''}. {how}"
            )
        paths = [str(images / name) for name in names]
        return PerItem(paths, partial(read_image, size=self.size, box=self.crop))


class CelebAHQ(_Folder):
    """CelebA-HQ at 256 px: 30,000 faces, from a folder of images or of arrays, or from one array.

    ``root`` is a folder of images, a folder of ``.npy`` files (each one image, uint8 ``(3, H, W)`` or
    ``(1, 3, H, W)``), or one ``.npy`` file (uint8 ``(n, 3, H, W)``), which is not read into memory.

    Args:
        root: the folder or file.
        size: px; other sizes are resized, bilinear with antialiasing.
        holdout: share of the images for validation and test; which ones depends on their names alone. The default
            leaves about 27,000 for training, as many as NVAE's split; the papers' FID is against all 30,000 (0).
        skip_broken: as in `ImageFolder`, which also says what is never trained on; for files in a folder.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if there is nothing.
        ValueError: if a number is out of range; at `setup`, or on reading, one line that names a broken file.

    Example:
        >>> CelebAHQ("somewhere").name
        'celeba-hq-256'
    """

    def __init__(
        self, root: str | Path, size: int = 256, holdout: float = 0.1, skip_broken: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(root, size, 3, holdout, skip_broken, **kwargs)
        self.name = f"celeba-hq-{size}"

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        what, how = "CelebA-HQ", "Give the folder of its 30,000 images, or its .npy file or files, as root"
        if self.root.suffix == ".npy":
            rows = range(len(_array(find([self.root], what, how), 4)))
            held = is_held_out([str(row) for row in rows], self.holdout)
            chosen = [row for row, test in zip(rows, held, strict=True) if test == (split == "test")]
            return PerItem(chosen, partial(_read_array, one=self.root, size=self.size))
        if image_files(self.root, (".npy",)):
            return self._files(split, _read_array, what, how, endings=(".npy",), channels=None)
        return self._files(split, read_image, what, how)


def _array(path: Path, dims: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array: {' '.join(str(error).split())}") from error
    if dims == 3 and array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.dtype != np.uint8 or array.ndim != dims or array.shape[-3] != 3:
        shape = "(3, H, W)" if dims == 3 else "(n, 3, H, W)"
        raise ValueError(f"{path} should hold uint8 {shape}, it holds {array.dtype} {array.shape}")
    return array


def _read_array(item: int | str, size: int, one: Path | None = None) -> Tensor:
    # Opened for each image: a memory map costs microseconds, and worker processes get a path, not an array.
    pixels = _array(Path(str(item)), 3) if one is None else _array(one, 4)[int(item)]
    return square(torch.from_numpy(np.array(pixels)), size)


class LSUNChurch(_Folder):
    """LSUN church (outdoor) at 64 px: 126,227 train and 300 validation images.

    Reads the published databases ``church_outdoor_train_lmdb`` and ``church_outdoor_val_lmdb`` in ``root``
    (this needs ``pip install lmdb``), or, where there are none, a folder of images, of which a share is held
    out.

    Args:
        root: the folder.
        size: px; the centre square, bilinear with antialiasing.
        holdout: share of a folder's images for validation and test, in (0, 1); a database has its own.
        skip_broken: as in `ImageFolder`, which also says what is never trained on; for a folder's images.
        **kwargs: those of `DataModule`.

    Raises:
        FileNotFoundError: at `setup`, one line, if there is neither.
        ValueError: if a number is out of range or lmdb is missing; one line that names a broken image.

    Example:
        >>> LSUNChurch("somewhere").image_shape
        (3, 64, 64)
    """

    def __init__(
        self, root: str | Path, size: int = 64, holdout: float = 0.1, skip_broken: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(root, size, 3, holdout, skip_broken, **kwargs)
        if not holdout:
            raise ValueError("LSUN church needs a holdout above 0, for a folder's validation images")
        self.name = f"lsun-church-{size}"

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"`` (LSUN's own validation images, where it is a database)."""
        what = "LSUN church"
        how = f"Unpack LSUN's church_outdoor_train_lmdb.zip and church_outdoor_val_lmdb.zip in {self.root}"
        train, test = (self.root / f"church_outdoor_{part}_lmdb" for part in ("train", "val"))
        if not train.exists() and not test.exists():
            return self._files(split, read_image, what, f"{how}, or give a folder of images")
        path = find([train if split == "train" else test], what, how)
        return PerItem(_database_keys(path), partial(_read_database, path=path, size=self.size))


def _open_database(path: Path) -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise ValueError(f"reading {path} needs the lmdb package: pip install lmdb") from error
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"{path} cannot be read as a database: {error}") from error


def _database_keys(path: Path) -> list[bytes]:
    with _open_database(path) as database, database.begin() as transaction:
        keys = list(transaction.cursor().iternext(keys=True, values=False))
    if not keys:
        raise ValueError(f"{path} holds no images")
    return keys


def _read_database(key: bytes, path: Path, size: int) -> Tensor:
    # Opened for each image (0.1 ms, less than decoding): an open database does not survive the fork of a
    # worker, and one process may not open it twice.
    with _open_database(path) as database, database.begin() as transaction:
        image = io.BytesIO(transaction.get(key))
    return decode(image, f"{key.decode(errors='replace')} in {path}", size)
