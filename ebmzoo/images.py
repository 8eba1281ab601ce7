"""Floats to bytes, grids and strips: the one place where images become pictures.

Everywhere in this package an image is float32 in [-1, 1], shape ``(B, C, H, W)``. It becomes bytes only here:
clamp, scale, **round**, uint8. A picture that is truncated instead of rounded, or stretched to its own
minimum and maximum, changes brightness and contrast, and with them the Fréchet distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

_READABLE = 64  # px: images smaller than this are enlarged in a grid
_WIDEST = 2048  # px: a grid is not enlarged beyond this
_BACKGROUND = 255
_NARROW = 16  # of 255 grey levels: what 12 of 16 bits come to
_TITLE = 11  # px: the letters above the columns of strips


def to_uint8(x: Tensor) -> Tensor:
    """Turn floats in [-1, 1] into bytes: clamp, ``(x + 1) * 127.5``, round, uint8.

    Values outside [-1, 1] are clamped (infinities too). Exact halves go to the even byte (`torch.round`).

    Args:
        x: floats, any shape, any device; -1 is black, 1 is white.

    Returns:
        uint8 of the same shape, on the same device.

    Raises:
        ValueError: if ``x`` is not floating point, or holds a NaN, which must not silently become a pixel.

    Example:
        >>> import torch
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 7.0]))
        tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    if not x.is_floating_point():
        raise ValueError(f"to_uint8 takes floats in [-1, 1], not {x.dtype}")
    if bool(torch.isnan(x).any()):
        count = int(torch.isnan(x).sum())
        raise ValueError(f"{count} of {x.numel()} values are NaN, which cannot become pixels")
    x = x.detach()
    if x.dtype != torch.float64:
        x = x.float()  # a half-precision product would itself round before the rounding that is meant
    return x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def from_uint8(b: Tensor) -> Tensor:
    """Turn bytes into float32 in [-1, 1]: ``b / 127.5 - 1``, the inverse of `to_uint8` for all 256 values.

    Args:
        b: uint8, any shape.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if ``b`` is not uint8.

    Example:
        >>> import torch
        >>> from_uint8(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    if b.dtype != torch.uint8:
        raise ValueError(f"from_uint8 takes uint8, not {b.dtype}")
    return b.to(torch.float32).div_(127.5).sub_(1)


def narrow(x: Tensor) -> str | None:
    """What is to be said of images whose values span a sixteenth of their range or less, None of others.

    Args:
        x: floats in [-1, 1], or uint8, any shape.

    Example:
        >>> import torch
        >>> narrow(torch.tensor([0, 4], dtype=torch.uint8))
        'spans 4 of 255 grey levels: values of fewer bits than their type has must be scaled to all of it'
        >>> narrow(torch.tensor([-1.0, 0.5]))
    """
    levels = float(x.max() - x.min()) * (1 if x.dtype == torch.uint8 else 127.5)
    if not levels <= _NARROW + 0.01:  # floats are not exact
        return None
    return (
        f"spans {levels:.0f} of 255 grey levels: values of fewer bits than their type has must be scaled to all of it"
    )


def grid(x: Tensor, columns: int | None = None, padding: int | None = None, scale: int | None = None) -> Tensor:
    """Lay a batch out as one picture, row by row.

    Args:
        x: images ``(B, C, H, W)`` with 1 or 3 channels: floats in [-1, 1], or uint8.
        columns: images in a row; by default as square as can be.
        padding: white pixels between the images and around them, in pixels of the result; by default 1, or 4 where
            small images are enlarged: white strokes at the borders of two of them must not grow together.
        scale: integer enlargement by nearest neighbour; by default small images grow to about 64 px, while
            the grid stays under about 2,048 px wide.

    Returns:
        uint8 ``(3, height, width)``, on the CPU.

    Raises:
        ValueError: if ``x`` is not a non-empty batch of grey or colour images, or a number is out of range.

    Example:
        >>> import torch
        >>> grid(torch.zeros(6, 1, 8, 8), columns=3, padding=2, scale=1).shape
        torch.Size([3, 22, 32])
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(f"a grid takes images of shape (B, 1 or 3, H, W), not {tuple(x.shape)}")
    count, _, height, width = x.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1 or (padding is not None and padding < 0) or (scale is not None and scale < 1):
        raise ValueError(f"a grid needs columns >= 1, padding >= 0, scale >= 1, not {columns}, {padding} and {scale}")
    columns = min(columns, count)
    if scale is None:
        scale = max(1, min(_READABLE // max(height, width), _WIDEST // (columns * width)))
    padding = (1 if scale == 1 else 4) if padding is None else padding
    pixels = (x if x.dtype == torch.uint8 else to_uint8(x)).detach().cpu().expand(-1, 3, -1, -1)
    pixels = pixels.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    rows = math.ceil(count / columns)
    missing = pixels.new_full((rows * columns - count, *pixels.shape[1:]), _BACKGROUND)
    # Each image with its padding below and on its right; that above and on the left is the whole picture's.
    tiles = pad(torch.cat([pixels, missing]), (0, padding, 0, padding), value=_BACKGROUND).unflatten(0, (rows, columns))
    return pad(tiles.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2), (padding, 0, padding, 0), value=_BACKGROUND)


def strips(
    frames: Sequence[Tensor], padding: int | None = None, scale: int | None = None, titles: Sequence[str] = ()
) -> Tensor:
    """Lay the frames of several examples out: one row per example, one column per frame.

    Args:
        frames: batches ``(B, C, H, W)`` of one shape, such as the states of B chains at several steps.
        padding: as in `grid`.
        scale: as in `grid`.
        titles: words above each column, cut off where the column ends; none leaves the line out.

    Returns:
        uint8 ``(3, height, width)``, on the CPU.

    Raises:
        ValueError: if there is no frame, their shapes differ, or there is not one title for each.

    Example:
        >>> import torch
        >>> strips([torch.zeros(2, 1, 8, 8)] * 5, padding=0, scale=1).shape
        torch.Size([3, 16, 40])
    """
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) != 1:
        raise ValueError(f"strips take one or more frames of one shape, not {sorted(shapes)}")
    bytes_ = [frame if frame.dtype == torch.uint8 else to_uint8(frame) for frame in frames]
    by_example = torch.stack([frame.cpu() for frame in bytes_], dim=1).flatten(0, 1)
    picture = grid(by_example, columns=len(frames), padding=padding, scale=scale)
    return torch.cat([_titles(titles, len(frames), picture.shape[2]), picture], dim=1) if titles else picture


def _titles(titles: Sequence[str], columns: int, width: int) -> Tensor:
    """A line of words above so many columns, uint8 ``(3, height, width)``."""
    if len(titles) != columns:
        raise ValueError(f"{len(titles)} titles for {columns} columns")
    line = Image.new("L", (width, _TITLE + 6), _BACKGROUND)
    for column, words in enumerate(titles):
        # Each on a piece of its own, so that no word runs into its neighbour's column.
        piece = Image.new("L", (width // columns - 2, line.height), _BACKGROUND)
        ImageDraw.Draw(piece).text((1, 2), words, fill=0, font=ImageFont.load_default(_TITLE))
        line.paste(piece, (column * width // columns + 1, 0))
    return torch.from_numpy(np.array(line)).expand(3, -1, -1)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder of a file that is about to be written; what the system refuses is one line that names it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error


def save_animation(pictures: Sequence[Tensor], path: str | Path, seconds: float = 4.0) -> Path:
    """Write pictures as one animated file that repeats: ``.gif`` (256 colours) or ``.apng`` (exact).

    Args:
        pictures: uint8 ``(3, H, W)`` of one size, in their order; the last one stays for a second.
        path: the file; its folder is made where it is missing.
        seconds: how long the others take together.

    Returns:
        The path.

    Raises:
        ValueError: for another ending, or if the file cannot be written.
    """
    path = Path(path)
    kinds = {".gif": "GIF", ".apng": "PNG"}
    if path.suffix.lower() not in kinds or not pictures:
        raise ValueError(f"cannot write {len(pictures)} pictures to {path}: an animation ends in {' or '.join(kinds)}")
    first, *rest = [Image.fromarray(picture.cpu().permute(1, 2, 0).contiguous().numpy()) for picture in pictures]
    each = max(20, round(1000 * seconds / max(1, len(rest))))  # ms; browsers slow down what is faster
    times = [each] * len(rest) + [1000]
    with _writing(path):
        kind = kinds[path.suffix.lower()]
        first.save(path, format=kind, save_all=True, append_images=rest, duration=times, loop=0)
    return path


def save_png(picture: Tensor | np.ndarray, path: str | Path) -> Path:
    """Write one picture as a PNG; its folder is made where it is missing.

    Args:
        picture: uint8 ``(3, H, W)``, ``(1, H, W)`` or ``(H, W)``. One channel is written as a grey PNG.
        path: the file.

    Returns:
        The path.

    Raises:
        ValueError: if the picture is not one of these, or the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_png(torch.zeros(3, 4, 4, dtype=torch.uint8), folder + "/black.png").name
        'black.png'
    """
    path = Path(path)
    pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if pixels.dtype != np.uint8:
        raise ValueError(f"a PNG takes uint8, not {pixels.dtype}: use to_uint8 first")
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    elif pixels.ndim == 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    elif pixels.ndim != 2:
        raise ValueError(f"a PNG takes shape (3, H, W), (1, H, W) or (H, W), not {pixels.shape}")
    with _writing(path):
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
    return path


def save_images(x: Tensor, out: str | Path) -> Path:
    """Write samples: the ending of ``out`` says how.

    ======================  ==========================================================================
    ``samples.png``         one grid of all of them
    ``samples.npy``         the floats themselves, float32, in the data's units (for 2-D points too)
    ``samples`` (a folder)  one PNG each, ``00000.png``, ``00001.png``, ...; grey images as grey PNGs
    ======================  ==========================================================================

    Args:
        x: images ``(B, C, H, W)``, floats in [-1, 1] or uint8, or, for ``.npy``, anything ``(B, ...)``.
        out: the file or folder; missing folders are made.

    Returns:
        The path.

    Raises:
        ValueError: if ``out`` has another ending or cannot be written, if a folder holds PNGs that this call
            would not overwrite (a score of the folder would mix old and new ones), or if ``x`` are not images
            where pictures are asked for.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = save_images(torch.zeros(2, 1, 8, 8), folder + "/samples")
        ...     sorted(path.name for path in out.iterdir())
        ['00000.png', '00001.png']
    """
    out = Path(out)
    kind = "" if out.is_dir() else out.suffix.lower()
    if kind not in ("", ".png", ".npy"):
        raise ValueError(f"cannot write {out}: give .png (one grid), .npy (floats) or a folder (no ending)")
    if kind != ".npy" and (x.ndim != 4 or x.shape[1] not in (1, 3)):
        raise ValueError(f"shape {tuple(x.shape)} is not (B, 1 or 3, H, W): only a .npy file can hold it")
    if kind == ".png":
        return save_png(grid(x), out)
    if kind == ".npy":
        with _writing(out), out.open("wb") as file:
            np.save(file, x.detach().cpu().float().numpy(), allow_pickle=False)
        return out
    names = [f"{i:05d}.png" for i in range(len(x))]
    others = {path.name for path in out.glob("*.png")} - set(names) if out.is_dir() else set()
    if others:
        raise ValueError(f"{out} holds {len(others)} other PNGs ({min(others)}, ...): give an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write into {out}: {error.strerror or error}") from error
    for name, image in zip(names, x if x.dtype == torch.uint8 else to_uint8(x), strict=True):
        save_png(image, out / name)
    return out
