"""Which files make a split: nothing in two of them, what is broken left out if asked, and odd ranges said."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebmzoo.cli.main import main
from ebmzoo.data import CelebAHQ, ImageFolder, InMemory, LSUNChurch
from ebmzoo.data.base import DataModule
from ebmzoo.data.files import read_image_of
from ebmzoo.images import narrow, to_uint8

from ..processes import two_processes


def photos(folder: Path, count: int, seed: int = 0, ending: str = "png") -> list[bytes]:
    """So many different images of 8 px in a folder; their pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:03d}.{ending}")
    return [image.transpose(2, 0, 1).tobytes() for image in pixels]


def contents(data: DataModule, split: str) -> list[bytes]:
    examples = data.reference(split)
    return [to_uint8(examples[i]).numpy().tobytes() for i in range(len(examples))]


def told(caught: list[warnings.WarningMessage], words: str) -> list[str]:
    return [str(one.message) for one in caught if words in str(one.message)]


# -- training images that are test images as well ---------------------------------------------------------------


def test_a_test_folder_within_the_training_folder_is_not_trained_on(tmp_path):
    train = photos(tmp_path, 12)
    test = photos(tmp_path / "test", 3, seed=1)
    data = ImageFolder(tmp_path, size=8, test_root=tmp_path / "test")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup()
    assert sorted(contents(data, "train")) == sorted(train)
    assert contents(data, "test") == contents(data, "val") == test
    (line,) = told(caught, "left out of training")
    assert line == (
        "3 of 15 training images are test images as well (3 the same files, 0 with the same bytes); they are left out "
        f"of training: {', '.join(str(tmp_path / 'test' / f'{i:03d}.png') for i in range(3))}"
    )


@pytest.mark.parametrize("kind", ["symlink", "hard link", "copy", "other way round", "linked folder"])
def test_a_test_image_by_another_path_or_copied_is_not_trained_on(tmp_path, kind):
    train = photos(tmp_path / "train", 5)
    test = photos(tmp_path / "test", 4, seed=1)
    source = tmp_path / "test" / "002.png"
    place = tmp_path / "train" / "sub" / "holiday.png"
    place.parent.mkdir()
    root, same = tmp_path / "train", 1
    if kind == "symlink":
        place.symlink_to(source)
    elif kind == "hard link":
        os.link(source, place)
        same = 0
    elif kind == "copy":
        place.write_bytes(source.read_bytes())
        same = 0
    elif kind == "other way round":
        place.write_bytes(source.read_bytes())
        source.unlink()
        source.symlink_to(place)
    else:
        place.symlink_to(source)
        (tmp_path / "other").symlink_to(root)
        root = tmp_path / "other"
    data = ImageFolder(root, size=8, test_root=tmp_path / "test")
    with pytest.warns(UserWarning, match=rf"1 of 6 .* \({same} the same files, {1 - same} with .*holiday.png"):
        data.setup()
    assert contents(data, "train") == train
    assert contents(data, "test") == test


@pytest.mark.parametrize("kind", [ImageFolder, LSUNChurch, CelebAHQ])
def test_copies_of_held_out_images_are_not_trained_on(tmp_path, kind):
    pixels = photos(tmp_path, 10)
    alone = kind(tmp_path, size=8, holdout=0.2)
    held = contents(alone, "test")
    assert len(held) == 2 and not set(held) & set(contents(alone, "train"))
    for i in range(10):  # a copy of each; by their names some of the copies are held out, too
        (tmp_path / f"copy{i}.png").write_bytes((tmp_path / f"{i:03d}.png").read_bytes())
    data = kind(tmp_path, size=8, holdout=0.2)
    with pytest.warns(UserWarning, match="of 16 training images are test images as well .0 the same files"):
        train = contents(data, "train")
    test = contents(data, "test")
    assert len(test) == 4  # the copies do not change the split itself
    assert not set(train) & set(test) and set(train) | set(test) == set(pixels)


def test_copied_arrays_are_not_trained_on(tmp_path):
    for i, value in enumerate(np.random.RandomState(0).randint(0, 256, (10, 3, 8, 8), dtype=np.uint8)):
        np.save(tmp_path / f"{i}.npy", value)
        np.save(tmp_path / f"copy{i}.npy", value)
    data = CelebAHQ(tmp_path, size=8, holdout=0.2)
    with pytest.warns(UserWarning, match="with the same bytes"):
        train = contents(data, "train")
    assert train and not set(train) & set(contents(data, "test"))


def test_what_only_looks_alike_is_trained_on_without_a_word(tmp_path):
    photos(tmp_path / "train", 4, ending="bmp")  # all of one size in bytes
    photos(tmp_path / "test", 4, seed=1, ending="bmp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ImageFolder(tmp_path / "train", size=8, test_root=tmp_path / "test")
        data.setup()
    assert len(data.reference("train")) == 4


def test_without_a_holdout_nothing_is_left_out(tmp_path):
    photos(tmp_path, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ImageFolder(tmp_path, size=8, holdout=0)
        data.setup()
    assert len(data.reference("train")) == len(data.reference("test")) == 4


@pytest.mark.parametrize("test_root", ["photos", "."])
def test_a_test_folder_that_holds_all_training_images_is_refused(tmp_path, test_root):
    photos(tmp_path / "photos", 4)
    with pytest.raises(ValueError, match="4 of 4 training images are test images.*nothing is left to train on"):
        ImageFolder(tmp_path / "photos", size=8, test_root=tmp_path / test_root).setup()


def _said_by(rank: int, folder: str) -> list[str]:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = rank
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = ImageFolder(folder, size=8, test_root=f"{folder}/test", skip_broken=True)
        data.setup()
    return [str(len(data.reference("train"))), *told(caught, "left out")]


def test_of_several_processes_one_speaks_and_all_have_the_same_images(tmp_path):
    photos(tmp_path, 5)
    photos(tmp_path / "test", 2, seed=1)
    (tmp_path / "broken.png").write_bytes(b"no image")
    first, second = two_processes(_said_by, str(tmp_path))
    assert first[0] == second[0] == "5"
    assert len(first) == 3 and len(second) == 1


# -- broken images ------------------------------------------------------------------------------------------------


def broken(folder: Path) -> list[str]:
    """Five files that are no images, each for a reason of its own; their names, sorted."""
    whole = (folder / "000.png").read_bytes()
    for name, content in {"cut": whole[:150], "empty": b"", "text": b"no image at all"}.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "unknown.tif")
    return ["cut.png", "empty.png", "gone.png", "text.png", "unknown.tif"]


def test_broken_images_are_left_out_where_asked(tmp_path):
    pixels = photos(tmp_path, 20)
    whole = ImageFolder(tmp_path, size=8, holdout=0)
    assert contents(whole, "train") == pixels
    names = broken(tmp_path)
    with pytest.raises(ValueError, match="skip_broken: true leaves such images out"):
        ImageFolder(tmp_path, size=8, holdout=0).setup()
    data = ImageFolder(tmp_path, size=8, holdout=0, skip_broken=True, batch_size=10)
    some = ", ".join(re.escape(str(tmp_path / name)) for name in names[:3])
    with pytest.warns(UserWarning, match=rf"^5 of 25 images cannot be read and are left out: {some}, \.\.\.$"):
        data.setup()
    assert contents(data, "train") == pixels
    assert [len(x) for x in data.train_dataloader()] == [10, 10]


@pytest.mark.parametrize("kind", [ImageFolder, LSUNChurch, CelebAHQ])
def test_which_images_are_held_out_does_not_depend_on_what_is_broken(tmp_path, kind):
    photos(tmp_path, 20)
    before = {split: contents(kind(tmp_path, size=8, holdout=0.2), split) for split in ("train", "test")}
    lost = sorted(path.name for path in tmp_path.iterdir())[::5]
    gone = {np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1).tobytes() for name in lost}
    for name in lost:
        (tmp_path / name).write_bytes(b"")
    data = kind(tmp_path, size=8, holdout=0.2, skip_broken=True)
    for split, images in before.items():
        assert contents(data, split) == [image for image in images if image not in gone]


def test_broken_arrays_are_left_out_where_asked_and_named_otherwise(tmp_path):
    for i in range(10):
        np.save(tmp_path / f"{i}.npy", np.full((3, 8, 8), 25 * i, np.uint8))
    for i in range(0, 10, 2):
        (tmp_path / f"{i}.npy").write_bytes(b"broken")
    data = CelebAHQ(tmp_path, size=8, holdout=0)
    with pytest.raises(ValueError, match="0.npy cannot be read as an array.*skip_broken: true leaves such images out"):
        contents(data, "train")
    assert len(contents(CelebAHQ(tmp_path, size=8, holdout=0, skip_broken=True), "train")) == 5


def test_a_folder_of_broken_images_alone_is_refused(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 3 images can be read: .*0.png cannot be read as an image") as caught:
        ImageFolder(tmp_path, size=8, holdout=0, skip_broken=True).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_a_training_on_a_folder_with_all_of_this(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 20)
    photos(tmp_path / "photos" / "test", 3, seed=1)
    broken(tmp_path / "photos")
    config = str(Path(__file__).parents[2] / "configs" / "vae_digits.yaml")
    fit = ["fit", "--config", config, "--data=ImageFolder", "--data.size=8", "--data.batch_size=20", "--run_dir=run"]
    fit += ["--data.root=photos", "--data.test_root=photos/test", "--trainer.callbacks=null", "--trainer.max_steps=1"]
    assert main(fit) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("ebmzoo: error: photos/empty.png cannot be read") and line.endswith("leaves such images out")
    with pytest.warns(UserWarning) as caught:
        assert main([*fit, "--data.skip_broken=true"]) == 0
    assert len(told(list(caught), "3 of 28 training images are test images as well")) == 1
    assert len(told(list(caught), "5 of 25 images cannot be read and are left out: photos/cut.png")) == 1


# -- values that use little of their type -----------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "said"), [(8, True), (10, True), (12, True), (13, False), (16, False)])
def test_few_bits_in_sixteen_are_said(tmp_path, bits, said):
    levels = np.random.RandomState(0).randint(0, 2**bits, (20, 8, 8)).astype(np.uint16)
    levels[:, 0, 0], levels[:, 0, 1] = 0, 2**bits - 1
    for i, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    data = ImageFolder(tmp_path, size=8, channels=1, holdout=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup()
        read_image_of(str(tmp_path / "0.png"), (1, 8, 8))
    top = round((2**bits - 1) / 257)
    begin = [f"{data.name} train (16 of 20 images looked at)", str(tmp_path / "0.png")]
    assert [line.split(":")[0] for line in told(caught, "grey levels")] == [
        f"{one} spans {top} of 255 grey levels" for one in begin if said
    ]


class Given(DataModule):
    def __init__(self, x: torch.Tensor):
        super().__init__()
        self.x, self.image_shape = x, tuple(x.shape[1:])

    def load(self, split: str) -> InMemory:
        return InMemory(self.x)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.arange(16, dtype=torch.uint8), True),  # masks and other labels, saved as images
        (torch.arange(18, dtype=torch.uint8), False),
        (torch.tensor([-1.0, -0.99]), True),
        (torch.tensor([-1.0, 0.0]), False),
        (torch.tensor([float("nan"), 0.0]), False),  # another fault
    ],
)
def test_any_set_of_images_is_looked_at(x, said):
    data = Given(x.view(1, 1, 1, -1).expand(40, -1, -1, -1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.reference("train")
        data.reference("train")
    assert len(told(caught, "given train (16 of 40 images looked at) spans")) == said
    assert bool(narrow(x)) == said
