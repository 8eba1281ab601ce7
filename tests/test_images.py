"""Floats to bytes and bytes to files: every value is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ebmzoo.images import from_uint8, grid, save_animation, save_images, save_png, strips, to_uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_bytes_survive_the_round_trip(dtype):
    b = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(b).to(dtype)), b)


def test_from_uint8_is_the_stated_formula():
    x = from_uint8(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.tensor([-1.0, 51 / 127.5 - 1, 1.0]))


def test_to_uint8_rounds_and_never_truncates():
    wanted = torch.tensor([0.0, 0.4, 0.6, 99.9, 100.4, 254.6, 255.0], dtype=torch.float64)
    expected = torch.tensor([0, 0, 1, 100, 100, 255, 255], dtype=torch.uint8)
    assert torch.equal(to_uint8(wanted / 127.5 - 1), expected)
    assert torch.equal(to_uint8((wanted / 127.5 - 1).float()), expected)


def test_exact_halves_go_to_the_even_byte():
    halves = torch.tensor([19.5, 23.5, 32.5, 40.5, 127.5], dtype=torch.float64)
    x = halves / 127.5 - 1
    assert torch.equal((x + 1) * 127.5, halves)  # these come back exactly in float64
    assert to_uint8(x).tolist() == [20, 24, 32, 40, 128]


def test_values_outside_are_clamped_and_each_image_keeps_its_own_contrast():
    x = torch.tensor([-float("inf"), -3.0, -0.5, 0.5, 1.0001, float("inf")])
    assert to_uint8(x).tolist() == [0, 0, 64, 191, 255, 255]


def test_half_precision_is_widened_before_it_is_scaled():
    x = torch.linspace(-1, 1, 501).bfloat16()
    assert torch.equal(to_uint8(x), to_uint8(x.double()))


def test_nan_and_wrong_types_are_refused():
    with pytest.raises(ValueError, match="1 of 3 values are NaN"):
        to_uint8(torch.tensor([0.0, float("nan"), 1.0]))
    with pytest.raises(ValueError, match="floats in"):
        to_uint8(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="takes uint8"):
        from_uint8(torch.zeros(3))


def test_grid_places_every_pixel():
    images = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    picture = grid(images, columns=2, padding=1, scale=2)
    w = 255
    expected = torch.tensor(
        [
            [w, w, w, w, w, w, w, w, w, w, w],
            [w, 0, 0, 1, 1, w, 4, 4, 5, 5, w],
            [w, 0, 0, 1, 1, w, 4, 4, 5, 5, w],
            [w, 2, 2, 3, 3, w, 6, 6, 7, 7, w],
            [w, 2, 2, 3, 3, w, 6, 6, 7, 7, w],
            [w, w, w, w, w, w, w, w, w, w, w],
            [w, 8, 8, 9, 9, w, w, w, w, w, w],
            [w, 8, 8, 9, 9, w, w, w, w, w, w],
            [w, 10, 10, 11, 11, w, w, w, w, w, w],
            [w, 10, 10, 11, 11, w, w, w, w, w, w],
            [w, w, w, w, w, w, w, w, w, w, w],
        ],
        dtype=torch.uint8,
    )
    assert torch.equal(picture, expected.expand(3, -1, -1))


def test_grid_is_square_and_readable_by_default():
    assert grid(torch.zeros(9, 1, 8, 8)).shape == (3, 3 * 64 + 4 * 4, 3 * 64 + 4 * 4)
    assert grid(torch.zeros(1, 3, 128, 128)).shape == (3, 130, 130)
    assert grid(torch.zeros(10_000, 1, 8, 8)).shape[2] <= 2048


def test_grid_keeps_colours_and_refuses_other_shapes():
    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert grid(x, padding=0, scale=1).flatten().tolist() == [0, 128, 255]
    for shape in [(2,), (4, 2), (1, 2, 8, 8), (0, 1, 8, 8)]:
        with pytest.raises(ValueError, match="grid takes images"):
            grid(torch.zeros(shape))
    with pytest.raises(ValueError, match="columns >= 1"):
        grid(torch.zeros(1, 1, 2, 2), columns=0)


def test_strips_have_a_row_per_example_and_a_column_per_frame():
    frames = [torch.tensor([10 * t, 10 * t + 1], dtype=torch.uint8).view(2, 1, 1, 1) for t in range(5)]
    picture = strips(frames, padding=0, scale=1)
    assert picture[0].tolist() == [[0, 10, 20, 30, 40], [1, 11, 21, 31, 41]]
    floats = strips([from_uint8(frame) for frame in frames], padding=0, scale=1)
    assert torch.equal(floats, picture)
    with pytest.raises(ValueError, match="one shape"):
        strips([])
    with pytest.raises(ValueError, match="one shape"):
        strips([torch.zeros(1, 1, 2, 2), torch.zeros(2, 1, 2, 2)])


def test_titles_stand_above_their_columns_and_change_nothing_below():
    frames = [torch.full((2, 1, 8, 8), value) for value in (-1.0, 0.0, 1.0)]
    bare, titled = strips(frames, padding=2), strips(frames, padding=2, titles=["a", "", "a word too long for it"])
    line = titled[:, : titled.shape[1] - bare.shape[1]]
    assert torch.equal(titled[:, line.shape[1] :], bare)
    inked = (line[0] < 255).any(0)  # columns of pixels with letters
    third = line.shape[2] // 3
    assert inked[:third].any() and not inked[third : 2 * third].any() and inked[2 * third :].any()
    assert not inked[2 * third - 2 : 2 * third].any()  # nothing runs into a neighbour
    with pytest.raises(ValueError, match="2 titles for 3 columns"):
        strips(frames, titles=["a", "b"])


def test_animations_show_every_picture_and_repeat(tmp_path):
    pictures = [torch.full((3, 5, 7), value, dtype=torch.uint8) for value in (0, 51, 250)]
    for name in ("film.gif", "deep/film.apng"):
        path = save_animation(pictures, tmp_path / name, seconds=1.0)
        with Image.open(path) as film:
            assert (film.n_frames, film.size, film.info["loop"]) == (3, (7, 5), 0)
            for number, picture in enumerate(pictures):
                film.seek(number)
                assert film.info["duration"] == (1000 if number == 2 else 500)
                shown = np.asarray(film.convert("RGB"))
                np.testing.assert_array_equal(shown, picture.permute(1, 2, 0).numpy())
    with pytest.raises(ValueError, match=r"film.avi: an animation ends in .gif or .apng"):
        save_animation(pictures, tmp_path / "film.avi")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write"):
        save_animation(pictures, tmp_path / "file" / "film.gif")


def test_png_holds_the_exact_bytes(tmp_path):
    colour = torch.randint(256, (3, 5, 7), generator=torch.Generator().manual_seed(0)).byte()
    path = save_png(colour, tmp_path / "new" / "folder" / "colour.png")
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), colour.permute(1, 2, 0).numpy())
    with Image.open(save_png(colour[:1].numpy(), str(tmp_path / "grey.png"))) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), colour[0].numpy())


def test_png_errors_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        save_png(torch.zeros(3, 4, 4), tmp_path / "a.png")
    with pytest.raises(ValueError, match="takes shape"):
        save_png(torch.zeros(2, 4, 4, dtype=torch.uint8), tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write") as caught:
        save_png(torch.zeros(3, 4, 4, dtype=torch.uint8), tmp_path / "file" / "a.png")
    assert "\n" not in str(caught.value)


def test_samples_as_a_folder_as_floats_and_as_a_grid(tmp_path):
    bytes_ = torch.randint(256, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    x = from_uint8(bytes_)
    folder = save_images(x, tmp_path / "samples")
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    for i in range(3):
        with Image.open(folder / f"{i:05d}.png") as image:
            assert np.array_equal(np.asarray(image), bytes_[i, 0].numpy())

    points = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(np.load(save_images(points, tmp_path / "deep" / "points.npy")), points.numpy())

    with Image.open(save_images(x, tmp_path / "all.PNG")) as image:
        assert np.array_equal(np.asarray(image), grid(x).permute(1, 2, 0).numpy())


def test_an_older_longer_folder_is_not_mixed_with_a_new_one(tmp_path):
    out = tmp_path / "run.1"  # a folder that exists may have any name
    out.mkdir()
    save_images(torch.zeros(3, 1, 2, 2), out)
    save_images(torch.ones(3, 1, 2, 2), out)
    with Image.open(out / "00002.png") as image:
        assert np.asarray(image).min() == 255
    with pytest.raises(ValueError, match="1 other PNGs .00002.png"):
        save_images(torch.ones(2, 1, 2, 2), out)


def test_unwritable_and_unknown_outputs_are_one_line(tmp_path):
    x = torch.zeros(1, 1, 2, 2)
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path / "a.jpg": "give .png",
        tmp_path / "file" / "a.npy": "cannot write",
        tmp_path / "file" / "a": "cannot write into",
        tmp_path / "file" / "a.png": "cannot write",
        tmp_path / "file": "cannot write into",
    }
    for out, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            save_images(x, out)
        assert "\n" not in str(caught.value) and str(out) in str(caught.value)
    for name in ("a.png", "a"):
        with pytest.raises(ValueError, match="only a .npy"):
            save_images(torch.zeros(4, 2), tmp_path / name)
