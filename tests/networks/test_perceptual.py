"""Perceptual distances: LPIPS against torchmetrics' own on the same weights, and the errors of missing files."""

import pytest
import torch
import torchmetrics.functional.image.lpips as reference
from torchvision.models import vgg16

from ebmzoo.networks import LPIPS, RandomFeatures


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files as torchvision and LPIPS publish them, with VGG's features alone and random weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    with torch.device("meta"):
        layout = vgg16(weights=None).features.state_dict()
    weights = {f"features.{name}": torch.randn(v.shape) * (0.5 / v[0].numel() ** 0.5) for name, v in layout.items()}
    torch.save(weights, folder / "vgg.pth")
    heads = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate((64, 128, 256, 512, 512))}
    torch.save(heads, folder / "heads.pth")
    return folder / "vgg.pth", folder / "heads.pth"


@pytest.fixture(scope="module")
def net(files):
    """torchmetrics' own with those weights."""
    weights, heads = files
    with torch.device("meta"):  # values that are drawn at random take seconds
        net = reference._LPIPS(pretrained=False, net="vgg", pnet_rand=True)
    net.to_empty(device="cpu").scaling_layer = reference.ScalingLayer()
    stages = {name.split(".", 1)[1]: name for name in net.net.state_dict()}  # "7.weight": "slice2.7.weight"
    loaded = torch.load(weights, weights_only=True)
    net.net.load_state_dict({stages[name.removeprefix("features.")]: value for name, value in loaded.items()})
    net.load_state_dict(torch.load(heads, weights_only=True), strict=False)
    return net


@pytest.mark.parametrize("channels", [3, 1])
def test_lpips_equals_torchmetrics(files, net, channels):
    weights, heads = files
    x, y = torch.rand(2, 3, channels, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = net(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).flatten()
    alone = LPIPS((channels, 16, 16), weights, heads, weight=2.0, pixels=0.0)
    torch.testing.assert_close(alone(x, y), 2 * expected, rtol=1e-5, atol=1e-6)
    both = LPIPS((channels, 16, 16), weights, heads, weight=2.0, pixels=0.5)
    squared = (x - y).square().sum((1, 2, 3))
    torch.testing.assert_close(both(x, y), 2 * expected + 0.5 * squared, rtol=1e-5, atol=1e-6)
    assert not both.state_dict() and not list(both.parameters())  # no checkpoint and no optimiser holds it


def test_the_heads_that_torchmetrics_ships_are_found(files):
    distance = LPIPS((3, 16, 16), files[0])
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert (distance(x, -x) > (2 * x).square().sum((1, 2, 3))).all()
    torch.testing.assert_close(distance(x, x), torch.zeros(2))


def test_missing_and_wrong_files_are_one_clear_line(files, tmp_path):
    x = torch.zeros(1, 3, 16, 16)
    with pytest.raises(FileNotFoundError, match=r"VGG-16's weights: there is no file .*nowhere.pth; torchvision"):
        LPIPS((3, 16, 16), tmp_path / "nowhere.pth")(x, x)
    with pytest.raises(FileNotFoundError, match="channel weights"):
        LPIPS((3, 16, 16), files[0], tmp_path / "nowhere.pth")(x, x)
    with pytest.raises(ValueError, match=r"has no 'features.0.weight'"):
        LPIPS((3, 16, 16), files[1], files[1])(x, x)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read as VGG-16's weights"):
        LPIPS((3, 16, 16), tmp_path / "text.pth")(x, x)
    with pytest.raises(ValueError, match="multiples of 16"):
        LPIPS((1, 8, 8))


def test_random_features_follow_from_their_seed_and_see_more_than_pixels():
    torch.manual_seed(0)
    one = RandomFeatures((1, 8, 8), width=16, weight=1.0, pixels=0.0)
    torch.manual_seed(1)
    again, other = RandomFeatures((1, 8, 8), width=16, pixels=0.0), RandomFeatures((1, 8, 8), 16, seed=1, pixels=0.0)
    x, y = torch.rand(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert torch.equal(one(x, y), again(x, y)) and not torch.equal(one(x, y), other(x, y))
    assert (one(x, y) > 0).all() and one(x, x).abs().max() == 0 and not one.state_dict()
    squared = (x - y).square().sum((1, 2, 3))
    torch.testing.assert_close(RandomFeatures((1, 8, 8), 16)(x, y), one(x, y) + squared)
    # A stroke moved by one pixel is as far in pixels as one moved by four, but nearer in features.
    stroke = -torch.ones(1, 1, 8, 8)
    stroke[..., 2] = 1
    near, far = stroke.roll(1, 3), stroke.roll(4, 3)
    assert torch.equal((stroke - near).square().sum(), (stroke - far).square().sum())
    assert one(stroke, near) < one(stroke, far)
