"""Sets that are read file by file: small files of the real formats, written here, compared pixel by pixel."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.transforms.v2.functional import center_crop

from ebmzoo.data import CelebA, CelebAHQ, ImageFolder, LSUNChurch
from ebmzoo.data.files import image_files
from ebmzoo.data.listing import is_held_out
from ebmzoo.images import to_uint8


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8)


def photo(path: Path, array: np.ndarray, **settings) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)
    return array


def one(data, i: int = 0, split: str = "train") -> np.ndarray:
    """An image as Pillow would show it, (H, W, C)."""
    return to_uint8(data.reference(split)[i]).permute(1, 2, 0).numpy()


def test_a_folder_is_read_at_any_depth_and_split_by_name(tmp_path):
    arrays = {}
    names = ["b.png", "sub/a.PNG", "sub/deep/c.bmp", "d.ppm", "e.png", *(f"{k}.png" for k in range(5))]
    for i, name in enumerate(names):
        arrays[name] = photo(tmp_path / name, noise(8, 8, 3, seed=i))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    data = ImageFolder(tmp_path, size=8, holdout=0.2, batch_size=3)
    data.setup()
    assert (len(data.reference("train")), len(data.reference("test"))) == (8, 2)
    both = [one(data, i, split).tobytes() for split, n in (("train", 8), ("test", 2)) for i in range(n)]
    assert sorted(both) == sorted(array.tobytes() for array in arrays.values())
    again = ImageFolder(tmp_path, size=8, holdout=0.2, seed=5)
    assert [one(again, i, "test").tobytes() for i in range(2)] == both[8:]
    assert data.image_shape == (3, 8, 8)
    assert [x.shape for x in data.train_dataloader()] == [(3, 3, 8, 8)] * 2
    batch = next(iter(data.val_dataloader()))
    assert [to_uint8(x).permute(1, 2, 0).numpy().tobytes() for x in batch] == both[8:]


def test_the_held_out_names_do_not_depend_on_their_order():
    names = [f"{i}.jpg" for i in range(50)]
    held = {name for name, test in zip(names, is_held_out(names, 0.2), strict=True) if test}
    backwards = names[::-1]
    assert {name for name, test in zip(backwards, is_held_out(backwards, 0.2), strict=True) if test} == held
    assert len(held) == 10 and sum(is_held_out(names[:3], 0.01)) == 1
    with pytest.raises(ValueError, match="leaves nothing of 1 images"):
        is_held_out(["a"], 0.5)


def test_linked_folders_are_read_and_none_twice_or_without_end(tmp_path):
    for i, name in enumerate(["store/cats/a.png", "store/cats/more/b.png", "store/dogs/c.png", "photos/own/d.png"]):
        photo(tmp_path / name, noise(8, 8, 3, seed=i))
    photos = tmp_path / "photos"
    (photos / "cats").symlink_to("../store/cats")
    (photos / "dogs").symlink_to("../store/dogs")
    (photos / "own" / "back").symlink_to("..")  # without end
    (photos / "zoo").symlink_to("../store")  # all of them once more
    assert image_files(photos) == ["cats/a.png", "cats/more/b.png", "dogs/c.png", "own/d.png"]
    (tmp_path / "link").symlink_to("photos")
    assert image_files(tmp_path / "link") == image_files(photos)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_a_name_that_is_no_utf8_is_a_name(tmp_path):
    for i in range(10):
        photo(tmp_path / f"{i}.png", noise(8, 8, 3, seed=i))
    os.rename(tmp_path / "3.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    data = ImageFolder(tmp_path, size=8, holdout=0.3)
    data.setup()
    read = {one(data, i, split).tobytes() for split, n in (("train", 7), ("test", 3)) for i in range(n)}
    assert read == {noise(8, 8, 3, seed=i).tobytes() for i in range(10)}


def test_without_a_holdout_evaluation_reads_the_training_images(tmp_path):
    for i in range(3):
        photo(tmp_path / f"{i}.png", noise(8, 8, 3, seed=i))
    data = ImageFolder(tmp_path, size=8, holdout=0)
    assert len(data.reference("train")) == len(data.reference("test")) == 3
    assert data.reference_name("test") == data.reference_name("train")


def test_a_folder_of_its_own_for_the_test_images(tmp_path):
    photo(tmp_path / "a" / "x.png", noise(8, 8, 3))
    test = photo(tmp_path / "b" / "y.png", noise(8, 8, 3, seed=1))
    data = ImageFolder(tmp_path / "a", size=8, test_root=tmp_path / "b")
    assert len(data.reference("train")) == 1
    assert np.array_equal(one(data, 0, "test"), test)


def test_the_centre_square_is_cut_out(tmp_path):
    wide = photo(tmp_path / "a.png", noise(8, 13, 3))
    assert np.array_equal(one(ImageFolder(tmp_path, size=8, holdout=0)), wide[:, 2:10])
    small = one(ImageFolder(tmp_path, size=4, holdout=0)).astype(int)
    pillow = Image.fromarray(wide[:, 2:10]).resize((4, 4), Image.Resampling.BILINEAR)
    assert np.abs(small - np.asarray(pillow)).max() <= 1


def test_colour_and_grey_are_converted_and_said_so_once(tmp_path):
    grey = photo(tmp_path / "grey.png", noise(8, 8))
    with pytest.warns(UserWarning, match="1 of 1 images are grey, converted to colour.*grey.png") as caught:
        data = ImageFolder(tmp_path, size=8, holdout=0)
        data.setup()
        data.setup("fit")
        assert np.array_equal(one(data), np.repeat(grey[..., None], 3, axis=2))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = ImageFolder(tmp_path, size=8, channels=1, holdout=0)
        assert np.array_equal(one(plain)[..., 0], grey)
    assert plain.image_shape == (1, 8, 8) and plain.name.endswith("-grey-8")
    (tmp_path / "grey.png").unlink()
    colour = photo(tmp_path / "colour.png", noise(8, 8, 3))
    with pytest.warns(UserWarning, match="1 of 1 images are colour, converted to grey"):
        luma = one(ImageFolder(tmp_path, size=8, channels=1, holdout=0))[..., 0]
    assert np.abs(luma - colour @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_orientation_transparency_and_sixteen_bits(tmp_path):
    upright = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(one(ImageFolder(tmp_path, size=8, holdout=0)), upright)

    clear = np.concatenate([upright, np.zeros((8, 8, 1), np.uint8)], axis=2)
    clear[:4, :, 3] = 255
    (tmp_path / "b").mkdir()
    Image.fromarray(clear).save(tmp_path / "b" / "clear.png")
    shown = one(ImageFolder(tmp_path / "b", size=8, holdout=0))
    assert np.array_equal(shown[:4], upright[:4]) and (shown[4:] == 255).all()

    (tmp_path / "c").mkdir()
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(levels).save(tmp_path / "c" / "deep.png")
    grey = one(ImageFolder(tmp_path / "c", size=8, channels=1, holdout=0))[..., 0]
    assert np.array_equal(grey, np.rint(levels / 257).astype(np.uint8))


def test_a_jpeg_is_what_pillow_decodes(tmp_path):
    photo(tmp_path / "a.jpg", noise(16, 16, 3), quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(one(ImageFolder(tmp_path, size=16, holdout=0)), np.asarray(image))


def test_missing_folders_and_empty_ones_are_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ImageFolder(tmp_path / "nowhere", size=8).setup()
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path / "nowhere") in line and "Give the folder of your images" in line
    with pytest.raises(FileNotFoundError, match="ends in .png, .jpg"):
        ImageFolder(tmp_path, size=8).setup()


def test_unreadable_files_are_named_at_setup(tmp_path):
    photo(tmp_path / "good.png", noise(8, 8, 3))
    bad = tmp_path / "bad.jpg"
    data = {"empty": b"", "text": b"no image at all", "float": None}
    for content in data.values():
        if content is None:
            bad.unlink()
            bad = tmp_path / "bad.tif"
            Image.fromarray(np.zeros((8, 8), np.float32)).save(bad)
        else:
            bad.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            ImageFolder(tmp_path, size=8, holdout=0).setup()
        assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
        assert str(caught.value).endswith("; skip_broken: true leaves such images out")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_truncated_file_is_named_when_it_is_read(tmp_path, ending):
    path = tmp_path / f"cut.{ending}"
    photo(path, noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:1500])
    data = ImageFolder(tmp_path, size=8, holdout=0, batch_size=1)
    data.setup()
    with pytest.raises(ValueError, match="cannot be read as an image.*skip_broken: true leaves such") as caught:
        next(iter(data.train_dataloader()))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_beyond_pillows_limit_is_named(tmp_path, monkeypatch):
    photo(tmp_path / "huge.png", noise(40, 40, 3))
    for limit in (1000, 500):  # Pillow itself warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(ValueError, match="huge.png") as caught:
                ImageFolder(tmp_path, size=8, holdout=0).setup()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    ImageFolder(tmp_path, size=8, holdout=0).setup()


def test_a_compressed_text_bomb_is_named(tmp_path, monkeypatch):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 10_000, zip=True)
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "bomb.png", pnginfo=info)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1000)
    with pytest.raises(ValueError, match="bomb.png"):
        ImageFolder(tmp_path, size=8, holdout=0).setup()


def test_settings_out_of_range_are_refused(tmp_path):
    for settings in ({"size": 0}, {"size": 8, "channels": 2}, {"size": 8, "holdout": 1.0}):
        with pytest.raises(ValueError, match="are needed"):
            ImageFolder(tmp_path, **settings)


def test_names_are_slugs(tmp_path):
    assert ImageFolder(tmp_path / "My photos (2)", size=64).name == "my-photos-2-64"
    (tmp_path / "b").mkdir()
    assert image_files(tmp_path) == []


def celeba(root: Path) -> dict[str, np.ndarray]:
    root.mkdir(parents=True, exist_ok=True)
    arrays, lines = {}, []
    for i, part in enumerate([0, 0, 1, 2, 2]):
        name = f"{i + 1:06d}.jpg"
        photo(root / "img_align_celeba" / name, noise(218, 178, 3, seed=i), quality=95)
        with Image.open(root / "img_align_celeba" / name) as image:
            arrays[name] = np.asarray(image)
        lines.append(f"{name} {part}")
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return arrays


@pytest.mark.parametrize("place", ["", "celeba"])
def test_celeba_reads_the_official_tree(tmp_path, place):
    arrays = celeba(tmp_path / place)
    data = CelebA(tmp_path, size=64, batch_size=2)
    data.setup()
    assert [len(data.reference(split)) for split in ("train", "val", "test")] == [2, 1, 2]
    for split, i, name in (("train", 1, "000002.jpg"), ("val", 0, "000003.jpg"), ("test", 1, "000005.jpg")):
        cut = Image.fromarray(arrays[name][40:188, 15:163])
        assert cut.size == (148, 148)
        pillow = np.asarray(cut.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(one(data, i, split) - pillow).max() <= 1
    assert next(iter(data.train_dataloader())).shape == (2, 3, 64, 64)


def test_celeba_crop_is_exact_and_part_of_the_name(tmp_path):
    arrays = celeba(tmp_path)
    crop = (25, 50, 153, 178)
    data = CelebA(tmp_path, size=128, crop=crop)
    assert np.array_equal(one(data), arrays["000001.jpg"][50:178, 25:153])  # 128 px: cut, not resized
    assert data.name == "celeba-128-crop-25-50-153-178" and CelebA(tmp_path, size=128).name == "celeba-128"
    for bad in ((0, 0, 10, 11), (0, 0, 200, 200), (-1, 0, 9, 10), (5, 5, 5, 5)):
        with pytest.raises(ValueError, match="crop is a square"):
            CelebA(tmp_path, crop=bad)
    with pytest.raises(ValueError, match="32, 64 or 128 px, not 48"):
        CelebA(tmp_path, size=48)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_centre_160_px_of_celeba_at_every_size(tmp_path, size):
    arrays = celeba(tmp_path)
    cut = center_crop(torch.tensor(arrays["000002.jpg"]).permute(2, 0, 1), [160, 160]).float().numpy()
    pillow = [Image.fromarray(channel).resize((size, size), Image.Resampling.BILINEAR) for channel in cut]
    data = CelebA(tmp_path, size=size, crop=(9, 29, 169, 189))
    assert np.abs(one(data, 1) - np.stack(pillow, axis=2)).max() <= 1


def test_an_incomplete_celeba_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="list not found: there is neither .* nor .*celeba/list_eval"):
        CelebA(tmp_path).setup("fit")
    celeba(tmp_path)
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 train images .* such as 000002.jpg") as caught:
        CelebA(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)
    photo(tmp_path / "img_align_celeba" / "000002.jpg", noise(100, 100, 3))
    with pytest.raises(ValueError, match=r"2.jpg has 100 x 100 pixels: crop \(15, 40, 163, 188\) does not"):
        CelebA(tmp_path).reference("train")[1]
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg\n")
    with pytest.raises(ValueError, match="line 2"):
        CelebA(tmp_path).setup("fit")


def test_odd_files_in_celebas_places_are_one_clear_line(tmp_path):
    (tmp_path / "img_align_celeba").write_bytes(b"PK")
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(FileNotFoundError, match="img_align_celeba is a file, a folder is needed"):
        CelebA(tmp_path).setup("fit")
    (tmp_path / "img_align_celeba").unlink()
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="line 1 is not 'name.jpg 0|1|2'") as caught:
        CelebA(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


def test_celeba_hq_from_images_from_arrays_and_from_one_array(tmp_path):
    arrays = noise(10, 3, 256, 256)
    for i, array in enumerate(arrays):
        photo(tmp_path / "images" / f"{i:05d}.png", array.transpose(1, 2, 0))
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.save(tmp_path / "arrays" / f"imgHQ{i:05d}.npy", array[None] if i % 2 else array)
    np.save(tmp_path / "all.npy", arrays)
    expected = sorted(array.tobytes() for array in arrays)
    for root in ("images", "arrays", "all.npy"):
        data = CelebAHQ(tmp_path / root, holdout=0.2, batch_size=2)
        data.setup()
        assert (len(data.reference("train")), len(data.reference("test"))) == (8, 2)
        read = torch.cat([data.reference("train")[torch.arange(8)], data.reference("test")[torch.arange(2)]])
        assert sorted(x.numpy().tobytes() for x in to_uint8(read)) == expected
    assert one(CelebAHQ(tmp_path / "all.npy", size=64)).shape == (64, 64, 3)


def test_celeba_hq_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="CelebA-HQ not found.*Give the folder of its 30,000 images"):
        CelebAHQ(tmp_path / "nowhere").setup()
    with pytest.raises(FileNotFoundError, match="CelebA-HQ not found: no file"):
        CelebAHQ(tmp_path).setup()
    path = tmp_path / "all.npy"
    for array in (np.zeros((4, 256, 256, 3), np.uint8), np.zeros((4, 3, 8, 8)), np.zeros(3, np.uint8)):
        np.save(path, array)
        with pytest.raises(ValueError, match=r"all.npy should hold uint8 \(n, 3, H, W\)"):
            CelebAHQ(path).setup()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="all.npy cannot be read as an array"):
        CelebAHQ(path).setup()


def test_church_from_a_folder(tmp_path):
    arrays = [photo(tmp_path / f"{i}.webp", noise(64, 64, 3, seed=i), lossless=True) for i in range(10)]
    data = LSUNChurch(tmp_path)
    data.setup()
    read = [one(data, i).tobytes() for i in range(9)] + [one(data, 0, "test").tobytes()]
    assert sorted(read) == sorted(array.tobytes() for array in arrays)
    with pytest.raises(FileNotFoundError, match="LSUN church not found.*church_outdoor_train_lmdb.zip"):
        LSUNChurch(tmp_path / "nowhere").setup()
    with pytest.raises(ValueError, match="holdout above 0"):
        LSUNChurch(tmp_path, holdout=0)


def test_church_databases_without_lmdb_say_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "church_outdoor_train_lmdb").mkdir()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match="train_lmdb needs the lmdb package: pip install lmdb"):
        LSUNChurch(tmp_path).setup("fit")


def test_church_from_its_databases(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    sets = {"train": 4, "val": 2}
    arrays: dict[str, list[np.ndarray]] = {}
    for part, n in sets.items():
        arrays[part] = [noise(64, 70, 3, seed=n + i) for i in range(n)]
        env = lmdb.open(str(tmp_path / f"church_outdoor_{part}_lmdb"), map_size=2**22)
        with env.begin(write=True) as transaction:
            for i, array in enumerate(arrays[part]):
                Image.fromarray(array).save(tmp_path / "x.webp", lossless=True)
                transaction.put(f"key{i}".encode(), (tmp_path / "x.webp").read_bytes())
        env.close()
    for workers in (0, 1):
        data = LSUNChurch(tmp_path, batch_size=2, num_workers=workers)
        data.setup()
        assert np.array_equal(one(data, 3), arrays["train"][3][:, 3:67])
        batch = next(iter(data.test_dataloader()))
        assert np.array_equal(to_uint8(batch[1]).permute(1, 2, 0).numpy(), arrays["val"][1][:, 3:67])
        assert len(data.reference("train")) == 4
