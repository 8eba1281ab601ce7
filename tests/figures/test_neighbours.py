import pytest
import torch

from ebmzoo.data.digits import digits
from ebmzoo.figures.neighbours import Neighbours, centre_crop, nearest_neighbours
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.metrics import load_digit_classifier

from ..callbacks.fakes import Images, Tiny, measured


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
    monkeypatch.setattr("ebmzoo.figures.neighbours._VALUES", 4 * 192)  # four images at once
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


class Copies(Tiny):
    """Training images with another border."""

    def sample(self, n, *, steps=None, noise=None, watch=None):
        x = Images().reference("train")[torch.arange(n) % 40].clone()
        x[..., 0, :] = 1 - x[..., 0, :].abs()
        return x


def test_a_centre_crop_finds_copies_with_another_background(tmp_path):
    whole, _, _ = measured(tmp_path / "whole", Copies(), figures=[Neighbours()], extractor=None)
    centre, _, held = measured(tmp_path / "centre", Copies(), figures=[Neighbours(crop=6)], extractor=None)
    assert whole["nn_rmse_mean"] > 0.1 and centre["nn_rmse_mean"] < 1e-6 < centre["nn_rmse_test_mean"]
    protocol = next(e["protocol"] for e in held["results"] if e["name"] == "nn_rmse_mean")
    assert protocol["settings"]["crop"] == 6
    assert (tmp_path / "centre" / "neighbours.png").is_file()
    _, skipped, _ = measured(tmp_path / "large", Copies(), figures=[Neighbours(crop=9)])
    assert skipped == ["nearest neighbours: a centre crop of 9 px does not fit images of 8 x 8 px"]


def test_copies_are_near_in_features_too(tmp_path):
    found, _, _ = measured(tmp_path, Copies(), figures=[Neighbours()], batch_size=40)
    network = load_digit_classifier().double()
    x = Images().reference("train")
    copies, train = (network.features(to_uint8(y)) for y in (Copies().sample(40), x))
    expected = torch.cdist(copies, train, compute_mode="donot_use_mm_for_euclid_dist").amin(1) / 64**0.5
    assert found["nn_feature_mean"] == pytest.approx(expected.mean().item(), rel=1e-6)
