"""CIFAR-10 and -100, STL-10 and ImageNet 32: files of the published formats, written here, read by the loaders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebmzoo.data import CIFAR10, CIFAR100, STL10, ImageNet32
from ebmzoo.images import to_uint8

from .published import cifar, pixels, python2_batch


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "."])
def test_cifar10_reads_the_published_pickles(tmp_path, place):
    data = cifar(tmp_path / "root" / place)
    module = CIFAR10(tmp_path / "root", batch_size=4, flip=0.5)
    module.prepare_data()
    module.setup("fit")
    assert np.array_equal(to_uint8(module.reference("train")[torch.arange(15)]).numpy(), data[:15])
    assert np.array_equal(to_uint8(torch.cat(list(module.test_dataloader()))).numpy(), data[15:])
    assert len(module.reference("val")) == 3 and module.reference_name("val") == "cifar10 test"
    for x in module.train_dataloader():
        assert x.shape == (4, 3, 32, 32) and x.dtype == torch.float32
        known = {row.tobytes() for row in data[:15]} | {row[..., ::-1].tobytes() for row in data[:15]}
        assert {row.tobytes() for row in to_uint8(x).numpy()} <= known


def test_cifar10_that_is_missing_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        CIFAR10(tmp_path / "nowhere").setup("fit")
    line = str(caught.value)
    assert "\n" not in line and "CIFAR-10 not found" in line and "download: true" in line
    assert str(tmp_path / "nowhere" / "cifar-10-batches-py" / "data_batch_1") in line
    cifar(tmp_path / "partly")
    (tmp_path / "partly" / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_4"):
        CIFAR10(tmp_path / "partly").setup("fit")
    CIFAR10(tmp_path / "partly").setup("test")  # the test split is complete


@pytest.mark.parametrize("place", ["cifar-100-python", "."])
def test_cifar100_reads_the_published_pickles(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    data = pixels(7, 3072, seed=4)
    (folder / "train").write_bytes(python2_batch(data[:5]))
    (folder / "test").write_bytes(python2_batch(data[5:]))
    module = CIFAR100(tmp_path, batch_size=2)
    module.prepare_data()
    module.setup()
    images = data.reshape(-1, 3, 32, 32)
    assert np.array_equal(to_uint8(module.reference("train")[torch.arange(5)]).numpy(), images[:5])
    assert np.array_equal(to_uint8(torch.cat(list(module.val_dataloader()))).numpy(), images[5:])
    assert (module.name, module.image_shape) == ("cifar100", (3, 32, 32))


def test_a_folder_in_the_place_of_a_batch_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train is not a pickled batch of images: .*directory") as caught:
        CIFAR100(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


def test_download_only_when_asked_and_needed(tmp_path, monkeypatch):
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fetch)
    monkeypatch.setattr("torchvision.datasets.CIFAR100", fetch)
    monkeypatch.setattr("torchvision.datasets.STL10", fetch)
    CIFAR10(tmp_path).prepare_data()
    CIFAR100(tmp_path).prepare_data()
    STL10(tmp_path).prepare_data()
    assert asked == []
    addresses = {CIFAR10: "cifar-10-python.tar.gz", CIFAR100: "cifar-100-python.tar.gz"}
    addresses[STL10] = "stl10_binary.tar.gz"
    for kind, address in addresses.items():
        with pytest.raises(FileNotFoundError, match=f"no network.*{address}") as caught:
            kind(tmp_path, download=True).prepare_data()
        assert "\n" not in str(caught.value)
    assert asked == [(str(tmp_path), True)] * 3
    cifar(tmp_path / "cifar-10-batches-py")
    CIFAR10(tmp_path, download=True).prepare_data()
    assert len(asked) == 3


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("folders", [("", ""), ("Imagenet32_train", "Imagenet32_val")])
def test_imagenet32_reads_the_published_pickles(tmp_path, folders, protocol):
    data = pixels(23, 3072)
    train, val = (tmp_path / folder for folder in folders)
    train.mkdir(exist_ok=True)
    val.mkdir(exist_ok=True)
    for k in range(10):
        rows = data[2 * k : 2 * k + 2]
        batch = {"data": rows, "labels": [1, 2], "mean": rows.mean(0), "seen": np.float64(1)}
        (train / f"train_data_batch_{k + 1}").write_bytes(pickle.dumps(batch, protocol))
    (val / "val_data").write_bytes(pickle.dumps({"data": data[20:], "labels": [0] * 3}, protocol))
    module = ImageNet32(tmp_path, batch_size=3)
    module.setup()
    images = data.reshape(-1, 3, 32, 32)
    assert np.array_equal(to_uint8(module.reference("train")[torch.arange(20)]).numpy(), images[:20])
    assert np.array_equal(to_uint8(next(iter(module.val_dataloader()))).numpy(), images[20:])
    (train / "train_data_batch_7").unlink()
    with pytest.raises(FileNotFoundError, match="train_data_batch_7"):
        ImageNet32(tmp_path).setup("fit")


def stl(root: Path) -> dict[str, np.ndarray]:
    """Images as they look; the file holds each channel column by column."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    sets = {"train": pixels(3, 3, 96, 96, seed=1), "unlabeled": pixels(5, 3, 96, 96, seed=2)}
    sets["test"] = pixels(2, 3, 96, 96, seed=3)
    for name, images in sets.items():
        (folder / f"{name}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
    return sets


def test_stl10_reads_the_published_binaries(tmp_path, monkeypatch):
    sets = stl(tmp_path)
    monkeypatch.setattr(STL10, "_CHUNK", 2)
    full = STL10(tmp_path, size=96)
    both = np.concatenate([sets["train"], sets["unlabeled"]])
    assert np.array_equal(to_uint8(full.reference("train")[torch.arange(8)]).numpy(), both)
    assert np.array_equal(to_uint8(full.reference("test")[torch.arange(2)]).numpy(), sets["test"])
    labelled = STL10(tmp_path, size=96, unlabelled=False)
    assert len(labelled.reference("train")) == 3
    assert labelled.reference_name() != full.reference_name()


def test_stl10_is_resized_with_antialiasing(tmp_path):
    sets = stl(tmp_path)
    module = STL10(tmp_path)
    module.setup("test")
    assert module.image_shape == (3, 32, 32) and module.name == "stl10-32"
    for ours, image in zip(module.reference("test").data, sets["test"], strict=True):
        # Pillow's bilinear filter is antialiased too; the two round differently, by one grey level at most.
        pillow = Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow)).max() <= 1


def test_stl10_errors(tmp_path):
    stl(tmp_path)
    path = tmp_path / "stl10_binary" / "test_X.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="test_X.bin is not a whole number of 96 x 96"):
        STL10(tmp_path).setup("test")
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").unlink()
    with pytest.raises(FileNotFoundError, match="unlabeled_X.bin"):
        STL10(tmp_path).setup("fit")
    with pytest.raises(ValueError, match="up to 96 px"):
        STL10(tmp_path, size=128)
