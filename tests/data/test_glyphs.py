"""Glyphs: whole, readable, in splits that share no shape, and letters with the very ink of the digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ebmzoo.data import Glyphs, digits, glyphs
from ebmzoo.data import fonts as fonts_module
from ebmzoo.data.fonts import BORDER, characters, draw_character, pairs
from ebmzoo.data.glyphs import _FREE, _place

LETTERS = characters("letters")


@pytest.mark.parametrize("character", ["F", "g"])
def test_an_unturned_character_stands_upright_in_the_middle(character):
    master = draw_character("DejaVuSerif", character, 64)
    image = np.asarray(_place(master, 64, _FREE, np.array([0.5, 1.0, 0.5, 0.5])), dtype=float)
    ink = master.crop((BORDER, BORDER, master.width - BORDER, master.height - BORDER))
    factor = 56 / max(ink.size)  # a border of a sixteenth on every side
    small = ink.resize([round(side * factor) for side in ink.size], Image.Resampling.BILINEAR)
    expected = np.zeros((64, 64))
    top, left = (64 - small.height) // 2, (64 - small.width) // 2
    expected[top : top + small.height, left : left + small.width] = np.asarray(small)
    assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.96
    assert np.corrcoef(image.ravel(), expected[:, ::-1].ravel())[0, 1] < 0.7


def test_a_pose_turns_scales_and_moves_as_it_says():
    master = draw_character("DejaVuSans", "I", 64)

    def moments(numbers: list[float]) -> tuple[np.ndarray, float, float]:
        image = np.asarray(_place(master, 64, _FREE, np.array(numbers)), dtype=float)
        y, x = np.mgrid[:64, :64] + 0.5
        weight = image / image.sum()
        centre = np.array([(weight * x).sum(), (weight * y).sum()])
        dx, dy = x - centre[0], y - centre[1]
        covariance = np.array([[(weight * a * b).sum() for a in (dx, dy)] for b in (dx, dy)])
        values, vectors = np.linalg.eigh(covariance)
        lean = vectors[:, 1] * np.sign(vectors[1, 1])
        return centre, np.degrees(np.arctan2(lean[0], lean[1])), np.sqrt(values[1])

    centre, angle, length = moments([0.5, 1.0, 0.5, 0.5])
    assert np.allclose(centre, 32, atol=0.3) and abs(angle) < 0.5
    assert moments([1.0, 1.0, 0.5, 0.5])[1] == pytest.approx(-12, abs=0.5)
    assert moments([0.0, 1.0, 0.5, 0.5])[1] == pytest.approx(12, abs=0.5)
    assert moments([0.5, 0.0, 0.5, 0.5])[2] == pytest.approx(0.75 * length, rel=0.02)
    assert moments([0.5, 0.0, 1.0, 0.0])[0] == pytest.approx([32 + 6.4, 32 - 6.4], abs=0.4)


@pytest.mark.parametrize("size", [8, 16, 28, 64])
def test_nothing_is_cut_off_and_nothing_is_faint(size):
    n = 100 if size == 64 else 500
    x = glyphs("train", n, size, characters="letters+digits")[0]
    assert x.shape == (n, 1, size, size) and x.dtype == torch.uint8
    flat = x.flatten(1)
    assert (flat.min(1).values == 0).all() and (flat.max(1).values == 255).all()
    # Paper on every side: a sixteenth, less what a pixel's own width blurs.
    rim = max(0, int(size / 16 - 0.5))
    inner = torch.zeros_like(x)
    inner[..., rim : size - rim, rim : size - rim] = x[..., rim : size - rim, rim : size - rim]
    assert torch.equal(inner, x)
    ink = flat.double().mean(1) / 255
    assert ink.min() > 0.02 and ink.max() < 0.6


def test_the_pictures_show_what_their_labels_say():
    x, labels = glyphs("train", 4000)
    y, others = glyphs("test", 300)
    shown = [[character for _, character in pairs(split, LETTERS)] for split in ("train", "test")]
    nearest = torch.cdist(y.flatten(1).float(), x.flatten(1).float()).argmin(1)
    same = [shown[0][labels[i]].lower() == shown[1][other].lower() for i, other in zip(nearest, others, strict=True)]
    assert np.mean(same) > 0.7  # by chance one in 26


def test_colours_are_two_and_their_difference_can_be_read():
    x = glyphs("train", 300, 16, channels=3)[0].double()
    coverage = glyphs("train", 300, 16, channels=1)[0][:, 0].double() / 255
    paper = x[:, :, 0, 0]
    assert (coverage[:, 0, 0] == 0).all()
    fullest = coverage.flatten(1).argmax(1)
    pen = x.flatten(2).gather(2, fullest[:, None, None].expand(-1, 3, 1))[..., 0]
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert ((paper - pen) @ luma).abs().min() > 79
    mixed = paper[..., None, None] + (pen - paper)[..., None, None] * coverage[:, None]
    assert (x - mixed).abs().max() <= 1.5  # three roundings of half a level
    assert len(torch.cat([paper, pen]).unique(dim=0)) > 590
    grey = (paper @ luma).mean().item()
    assert grey == pytest.approx(127.5, abs=15)  # as often light on dark as dark on light


def test_they_are_deterministic_and_independent_of_the_seed():
    a, b = (Glyphs(n_train=60, n_test=30, channels=3, seed=seed, batch_size=20) for seed in (0, 1))
    assert torch.equal(a.reference("train").data, b.reference("train").data)
    assert not torch.equal(a.reference("train").data[:30], a.reference("test").data)
    first, second = (next(iter(data.train_dataloader())) for data in (a, b))
    assert first.shape == (20, 3, 16, 16) and not torch.equal(first, second)
    assert torch.equal(glyphs("train", 10)[0], glyphs("train", 60)[0][:10])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.thorough
def test_letters_like_digits_have_exactly_the_inks_of_the_digits(split):
    scans = (digits(split)[0] + 1) * 8
    n = len(scans)
    x = (glyphs(split, n, 8, like="digits")[0] + 1) * 8
    assert x.shape == (n, 1, 8, 8) and x.dtype == torch.float32
    assert torch.equal(x.unique(), torch.arange(17.0))
    assert torch.equal(x.sum((1, 2, 3)).sort().values, scans.sum((1, 2, 3)).sort().values)
    # Another number of them: the same shares.
    few = (glyphs(split, 100, 8, like="digits")[0] + 1) * 8
    assert few.mean().item() == pytest.approx(scans.mean().item(), rel=2e-3)
    # They fill the height that the digits fill, and leave the first and the last column free as they do.
    ours, theirs = (images.mean((0, 1, 3)) for images in (x, scans))
    assert (ours - theirs).abs().max() < 1.5
    assert max(images.mean((0, 1, 2))[[0, 7]].max() for images in (x, scans)) < 0.2


def test_letters_like_digits_are_no_digits():
    labels = glyphs("test", 297, 8, like="digits")[1]
    chosen = "".join(character for character in LETTERS if character not in "OoQIlijMmWw")
    left = pairs("test", chosen)
    assert len(left) == 82 and labels.max() < 82 and len(labels.unique()) > 70
    small, large = (glyphs("test", 20, size, like="digits")[0] for size in (8, 32))
    assert torch.equal(large, torch.nn.functional.interpolate(small, (32, 32), mode="bilinear"))


def test_names_and_errors(tmp_path, monkeypatch):
    names = {
        Glyphs().name,
        Glyphs(channels=3).name,
        Glyphs(size=8).name,
        Glyphs(size=8, like="digits").name,
        Glyphs(characters="letters+digits").name,
    }
    assert len(names) == 5 and "glyphs-letters-digits-16" in names and "glyphs-letters-like-digits-8" in names
    for settings in ({"size": 7}, {"size": 65}, {"channels": 2}, {"n_train": 0}, {"n_test": 0}):
        with pytest.raises(ValueError, match="glyphs need"):
            Glyphs(**settings)
    for settings in ({"size": 20}, {"channels": 3}, {"characters": "letters+digits"}):
        with pytest.raises(ValueError, match="glyphs like digits are letters"):
            Glyphs(**{"size": 8, "like": "digits", **settings})
    with pytest.raises(ValueError, match="not like 'faces'"):
        Glyphs(like="faces")
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    fonts_module._file.cache_clear()
    fonts_module._measured.cache_clear()
    with pytest.raises(FileNotFoundError, match="font of matplotlib not found: .*ttf. Install") as caught:
        Glyphs(n_test=1).setup("test")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    fonts_module._file.cache_clear()
