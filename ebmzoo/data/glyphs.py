"""Printed characters, any number of them and at any size: built in, deterministic, grey or in colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ebmzoo.data.base import DataModule, Examples, InMemory
from ebmzoo.data.digits import SIZES as DIGITS
from ebmzoo.data.digits import digits
from ebmzoo.data.fonts import BORDER, draw_character, pairs
from ebmzoo.data.fonts import characters as characters_of

_SEEDS = {"train": 52, "test": 53}
_TWINS = "OoQIlij"  # printed letters that, at 8 px, nobody can tell from a zero or a one
_TOO_FINE = "MmWw"  # three strokes side by side, where 8 px leave six for a character: they turn into grey
_DRAWN = 64  # px: characters are drawn at least this large, and averaged down
_CONTRAST = 80.0  # least difference in luma between a character and its paper, of 255
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow makes grey of colour
_SCAN = 32  # px: the bitmaps that the digits were counted from, in blocks of 4 x 4


@dataclass(frozen=True)
class _Poses:
    """How much characters are turned, scaled and moved.

    Attributes:
        degrees: largest angle.
        least: smallest size, as a share of the largest that fits.
        shift: largest shift, as a share of the side.
        margin: paper on every side, as a share of the side.
        width: largest width, as a share of the height, to which wider characters are squeezed; None keeps
            the proportions.
    """

    degrees: float
    least: float
    shift: float
    margin: float
    width: float | None = None


_FREE = _Poses(degrees=12, least=0.75, shift=0.1, margin=1 / 16)
# The scans of the digits fill their full height and three quarters of their width, and stand upright.
_SCANNED = _Poses(degrees=6, least=0.97, shift=0.03, margin=0, width=0.75)


def _place(master: Image.Image, side: int, poses: _Poses, numbers: np.ndarray) -> Image.Image:
    """A character in its pose, wholly inside a square; ``numbers`` are four in [0, 1)."""
    spread = 2 * numbers - 1
    angle = math.radians(poses.degrees) * spread[0]
    cos, sin = math.cos(angle), math.sin(angle)
    width, height = (extent - 2 * BORDER for extent in master.size)
    across, down = 1.0, 1.0
    if poses.width is not None:
        down = side / height
        across = min(down, poses.width * side / width)
    # The sides of the upright box around the turned one.
    box_width = across * width * cos + down * height * abs(sin)
    box_height = across * width * abs(sin) + down * height * cos
    room = side * (1 - 2 * poses.margin)
    scale = room / max(box_width, box_height) * (poses.least + (1 - poses.least) * numbers[1])
    across, down = across * scale, down * scale
    slack = [(room - scale * extent) / 2 for extent in (box_width, box_height)]
    x, y = (side / 2 + min(free, poses.shift * side) * s for free, s in zip(slack, spread[2:], strict=True))
    # Pillow asks the other way round: from where in the character does a point of the square come?
    a, b, d, e = cos / across, sin / across, -sin / down, cos / down
    c, f = master.width / 2 - a * x - b * y, master.height / 2 - d * x - e * y
    return master.transform((side, side), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def _colours(n: int, random: np.random.RandomState) -> np.ndarray:
    """Random pairs of colours, paper and ink, that differ enough to be read: float64 ``(n, 2, 3)``, 0..255."""
    colours = 255 * random.random_sample((n, 2, 3))
    while (dull := np.abs((colours @ _LUMA) @ [1, -1]) < _CONTRAST).any():
        colours[dull] = 255 * random.random_sample((dull.sum(), 2, 3))
    return colours


def _like_scans(drawn: np.ndarray, inks: np.ndarray) -> np.ndarray:
    """Characters as the digits were scanned: 8x8 counts of the ink in 4x4 blocks of a 32x32 bitmap.

    The inks of the digits are dealt out by rank: the character with the least ink gets that of the digit with
    the least, so that the strokes become only as much thicker or thinner as they must.

    Args:
        drawn: uint8 ``(n, 64, 64)``.
        inks: counts of inked pixels in the digits' bitmaps, int64 ``(m,)``.

    Returns:
        Counts 0..16, int64 ``(n, 8, 8)``.
    """
    from scipy.ndimage import distance_transform_edt  # lazily: only here

    n = len(drawn)
    target = np.empty(n, dtype=np.int64)
    target[np.argsort(drawn.sum((1, 2), dtype=np.int64), kind="stable")] = np.sort(inks)[
        ((np.arange(n) + 0.5) * len(inks) / n).astype(int)
    ]
    bitmaps = np.zeros((n, _SCAN * _SCAN), dtype=np.int64)
    for bitmap, image, count in zip(bitmaps, drawn, target, strict=True):
        ink = image >= 128
        # Distance to the edge of the stroke, negative inside: the pixels nearest to it, or deepest in it, are
        # inked first.
        outside = distance_transform_edt(~ink) - distance_transform_edt(ink)
        coarse = outside.reshape(_SCAN, 2, _SCAN, 2).mean((1, 3)).ravel()
        bitmap[np.argsort(coarse, kind="stable")[:count]] = 1
    return bitmaps.reshape(n, 8, 4, 8, 4).sum((2, 4))


def glyphs(
    split: str,
    n: int,
    size: int = 16,
    channels: int = 1,
    characters: str = "letters",
    like: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The glyphs of one split, with what they show.

    Args:
        split: ``"train"`` or ``"test"``; no pair of font and character is in both, see `fonts.pairs`.
        n: number of images.
        size: px, 8 to 64; with ``like`` 8, 16 or 32.
        channels: 1 for white ink on black, 3 for ink and paper of random colours.
        characters: as in `fonts.characters`.
        like: ``"digits"`` for letters as if they had been scanned with the digits.

    Returns:
        Images, uint8 ``(n, channels, size, size)`` or, with ``like``, float32 in [-1, 1] as `digits` gives them;
        and row numbers in ``pairs(split, ...)``, int64 ``(n,)``.

    Raises:
        ValueError: for another split, size, number of channels or name of characters.
        FileNotFoundError: one line, if matplotlib lacks a font.

    Example:
        >>> x, labels = glyphs("test", n=3, size=20, channels=3)
        >>> x.shape, x.dtype, labels.shape
        (torch.Size([3, 3, 20, 20]), torch.uint8, torch.Size([3]))
    """
    chosen = _check(n, size, channels, characters, like)
    choices = pairs(split, chosen)
    random = np.random.RandomState(_SEEDS[split])  # NumPy has frozen this stream
    numbers = random.random_sample((n, 5))
    labels = (numbers[:, 0] * len(choices)).astype(int)
    # Drawn large and averaged down by a whole factor, 2 at least: that is what smooths a turned edge.
    side = _DRAWN if like else size * max(2, -(-_DRAWN // size))
    poses = _SCANNED if like else _FREE
    drawn = np.empty((n, _DRAWN, _DRAWN) if like else (n, size, size), dtype=np.uint8)
    masters: dict[int, Image.Image] = {}
    for i, label in enumerate(map(int, labels)):
        if label not in masters:
            masters[label] = draw_character(*choices[label], side)
        image = _place(masters[label], side, poses, numbers[i, 1:])
        drawn[i] = np.asarray(image if like else image.reduce(side // size))
    shown = torch.from_numpy(labels).long()
    if like:
        inks = (digits(split)[0] + 1).mul(8).sum((1, 2, 3)).long().numpy()
        x = torch.from_numpy(_like_scans(drawn, inks)).float()[:, None].div_(8).sub_(1)
        if size != 8:
            x = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        return x, shown
    # Thin strokes of small characters are grey: the darkest point of each is full ink.
    ink = drawn / drawn.max((1, 2), keepdims=True).astype(np.float64)
    colours = np.array([[[0.0], [255.0]]]) if channels == 1 else _colours(n, random)
    paper, pen = colours[:, 0, :, None, None], colours[:, 1, :, None, None]
    return torch.from_numpy(np.rint(paper + (pen - paper) * ink[:, None]).astype(np.uint8)), shown


def _check(n: int, size: int, channels: int, names: str, like: str | None) -> str:
    chosen = characters_of(names)
    if n < 1 or not 8 <= size <= 64 or channels not in (1, 3):
        raise ValueError(f"glyphs need n >= 1, 8 <= size <= 64 and 1 or 3 channels, not {n}, {size}, {channels}")
    if like is None:
        return chosen
    if like != "digits":
        raise ValueError(f"glyphs can be like digits, not like {like!r}")
    if size not in DIGITS or channels != 1 or any(character.isdigit() for character in chosen):
        raise ValueError(
            f"glyphs like digits are letters with 1 channel at 8, 16 or 32 px, not {names}, {channels} and {size}"
        )
    return "".join(character for character in chosen if character not in _TWINS + _TOO_FINE)


class Glyphs(DataModule):
    """Characters printed with sixteen fonts, a little turned, scaled and moved; offline, deterministic.

    The fonts are the text fonts that matplotlib brings along: DejaVu Sans, Sans Mono and Serif, and STIX, each
    upright, bold, slanted and both. For each character two of the sixteen fonts are for the test split alone,
    so that no test image shows a shape that was trained on. The images are the same on every run; another version
    of Pillow or matplotlib may draw an edge a little differently.

    With ``like="digits"`` the letters are the out-of-distribution partner of `Digits`: counted, as the digits
    were, from 32x32 bitmaps in 4x4 blocks (the same 17 grey levels at 8 px, the same enlargement above), with
    their height and width, and with the very amounts of ink that the digits of the same split have, so that a
    score cannot tell them by their brightness. O, o, Q, I, l, i and j are left out, since at 8 px they
    are a zero or a one, and M, m, W and w, which 8 px cannot show.

    Args:
        size: px, 8 to 64; with ``like`` 8, 16 or 32.
        channels: 1 for white ink on black, 3 for ink and paper of random colours.
        characters: ``"capitals"``, ``"small"``, ``"letters"`` (both), ``"digits"``, or several joined by ``+``.
        n_train: number of training images.
        n_test: number of test images (validation is the test split).
        like: ``"digits"``, or nothing.
        **kwargs: those of `DataModule`. A flip would turn characters into other shapes: leave it 0.

    Raises:
        ValueError: for another size, number or name.
        FileNotFoundError: at `setup`, one line, if matplotlib lacks a font.

    Example:
        >>> data = Glyphs(size=16, channels=3, n_train=100, n_test=10, batch_size=50)
        >>> next(iter(data.train_dataloader())).shape, data.name
        (torch.Size([50, 3, 16, 16]), 'glyphs-letters-colour-16')
    """

    def __init__(
        self,
        size: int = 16,
        channels: int = 1,
        characters: str = "letters",
        n_train: int = 20_000,
        n_test: int = 2_000,
        like: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for n in (n_train, n_test):
            _check(n, size, channels, characters, like)
        self.size, self.channels, self.characters, self.like = size, channels, characters, like
        self.counts = {"train": n_train, "test": n_test}
        colour, kind = "-colour" if channels == 3 else "", f"-like-{like}" if like else ""
        self.name = f"glyphs-{characters.replace('+', '-')}{kind}{colour}-{size}"
        self.image_shape = (channels, size, size)

    def load(self, split: str) -> Examples:
        """The images of ``"train"`` or ``"test"``."""
        how = self.size, self.channels, self.characters, self.like
        return InMemory(glyphs(split, self.counts[split], *how)[0])
