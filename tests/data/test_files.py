"""Files of strangers: read as arrays alone, and named where they are broken."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ebmzoo.data import CIFAR10

from .published import cifar


class Attack:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_cannot_run_code(tmp_path):
    cifar(tmp_path / "root")
    path, mark = tmp_path / "root" / "test_batch", tmp_path / "was-run"
    for payload in (Attack(mark), {"data": Attack(mark)}):
        path.write_bytes(pickle.dumps(payload))
        with pytest.raises(ValueError, match="not a pickled .*mkdir, which is refused") as caught:
            CIFAR10(tmp_path / "root").setup("test")
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_broken_batches_are_named(tmp_path):
    data = cifar(tmp_path / "root")
    path = tmp_path / "root" / "test_batch"
    whole = path.read_bytes()
    cases = [
        (b"", "not a pickled batch"),
        (b"not a pickle", "not a pickled batch"),
        (whole[:500], "not a pickled batch"),
        (pickle.dumps({"labels": []}), "not a pickled batch"),
        (pickle.dumps([1]), "not a pickled batch"),
        (pickle.dumps({"data": [1, 2]}), "holds list"),
        (pickle.dumps({"data": data[:2].reshape(2, -1)[:, :100]}), r"holds uint8 \(2, 100\)"),
        (pickle.dumps({"data": np.zeros((2, 3072))}), "holds float64"),
        (pickle.dumps({"data": np.uint8(1)}), "should hold uint8"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            CIFAR10(tmp_path / "root").setup("test")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
