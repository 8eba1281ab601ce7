"""Characters as ink, from the text fonts that matplotlib brings along."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ebmzoo.data.files import find
from ebmzoo.data.listing import is_held_out

#: file names without ending: upright, bold, slanted and both of three families and of Times-like STIX
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
_SETS = {
    "capitals": string.ascii_uppercase,
    "small": string.ascii_lowercase,
    "letters": string.ascii_uppercase + string.ascii_lowercase,
    "digits": string.digits,
}
_HELD_OUT = 0.125  # two of the sixteen fonts, for each character
_MEASURED = 100  # px: the font size at which a character is measured
#: px of paper around a drawn character, so that turning it does not cut its edge hard
BORDER = 2


def characters(names: str) -> str:
    """The characters that a name stands for.

    Args:
        names: ``"capitals"``, ``"small"``, ``"letters"`` (both) or ``"digits"``, or several joined by ``+``.

    Raises:
        ValueError: for another name.

    Example:
        >>> characters("small+digits")
        'abcdefghijklmnopqrstuvwxyz0123456789'
    """
    parts = names.split("+")
    unknown = [part for part in parts if part not in _SETS]
    if unknown:
        raise ValueError(f"there are no characters {unknown[0]!r}: {', '.join(_SETS)}, or several joined by +")
    return "".join(dict.fromkeys("".join(_SETS[part] for part in parts)))


def pairs(split: str, chosen: str) -> list[tuple[str, str]]:
    """The pairs (font, character) of one split: no pair is in both.

    For each character two of the sixteen fonts are for the test split, so that every character is as frequent
    in one as in the other. Which ones depends on the names of the fonts and on the character alone.

    Args:
        split: ``"train"`` or ``"test"``.
        chosen: the characters themselves.

    Raises:
        ValueError: for another split.

    Example:
        >>> len(pairs("train", "AB")), len(pairs("test", "AB"))
        (28, 4)
    """
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r} of the glyphs: train, test")
    both = []
    for character in chosen:
        held = is_held_out([f"{font} {character}" for font in FONTS], _HELD_OUT)
        both += [(font, character) for font, test in zip(FONTS, held, strict=True) if test == (split == "test")]
    return both


@cache
def _file(font: str) -> Path:
    import matplotlib  # lazily: the import takes a third of a second

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    return find([path], "A font of matplotlib", "Install matplotlib again")


@cache
def _measured(font: str) -> ImageFont.FreeTypeFont:
    # The basic layout is in every build of Pillow; the other one would move accents and kerning, not letters.
    return ImageFont.truetype(str(_file(font)), _MEASURED, layout_engine=ImageFont.Layout.BASIC)


def draw_character(font: str, character: str, side: int) -> Image.Image:
    """One character, cut to its ink and enlarged until the longer side of that is ``side``, with a thin border.

    Args:
        font: one of `FONTS`.
        character: one character.
        side: px.

    Returns:
        A grey picture, ink 255 on 0, with 2 px of paper on every side.

    Raises:
        FileNotFoundError: one line, if matplotlib lacks the font.
    """
    measured = _ink(_measured(font), character)
    ink = _ink(_measured(font).font_variant(size=_MEASURED * side / max(measured.size)), character)
    framed = Image.new("L", (ink.width + 2 * BORDER, ink.height + 2 * BORDER))
    framed.paste(ink, (BORDER, BORDER))
    return framed


def _ink(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    # A little larger than the font says: some slanted characters lean out of their box.
    canvas = Image.new("L", (right - left + 16, bottom - top + 16))
    ImageDraw.Draw(canvas).text((8 - left, 8 - top), character, fill=255, font=font)
    return canvas.crop(canvas.getbbox())
