"""Characters as ink, and which font is held out for which."""

import numpy as np
import pytest

from ebmzoo.data import glyphs
from ebmzoo.data.fonts import BORDER, FONTS, characters, draw_character, pairs

LETTERS = characters("letters")


def test_characters_by_name():
    assert characters("letters") == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert characters("digits+capitals+letters") == "0123456789" + LETTERS
    with pytest.raises(ValueError, match="no characters 'greek': capitals, small, letters, digits"):
        characters("letters+greek")


def test_the_splits_share_no_pair_and_have_every_character_equally_often():
    train, test = pairs("train", LETTERS), pairs("test", LETTERS)
    assert len(FONTS) == len(set(FONTS)) == 16
    assert sorted(train + test) == sorted((font, character) for font in FONTS for character in LETTERS)
    assert [sum(c == character for _, c in test) for character in LETTERS] == [2] * 52
    assert len({font for font, _ in test}) == 16
    # Which fonts are held out for a character does not depend on what else is asked for.
    assert set(pairs("test", "gA")) <= set(test)
    # Written down once: a change here makes every number measured on them incomparable.
    assert pairs("test", "A") == [("DejaVuSans", "A"), ("DejaVuSerif-Bold", "A")]
    assert pairs("test", "g") == [("DejaVuSansMono", "g"), ("DejaVuSansMono-Oblique", "g")]
    with pytest.raises(ValueError, match="no split 'val'"):
        pairs("val", "A")
    for split, both in (("train", train), ("test", test)):
        labels = glyphs(split, 1500, size=8)[1]
        assert labels.min() == 0 or split == "train"
        assert labels.max() < len(both) and len(labels.unique()) > 0.8 * min(len(both), 1500)


def test_every_font_draws_every_character():
    shapes = set()
    for font in FONTS:
        for character in characters("letters+digits"):
            image = draw_character(font, character, side=64)
            box = image.getbbox()
            assert box == (BORDER, BORDER, image.width - BORDER, image.height - BORDER)
            assert abs(max(image.size) - 2 * BORDER - 64) <= 2  # hinting rounds
            assert np.asarray(image).max() > 200
            shapes.add(image.tobytes())
    assert len(shapes) == 16 * 62  # none is the box that stands for a missing character
