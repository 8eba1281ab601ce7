import pytest
import torch

from ebmzoo.data.digits import digits
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.metrics.neighbours import nearest_neighbours


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
    with pytest.raises(ValueError, match="one shape"):
        nearest_neighbours(torch.zeros(0, 3), torch.zeros(2, 3))
