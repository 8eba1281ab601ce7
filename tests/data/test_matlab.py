"""SVHN: MATLAB files written by scipy, read by the package's own reader, damaged and whole."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io

from ebmzoo.data import SVHN
from ebmzoo.images import to_uint8

COUNTS = {"train": 5, "test": 3, "extra": 4}


def svhn(root: Path, compressed: bool = True, order: str = "Xy") -> dict[str, np.ndarray]:
    """Images as they look, (n, 3, 32, 32); the files hold height first and the image last."""
    root.mkdir(parents=True, exist_ok=True)
    images = {}
    for i, (part, n) in enumerate(COUNTS.items()):
        x = np.random.RandomState(i).randint(0, 256, (32, 32, 3, n), dtype=np.uint8)
        held = {"X": x, "y": np.arange(1, n + 1, dtype=np.uint8)[:, None]}
        content = {name: held[name] for name in order}
        io.savemat(root / f"{part}_32x32.mat", content, do_compression=compressed)
        images[part] = np.stack([x[..., k].transpose(2, 0, 1) for k in range(n)])
    return images


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["Xy", "yX"])
def test_svhn_reads_the_published_files(tmp_path, compressed, order):
    images = svhn(tmp_path, compressed, order)
    data = SVHN(tmp_path, batch_size=2)
    data.prepare_data()
    data.setup()
    assert np.array_equal(to_uint8(data.reference("train")[torch.arange(5)]).numpy(), images["train"])
    assert np.array_equal(to_uint8(torch.cat(list(data.val_dataloader()))).numpy(), images["test"])
    assert [x.shape for x in data.train_dataloader()] == [(2, 3, 32, 32)] * 2
    assert (data.name, data.image_shape, data.reference("test").data.dtype) == ("svhn", (3, 32, 32), torch.uint8)


def test_the_extra_images_are_trained_on_where_asked_for(tmp_path):
    images = svhn(tmp_path)
    both = np.concatenate([images["train"], images["extra"]])
    data = SVHN(tmp_path, extra=True)
    assert np.array_equal(to_uint8(data.reference("train")[torch.arange(9)]).numpy(), both)
    assert len(data.reference("test")) == 3
    assert data.reference_name() != SVHN(tmp_path).reference_name()
    (tmp_path / "extra_32x32.mat").unlink()
    SVHN(tmp_path).setup()
    with pytest.raises(FileNotFoundError, match="SVHN not found.*no .*extra_32x32.mat.*download: true") as caught:
        SVHN(tmp_path, extra=True).setup("fit")
    assert "\n" not in str(caught.value)


def test_only_what_is_missing_is_downloaded(tmp_path, monkeypatch):
    asked = []

    def fetch(root: str, split: str, download: bool) -> None:
        asked.append(split)
        raise RuntimeError("File not found or\n corrupted.")

    monkeypatch.setattr("torchvision.datasets.SVHN", fetch)
    SVHN(tmp_path).prepare_data()
    assert asked == []
    svhn(tmp_path)
    SVHN(tmp_path, extra=True, download=True).prepare_data()
    assert asked == []
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match="or corrupted.*housenumbers/test_32x32.mat") as caught:
        SVHN(tmp_path, download=True).prepare_data()
    assert asked == ["test"] and "\n" not in str(caught.value)


def test_other_files_are_named(tmp_path):
    svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    whole = path.read_bytes()
    x = np.zeros((32, 32, 3, 2), np.uint8)
    cases: list[tuple[bytes | dict, str]] = [
        (b"", "does not begin as one"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "does not begin as one"),
        (whole[:-100], "does not end|ends after|decompressing"),
        (whole[:200], "requires a buffer|decompressing|ends after"),
        ({"y": x}, "holds no array X"),
        ({"X": x[..., 0]}, "X should be uint8"),
        ({"X": x[:30]}, r"X should be uint8 \(32, 32, 3, n\), its size is \(30, 32, 3, 2\)"),
        ({"X": x.astype(np.float64)}, "X should be uint8"),
        ({"X": x[..., :0]}, "X has 0 bytes"),
    ]
    for content, message in cases:
        if isinstance(content, dict):
            io.savemat(path, content, do_compression=True)
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            SVHN(tmp_path).setup("test")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_damage_is_found_or_harmless(tmp_path, compressed):
    # scipy's own reader crashes the process on some of these.
    images = svhn(tmp_path, compressed)["test"]
    path = tmp_path / "test_32x32.mat"
    whole = path.read_bytes()
    found = 0
    for seed in range(300):
        dice = random.Random(seed)
        damaged = bytearray(whole)
        reach = len(damaged) if compressed else 192  # from there on pixels, which nothing checks
        damaged[dice.randrange(reach)] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            read = SVHN(tmp_path).reference("test").data
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            found += 1
        else:
            assert np.array_equal(read.numpy(), images)
    assert found > 100 if compressed else found > 20
