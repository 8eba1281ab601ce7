"""Which files of a folder make a split: no test image is trained on, and what is broken is named or left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ebmzoo.data.base import PerItem
from ebmzoo.data.files import ENDINGS, find, image_files, open_image

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_THREADS = 16  # they wait for the disk, or decode outside of Python's lock
_NAMED = 3  # of many files

T = TypeVar("T")


def folder(
    root: Path,
    split: str,
    read: Callable[..., Tensor],
    what: str,
    how: str,
    *,
    holdout: float,
    test_root: Path | None = None,
    endings: tuple[str, ...] = ENDINGS,
    channels: int | None = None,
    skip_broken: bool = False,
) -> PerItem:
    """The images of one split of a folder; see `ImageFolder` for what is left out of it.

    Args:
        root: the folder.
        split: ``"train"`` or ``"test"``.
        read: turns a path into uint8 ``(C, H, W)``.
        what: the name of the set, for errors.
        how: how to get it, for errors.
        holdout: the share of the test split, in [0, 1).
        test_root: the folder of the test split in its place.
        endings: of the files' names, in small letters.
        channels: 3 or 1, where headers are to be checked.
        skip_broken: whether files that cannot be read are left out.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: one line: a broken file, or nothing is left to train on.
    """

    def listed(place: Path) -> list[str]:
        names = image_files(find([place], what, how, folder=True), endings)
        if not names:
            raise FileNotFoundError(f"{what} not found: no file in {place} ends in {', '.join(endings)}. {how}")
        return names

    if test_root is None:
        names = listed(root)
        held = is_held_out(names, holdout)
        train, test = ([str(root / n) for n, out in zip(names, held, strict=True) if out == t] for t in (False, True))
    else:
        test = [str(test_root / name) for name in listed(test_root)]
        train = [str(root / name) for name in listed(root)] if split == "train" else []
    paths = apart(train, test) if split == "train" else test
    if skip_broken:
        paths = _readable(paths, read)
    else:
        read = partial(_read_or_advise, read)
    if channels is not None:
        check_headers(paths, channels, advise=not skip_broken)
    return PerItem(paths, read)


def is_held_out(names: Sequence[str], share: float) -> list[bool]:
    """Which of the names belong to the test split: a fixed share, in the order of the SHA-1 of each name.

    It depends on the names alone: not on a seed, nor on the order in which a file system lists them.

    Args:
        names: of the items, all different.
        share: to be held out, in [0, 1); at least one item where it is not 0.

    Raises:
        ValueError: if nothing is left to train on.

    Example:
        >>> sum(is_held_out([f"{i}.png" for i in range(100)], 0.1))
        10
    """
    count = max(1, round(share * len(names))) if share else 0
    if count >= len(names):
        raise ValueError(f"a holdout of {share} leaves nothing of {len(names)} images to train on")
    # A file's name may be no UTF-8: it is then known by its bytes.
    ranked = sorted(range(len(names)), key=lambda i: hashlib.sha1(names[i].encode(errors="surrogateescape")).digest())
    held = set(ranked[:count])
    return [i in held for i in range(len(names))]


def apart(train: list[str], test: list[str]) -> list[str]:
    """The training files that are no test files, neither by their place nor by their bytes; says how many are not.

    Two paths are one place if links make them so. Files of different sizes are different; only those of equal size are
    read.

    Raises:
        ValueError: if nothing is left to train on.
    """
    real_folder = cache(os.path.realpath)

    def place(path: str) -> str:
        # Folders are resolved once: resolving every path would ask for each of its parts.
        head, name = os.path.split(path)
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder(head), name)

    places = {place(path) for path in test}
    same = {path for path in train if place(path) in places}
    others = [path for path in train if path not in same]
    sizes, test_sizes = _each(_size, others), _each(_size, test)
    shared = (set(sizes) & set(test_sizes)) - {0, None}  # an empty file is broken, no copy
    digests = set(_each(_digest, [path for path, size in zip(test, test_sizes, strict=True) if size in shared])) - {
        None
    }
    alike = [path for path, size in zip(others, sizes, strict=True) if size in shared]
    copies = {path for path, digest in zip(alike, _each(_digest, alike), strict=True) if digest in digests}
    left = [path for path in others if path not in copies]
    if left != train:
        found = (
            f"{len(same) + len(copies)} of {len(train)} training images are test images as well ({len(same)} the same "
            f"files, {len(copies)} with the same bytes)"
        )
        if not left:
            raise ValueError(f"{found}: nothing is left to train on")
        rank_zero_warn(f"{found}; they are left out of training: {_some([p for p in train if p in same | copies])}")
    return left


def check_headers(paths: Iterable[str], channels: int, advise: bool = False) -> None:
    """Open every file's header, so that a broken one is named before training starts.

    Says once how many grey images are asked for in colour, or the other way round.

    Args:
        paths: of the files.
        channels: 3 or 1.
        advise: whether an error says how to leave the file out.

    Raises:
        ValueError: one line that names the first file that is not an image or is too large.
    """
    total, others, example = 0, 0, ""
    for path in paths:
        with _read_or_advise(open_image, path, path) if advise else open_image(path, path) as image:
            total += 1
            if (image.mode in _GREY) != (channels == 1):
                others, example = others + 1, example or path
    if others:
        kind, into = ("grey", "colour") if channels == 3 else ("colour", "grey")
        rank_zero_warn(f"{others} of {total} images are {kind}, converted to {into}: {example}, ...")


def _read_or_advise(read: Callable[..., T], *path: str) -> T:
    try:
        return read(*path)
    except ValueError as error:
        raise ValueError(f"{error}; skip_broken: true leaves such images out") from error


def _readable(paths: list[str], read: Callable[[str], Tensor]) -> list[str]:
    """Those that can be read: each is, once. Says how many cannot.

    Raises:
        ValueError: if none can.
    """

    def trouble(path: str) -> str | None:
        try:
            read(path)
        except ValueError as error:
            return str(error)
        return None

    troubles = _each(trouble, paths)
    left = [path for path, words in zip(paths, troubles, strict=True) if words is None]
    if not left:
        raise ValueError(f"none of {len(paths)} images can be read: {troubles[0]}")
    if len(left) < len(paths):
        broken = [path for path, words in zip(paths, troubles, strict=True) if words is not None]
        rank_zero_warn(f"{len(broken)} of {len(paths)} images cannot be read and are left out: {_some(broken)}")
    return left


def _each(work: Callable[[str], T], paths: list[str]) -> list[T]:
    """The work on each path, in threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        shares = pool.map(lambda share: [work(path) for path in share], [paths[i::_THREADS] for i in range(_THREADS)])
    found: list[Any] = [None] * len(paths)
    for i, share in enumerate(shares):
        found[i::_THREADS] = share
    return found


# What cannot be read is no copy of anything, and is named when it is opened as an image.


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _some(paths: Sequence[str]) -> str:
    return ", ".join([*paths[:_NAMED], *(["..."] if len(paths) > _NAMED else [])])
