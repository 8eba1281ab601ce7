"""Reading of image files: found or named as missing, decoded or named as broken, never run as code."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from ebmzoo.images import narrow

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_UNPICKLING = (pickle.UnpicklingError, OSError, EOFError, LookupError, TypeError, ValueError, AttributeError)


def find(candidates: Sequence[Path], what: str, how: str, folder: bool = False) -> Path:
    """The first of the places that exists.

    Args:
        candidates: where it may lie, in the order of preference.
        what: the name of what is looked for, for the error.
        how: how to get it, for the error.
        folder: whether it is a folder.

    Raises:
        FileNotFoundError: one line with all three; it names a file where a folder should be.
    """
    for path in candidates:
        if path.is_dir() or (path.exists() and not folder):
            return path
    for path in candidates:
        for part in (path, *path.parents) if folder else path.parents:
            if part.is_file():
                raise FileNotFoundError(f"{what} not found: {part} is a file, a folder is needed. {how}")
    places = " nor ".join(str(path) for path in candidates)
    no = "neither" if len(candidates) > 1 else "no"
    raise FileNotFoundError(f"{what} not found: there is {no} {places}. {how}")


def download(kind: str, what: str, url: str, root: Path, **settings: Any) -> None:
    """Let torchvision fetch a set.

    Args:
        kind: its class there.
        what: the name of the set, for the error.
        url: where it is published, for the error.
        root: the folder that it is put in.
        **settings: what else the class is told.

    Raises:
        FileNotFoundError: one line with all of these, if it fails.
    """
    if root.is_file():
        raise FileNotFoundError(f"{what} cannot be downloaded into {root}: it is a file, a folder is needed")
    from torchvision import datasets  # slow to import

    try:
        getattr(datasets, kind)(str(root), download=True, **settings)
    except (OSError, RuntimeError) as error:  # torchvision reports a bad checksum as a RuntimeError
        raise FileNotFoundError(
            f"{what} could not be downloaded ({reason_of(error)}). Fetch {url} and unpack it in {root}"
        ) from error


def _latin1(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"it encodes with {codec}, which is refused")
    return text.encode("latin1")


# The constructors that a pickled array needs, under the names that old and new versions of NumPy give them.
# They are taken from NumPy's own pickles, because the module that holds them is private and has moved.
_ARRAY, _SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _ARRAY for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _BUFFER for core in ("core", "_core")},
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return _ALLOWED[module, name]


def _read_pickled(path: Path, key: str) -> Any:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()[key]
    except _UNPICKLING as error:
        raise ValueError(f"{path} is not a pickled batch of images: {reason_of(error)}") from error


def read_pickled_labels(path: Path, key: str) -> Tensor:
    """The labels of such a batch as `read_pickled_pixels` reads, int64 ``(n,)``, which lie under this key.

    Raises:
        ValueError: one line that names the file, if it holds none.
    """
    labels = _read_pickled(path, key)
    if not isinstance(labels, list) or not all(isinstance(one, int) and one >= 0 for one in labels):
        raise ValueError(f"{path} should hold a list of labels from 0 as {key}")
    return torch.tensor(labels)


def read_pickled_pixels(path: Path, pixels: int) -> Tensor:
    """The ``data`` array of a pickled batch, as CIFAR-10 and ImageNet 32 publish them.

    Only arrays and plain containers are read: a pickle from a stranger that asks for anything else is refused
    before it can run.

    Args:
        path: the file.
        pixels: values in a row.

    Returns:
        uint8 ``(n, pixels)``.

    Raises:
        ValueError: one line that names the file, if it is not such a pickle.
    """
    data = _read_pickled(path, "data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(data), pixels):
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path} should hold uint8 images of {pixels} values each, it holds {found}")
    return torch.from_numpy(np.array(data))


def square(pixels: Tensor, size: int) -> Tensor:
    """Cut the centre square out and resize it: bilinear with antialiasing (torchvision v2), rounded to bytes.

    Args:
        pixels: uint8 ``(..., C, H, W)``.
        size: side of the result, px.

    Returns:
        uint8 ``(..., C, size, size)``.
    """
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[..., top : top + side, left : left + side]
    if side == size:
        return pixels.contiguous()
    return functional.resize(pixels, [size, size], InterpolationMode.BILINEAR, antialias=True)


def open_image(source: str | IO[bytes], name: str) -> Image.Image:
    """The header of an image, so far.

    Raises:
        ValueError: one line that names the file: broken, too large, or of a range that nobody knows.
    """
    try:
        image = Image.open(source)
    except _BROKEN as error:
        raise ValueError(f"{name} cannot be read as an image: {reason_of(error)}") from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{name} has {image.width} x {image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS ({limit})"
        )
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"{name} holds 32-bit grey values without a known range: convert it to 8 or 16 bits")
    return image


def reason_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def read_pixels(source: str | IO[bytes], name: str, channels: int = 3) -> Tensor:
    """Read one image at its own size.

    A photograph is turned as its EXIF orientation says; transparency is laid on white; 16-bit grey is scaled
    to 8; colour becomes grey by luma (ITU-R 601), grey becomes colour by repetition.

    Args:
        source: path or open file.
        name: what an error calls it.
        channels: 3 or 1.

    Returns:
        uint8 ``(channels, H, W)``.

    Raises:
        ValueError: one line that names the file: broken, cut short, or too large.
    """
    image = open_image(source, name)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            grey = np.asarray(image, dtype=np.float64)
            image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
        if image.has_transparency_data:
            coloured = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
        image = image.convert("RGB" if channels == 3 else "L")
    except _BROKEN as error:
        raise ValueError(f"{name} cannot be read as an image: {reason_of(error)}") from error
    return functional.pil_to_tensor(image)


def decode(
    source: str | IO[bytes],
    name: str,
    size: int,
    channels: int = 3,
    box: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Read one image as `read_pixels` does, cut it square and resize it.

    Args:
        source: path or open file.
        name: what an error calls it.
        size: side of the result, px.
        channels: 3 or 1.
        box: ``(left, top, right, bottom)`` to cut out first, px; by default the centre square.

    Returns:
        uint8 ``(channels, size, size)``.

    Raises:
        ValueError: one line that names the file: broken, cut short, too large, or smaller than the box.
    """
    pixels = read_pixels(source, name, channels)
    if box is not None:
        left, top, right, bottom = box
        height, width = pixels.shape[1:]
        if right > width or bottom > height:
            raise ValueError(f"{name} has {width} x {height} pixels: crop {box} does not fit")
        pixels = pixels[:, top:bottom, left:right]
    return square(pixels, size)


def read_image(path: str, **how: Any) -> Tensor:
    """`decode` a file, which errors name."""
    return decode(path, path, **how)


def read_image_of(path: str, shape: tuple[int, ...]) -> Tensor:
    """Read a file that must hold an image of ``shape`` (C, H, W): uint8; nothing is cut or resized.

    Raises:
        ValueError: one line that names the file: broken, or of another size.
    """
    pixels = read_pixels(path, path, channels=shape[0])
    if pixels.shape[1:] != shape[1:]:
        have, want = (f"{size[2]} x {size[1]}" for size in (pixels.shape, shape))
        raise ValueError(f"{path} has {have} px, {want} are needed: cut and scale it first")
    if found := narrow(pixels):
        rank_zero_warn(f"{path} {found}")
    return pixels


def image_files(root: Path, endings: tuple[str, ...] = ENDINGS) -> list[str]:
    """Paths of the images under a folder, at any depth, relative to it and sorted.

    Hidden files are left out. Links to folders are followed, and a folder that is met twice is read once.
    """
    found: list[str] = []
    seen: set[str] = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        inside.sort()  # by which name a folder is met first must not depend on the file system
        here = os.path.realpath(folder)
        if here in seen:
            inside.clear()
            continue
        seen.add(here)
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
    return sorted(found)
