"""The digits against scikit-learn's own arrays and scipy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from ebmzoo.data import Digits, digits


def test_the_two_splits_are_all_of_the_scans_once():
    scans = load_digits()
    x = torch.cat([digits("train")[0], digits("test")[0]])
    labels = torch.cat([digits("train")[1], digits("test")[1]])
    assert [len(digits(split)[0]) for split in ("train", "test")] == [1500, 297]
    rows = np.random.RandomState(0).permutation(1797)
    assert sorted(rows) == list(range(1797))
    assert np.array_equal((x[:, 0].numpy() + 1) * 8, scans.images[rows])
    assert np.array_equal(labels.numpy(), scans.target[rows])


def test_the_split_is_the_published_one():
    # Written down once: a change here makes every number measured on the digits incomparable.
    assert digits("train")[1][:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert digits("test")[1][-10:].tolist() == [1, 4, 8, 4, 5, 3, 3, 7, 7, 8]
    assert torch.bincount(digits("test")[1]).min() >= 20


def test_the_grey_levels_are_the_seventeen_of_the_scans():
    x = Digits().reference("train").data
    assert x.dtype == torch.float32 and x.shape == (1500, 1, 8, 8)
    assert torch.equal(x.unique(), torch.arange(17) / 8 - 1)


@pytest.mark.parametrize("size", [16, 32])
def test_larger_sizes_are_bilinear(size):
    small, labels = digits("test")
    large, same = digits("test", size)
    assert torch.equal(labels, same)
    for scan, image in zip(small[:20, 0].double().numpy(), large[:20, 0].numpy(), strict=True):
        assert np.allclose(image, zoom(scan, size / 8, order=1, mode="nearest", grid_mode=True), atol=1e-6)
    assert Digits(size=size).image_shape == (1, size, size)


def test_names_loaders_and_errors():
    data = Digits(batch_size=64)
    assert (data.name, data.kind, data.image_shape) == ("digits-8", "images", (1, 8, 8))
    assert data.reference_name() == "digits-8 train"
    assert data.reference_name("val") == data.reference_name("test") == "digits-8 test"
    assert [x.shape for x in data.train_dataloader()] == [(64, 1, 8, 8)] * 23
    assert torch.equal(torch.cat(list(data.val_dataloader())), digits("test")[0])
    assert torch.equal(data.reference("test")[296], digits("test")[0][296])
    with pytest.raises(IndexError):
        data.reference("test")[297]
    with pytest.raises(ValueError, match="8, 16 or 32 px, not 28"):
        Digits(size=28)
    with pytest.raises(ValueError, match="no split 'valid'"):
        data.reference("valid")
    with pytest.raises(ValueError, match="batch_size >= 1"):
        Digits(batch_size=0)
