import pytest
import torch

from ebmzoo.data.digits import digits
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.metrics.neighbours import centre_crop, nearest_neighbours


def test_against_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(13, 1, 4, 4, generator=generator)
    train = torch.randn(29, 1, 4, 4, generator=generator)
    found = nearest_neighbours(samples, train, chunk=5)
    for i, sample in enumerate(samples):
        distances = [(sample - image).double().square().mean().sqrt().item() for image in train]
        assert found.distance[i].item() == pytest.approx(min(distances), rel=1e-6)
        assert found.row[i] == min(range(29), key=distances.__getitem__)


def test_copies_are_found_and_held_out_digits_are_not():
    train, test = digits("train")[0], digits("test")[0]
    copies = nearest_neighbours(train[100:110], train)
    assert copies.row.tolist() == list(range(100, 110))
    assert copies.distance.max() < 1e-6
    assert nearest_neighbours(test, train).distance.min() > 0.05


def test_bytes_become_floats():
    x = digits("test")[0]
    found = nearest_neighbours(to_uint8(x[:5]), to_uint8(x[5:]))
    expected = nearest_neighbours(from_uint8(to_uint8(x[:5])), from_uint8(to_uint8(x[5:])))
    assert torch.equal(found.distance, expected.distance)


def test_bad_shapes():
    with pytest.raises(ValueError, match="one shape"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="0 samples and 2 training examples"):
        nearest_neighbours(torch.zeros(0, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="2 samples and 0 training examples"):
        nearest_neighbours(torch.zeros(2, 3), iter([]))


def test_training_images_may_come_batch_by_batch(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    samples, train = (torch.randint(256, (n, 3, 8, 8), generator=generator).byte() for n in (7, 50))
    whole = nearest_neighbours(samples, train)
    assert whole.row.unique().numel() > 4
    monkeypatch.setattr("ebmzoo.metrics.neighbours._VALUES", 4 * 192)  # four images at once
    found = nearest_neighbours(samples, iter(train.split(11)))
    assert torch.equal(found.row, whole.row) and torch.allclose(found.distance, whole.distance, rtol=1e-12)


def test_a_centre_crop_looks_at_the_middle_alone():
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(20, 3, 9, 9, generator=generator)
    copies = train[[4, 7]].clone()
    copies[..., 0, :] += 5  # another background
    found = nearest_neighbours(centre_crop(copies, 5), centre_crop(train, 5))
    assert found.row.tolist() == [4, 7] and found.distance.max() < 1e-6
    assert torch.equal(centre_crop(train, 9), train)
    with pytest.raises(ValueError, match="a centre crop of 10 px does not fit images of 9 x 9 px"):
        centre_crop(train, 10)
