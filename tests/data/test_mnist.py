"""MNIST and StackedMNIST: idx files written here byte by byte, raw and gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebmzoo.data import MNIST, StackedMNIST, mnist
from ebmzoo.images import to_uint8

STEMS = {"train": "train", "test": "t10k"}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(root: Path, packed: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    root.mkdir(parents=True, exist_ok=True)
    sets = {}
    for seed, (split, n) in enumerate({"train": 30, "test": 20}.items()):
        x = np.random.RandomState(seed).randint(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        sets[split] = x, labels
        for name, array in (("images-idx3", x), ("labels-idx1", labels)):
            content, ending = idx(array), ""
            if packed:
                content, ending = gzip.compress(content), ".gz"
            (root / f"{STEMS[split]}-{name}-ubyte{ending}").write_bytes(content)
    return sets


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["MNIST/raw", "."])
def test_mnist_reads_the_published_files(tmp_path, place, packed):
    sets = write(tmp_path / place, packed)
    data = MNIST(tmp_path, batch_size=8)
    data.prepare_data()
    data.setup()
    for split, n in (("train", 30), ("test", 20)):
        assert np.array_equal(to_uint8(data.reference(split)[torch.arange(n)])[:, 0].numpy(), sets[split][0])
        assert np.array_equal(mnist(tmp_path, split)[1].numpy(), sets[split][1])
    assert [x.shape for x in data.train_dataloader()] == [(8, 1, 28, 28)] * 3
    assert (data.name, data.image_shape, data.reference_name("val")) == ("mnist-28", (1, 28, 28), "mnist-28 test")


def test_other_sizes_have_a_border_of_two_pixels(tmp_path):
    scans = write(tmp_path)["test"][0]
    framed = np.pad(scans, ((0, 0), (2, 2), (2, 2)))
    assert np.array_equal(mnist(tmp_path, "test", 32)[0][:, 0].numpy(), framed)
    for size in (8, 16):
        x = mnist(tmp_path, "test", size)[0]
        assert MNIST(tmp_path, size).image_shape == x.shape[1:] == (1, size, size)
        for ours, image in zip(x[:, 0].numpy(), framed, strict=True):
            pillow = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
            assert np.abs(ours - np.asarray(pillow)).max() <= 1
    with pytest.raises(ValueError, match="8, 16, 28 or 32 px, not 64"):
        MNIST(tmp_path, size=64)
    with pytest.raises(ValueError, match="8, 16, 28 or 32 px, not 30"):
        mnist(tmp_path, "test", 30)
    with pytest.raises(ValueError, match="no split 'val' of MNIST"):
        mnist(tmp_path, "val")


@pytest.mark.parametrize("kind", [MNIST, StackedMNIST])
def test_missing_files_and_downloads(tmp_path, monkeypatch, kind):
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.MNIST", fetch)
    kind(tmp_path).prepare_data()
    assert asked == []
    write(tmp_path)
    kind(tmp_path, download=True).prepare_data()
    assert asked == []
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="MNIST could not be downloaded .*idx3-ubyte.gz.*Fetch http"):
        kind(tmp_path, download=True).prepare_data()
    assert asked == [(str(tmp_path), True)]
    with pytest.raises(FileNotFoundError, match="MNIST not found.*t10k-labels-idx1-ubyte.*download: true") as caught:
        kind(tmp_path).setup("test")
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path):
    x, labels = write(tmp_path)["test"]
    scans, numbers = (tmp_path / f"t10k-{name}-ubyte" for name in ("images-idx3", "labels-idx1"))
    whole = {path: path.read_bytes() for path in (scans, numbers)}
    cases = [
        (scans, b"", "not an idx file"),
        (scans, idx(labels), "not an idx file of bytes in 3 dimensions"),
        (scans, b"\0\0\x0d\x03" + whole[scans][4:], "not an idx file"),
        (scans, whole[scans][:10], "not an idx file"),
        (scans, whole[scans][:-1], r"says \(20, 28, 28\) and holds 15679 bytes"),
        (scans, whole[scans] + b"\0", "holds 15681 bytes"),
        (scans, idx(x[:, :27]), r"items of size \(28, 28\)"),
        (scans, idx(x[:0]), r"says \(0, 28, 28\)"),
        (numbers, idx(labels[:7]), "label 0..9 for each of the 20 images .*: it holds 7"),
        (numbers, idx(labels + 1), "the largest of them 10"),
    ]
    for path, content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            MNIST(tmp_path).setup("test")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(whole[path])
    scans.unlink()
    packed = gzip.compress(whole[scans])
    for content in (b"no gzip", packed[:200], packed[:-8] + b"\0" * 8, packed[:50] + b"xxxx" + packed[54:]):
        scans.with_name(scans.name + ".gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz cannot be read") as caught:
            MNIST(tmp_path).setup("test")
        assert "\n" not in str(caught.value)


def test_stacked_mnist_is_three_images_with_a_border(tmp_path):
    sets = write(tmp_path)
    data = StackedMNIST(tmp_path, n_train=500, n_test=40, batch_size=20)
    data.setup()
    assert (data.name, data.image_shape) == ("stacked-mnist-32", (3, 32, 32))
    for split, n in (("train", 500), ("test", 40)):
        scans, labels = sets[split]
        stacked = data.reference(split)
        assert len(stacked) == n and stacked.images.dtype == torch.uint8
        framed = np.pad(scans, ((0, 0), (2, 2), (2, 2)))
        rows = stacked.triples.numpy()
        assert np.array_equal(to_uint8(stacked[torch.arange(n)]).numpy(), framed[rows])
        assert np.array_equal(stacked.labels.numpy(), labels[rows])
        assert len(np.unique(rows)) == len(scans) if split == "train" else len(np.unique(rows)) > 18
    assert StackedMNIST(tmp_path).counts == {"train": 120_000, "test": 10_000}
