"""Stacked digits against the digits themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebmzoo.data import Stacked, StackedDigits, digits


@pytest.mark.parametrize(("split", "size"), [("train", 8), ("test", 8), ("test", 16), ("test", 32)])
def test_each_channel_is_the_scan_that_the_triple_names(split, size):
    scans, labels = digits(split, size)
    data = StackedDigits(size, n_train=300, n_test=300)
    stacked = data.reference(split)
    x = stacked[torch.arange(300)]
    assert x.shape == (300, *data.image_shape) and x.dtype == torch.float32
    for channel in range(3):
        rows = stacked.triples[:, channel]
        assert torch.equal(x[:, channel], scans[rows, 0])
        assert torch.equal(stacked.labels[:, channel], labels[rows])
    assert torch.equal(stacked[299], x[299]) and torch.equal(stacked[-1], x[299])
    red, green, blue = stacked.labels[7].tolist()
    assert stacked.modes[7].item() == int(f"{red}{green}{blue}")


def test_the_triples_are_the_published_ones():
    # Written down once: a change here makes every number measured on them incomparable.
    train, test = (StackedDigits().reference(split).triples for split in ("train", "test"))
    assert (train.shape, test.shape) == ((50_000, 3), (10_000, 3))
    assert train[:3].tolist() == [[1459, 599, 71], [1275, 350, 1372], [769, 1469, 552]]
    assert test[:3].tolist() == [[189, 286, 14], [227, 270, 91], [152, 132, 197]]
    fewer = StackedDigits(n_train=10, n_test=5)
    assert torch.equal(fewer.reference("train").triples, train[:10])
    assert torch.equal(fewer.reference("test").triples, test[:5])


def test_all_modes_are_there_about_equally_often():
    stacked = StackedDigits(n_train=26_000).reference("train")
    shares = np.bincount(stacked.modes, minlength=1000) / 26_000
    assert shares.shape == (1000,) and shares.min() > 0
    # 999 / (2 * 26,000) = 0.019 nats are expected of 26,000 even draws, and the classes are nearly even.
    assert np.sum(shares * np.log(1000 * shares)) == pytest.approx(0.02, abs=0.003)
    every = torch.bincount(stacked.triples.flatten(), minlength=1500)
    assert every.min() > 0 and len(every) == 1500


def test_only_rows_are_held_and_the_seed_orders_the_batches_alone():
    a, b = StackedDigits(seed=0, batch_size=50), StackedDigits(seed=1, batch_size=50)
    held = a.reference("train")
    tensors = [value for value in vars(held).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in tensors) == 1500 * 64 * 4 + 50_000 * 56
    assert torch.equal(held.triples, b.reference("train").triples)
    first, second = (next(iter(data.train_dataloader())) for data in (a, b))
    assert first.shape == (50, 3, 8, 8) and not torch.equal(first, second)
    assert torch.equal(next(iter(a.val_dataloader())), a.reference("test")[torch.arange(50)])


def test_bytes_become_floats_and_impossible_settings_are_refused():
    grey = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    x = Stacked(grey, torch.tensor([3, 4]), torch.tensor([[0, 1, 1]]))[torch.tensor([0])]
    assert torch.equal(x.flatten(), torch.tensor([-1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="8, 16 or 32 px, not 28"):
        StackedDigits(28)
    for settings in ({"n_train": 0}, {"n_test": 0}):
        with pytest.raises(ValueError, match="n_train >= 1"):
            StackedDigits(**settings)
