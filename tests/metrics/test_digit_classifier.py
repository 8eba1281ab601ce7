import hashlib
import math

import pytest
import torch
from torch.nn import functional

from ebmzoo.data.digits import digits
from ebmzoo.data.stacked import StackedDigits, StackedMNIST
from ebmzoo.images import to_uint8
from ebmzoo.metrics.digit_classifier import (
    WEIGHTS,
    DigitClassifier,
    accuracy,
    load_digit_classifier,
    main,
    report,
    sha256_of,
    stacked_report,
    train,
)
from ebmzoo.metrics.modes import share_divergence

SHIPPED = "5b62ea79bfee81c3edf7bf882a725605433beabc08a5121941989311545a0fa5"


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_shipped_weights_know_the_test_digits(size):
    assert accuracy(load_digit_classifier(), *digits("test", size)) >= 0.97


def test_the_shipped_weights_are_calibrated():
    x, labels = digits("test")
    logits = load_digit_classifier()(x)
    top, label = logits.softmax(1).max(1)
    assert abs(top.mean() - (label == labels).float().mean()) < 0.02
    assert functional.cross_entropy(logits, labels) < 0.1


def test_the_shipped_file_is_the_one_that_numbers_name():
    assert WEIGHTS.stat().st_size <= 400_000
    assert sha256_of() == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == SHIPPED


def test_larger_images_are_averaged_by_area():
    x, _ = digits("test")
    network = load_digit_classifier().double()
    large = x.double().repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(network.features(large), network.features(x), rtol=1e-10, atol=1e-12)


def test_colour_is_averaged_and_bytes_are_scaled():
    x, _ = digits("test")
    network = load_digit_classifier()
    features = network.features(x[:50])
    torch.testing.assert_close(network.features(x[:50].expand(-1, 3, -1, -1)), features)
    offset = torch.tensor([-0.3, 0.1, 0.2]).view(3, 1, 1)
    torch.testing.assert_close(network.features(x[:50] + offset), features, rtol=1e-4, atol=1e-5)
    levels = to_uint8(x[:50])
    torch.testing.assert_close(network.features(levels), network.features(levels.float() / 127.5 - 1))


@pytest.mark.parametrize("shape", [(2, 1, 7, 8), (2, 2, 8, 8), (2, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="8 px or more"):
        load_digit_classifier()(torch.zeros(shape))


def test_training_is_a_function_of_the_seed_and_leaves_the_global_generator_alone():
    x, labels = digits("train")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (train(x[:250], labels[:250], seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.to_logits.weight, other.to_logits.weight)
    assert not first.training and not any(p.requires_grad for p in first.parameters())


@pytest.mark.thorough
def test_the_command_writes_what_it_says(tmp_path, capsys):
    main(["--out", str(tmp_path / "w.safetensors"), "--seed", "3", "--epochs", "5"])
    network = load_digit_classifier(tmp_path / "w.safetensors")
    printed = capsys.readouterr().out
    assert sha256_of(tmp_path / "w.safetensors") in printed
    right = accuracy(network, *digits("test"))
    assert f"{right:.4f} at 8 px" in printed
    assert right > 0.6  # five of the hundred epochs; guessing gives 0.1


def test_missing_weights_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors.*python -m"):
        load_digit_classifier(tmp_path / "none.safetensors")


def test_report_on_real_digits_and_on_grey():
    x, labels = digits("test")
    found = report(x, batch_size=100)
    shares = torch.bincount(labels, minlength=10) / len(labels)
    for k in range(10):
        assert found[f"class_share_{k}"] == pytest.approx(shares[k].item(), abs=0.01)
    assert found["class_share_min"] == min(found[f"class_share_{k}"] for k in range(10))
    top = load_digit_classifier().double()(x).softmax(1).amax(1)
    assert found["sure_share"] == pytest.approx((top > 0.9).double().mean().item())
    assert found["sure_share"] > 0.9
    assert report(to_uint8(x))["sure_share"] == pytest.approx(found["sure_share"], abs=0.01)
    with pytest.raises(ValueError, match="no samples"):
        report(x[:0])


def test_dropout_acts_in_training_only():
    x, _ = digits("test")
    network = DigitClassifier().eval()
    assert torch.equal(network(x[:5]), network(x[:5]))
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(x[:5]), network(x[:5]))


@pytest.mark.thorough
def test_stacked_modes_of_real_stacks_and_of_one_blurred_channel():
    stacks = StackedDigits(n_train=1000).load("train")
    x = stacks.batch(torch.arange(1000))
    found = stacked_report(x)
    truth = torch.bincount(stacks.modes, minlength=1000)
    assert found["stacked_modes"] == pytest.approx(int((truth > 0).sum()), abs=10)  # a few scans are misread
    assert found["stacked_modes_sure"] <= found["stacked_modes"] and found["stacked_sure_share"] > 0.95
    assert found["stacked_kl"] == pytest.approx(share_divergence(truth), abs=0.02)
    x[:, 1] = x[:1, 1]  # one digit in the middle: at most 100 modes
    assert stacked_report(x)["stacked_modes"] <= 100
    assert stacked_report(x)["stacked_kl"] > math.log(10)
    with pytest.raises(ValueError, match="three channels"):
        stacked_report(x[:, :1])


def write_mnist(root, split, n):
    """The digits enlarged to 28 px, as MNIST's idx files."""
    x, labels = digits("train" if split == "train" else "test")
    large = to_uint8(functional.interpolate(x[:n], size=(28, 28), mode="bilinear"))
    for kind, dims, content in (("images-idx3", [n, 28, 28], large), ("labels-idx1", [n], labels[:n].to(torch.uint8))):
        head = bytes([0, 0, 8, len(dims)]) + b"".join(size.to_bytes(4, "big") for size in dims)
        (root / f"{split}-{kind}-ubyte").write_bytes(head + content.numpy().tobytes())


@pytest.mark.thorough
def test_the_classifier_of_stacked_mnist(tmp_path, capsys):
    write_mnist(tmp_path, "train", 1000)
    write_mnist(tmp_path, "t10k", 200)
    out = tmp_path / "mnist.safetensors"
    main(["--mnist", str(tmp_path), "--out", str(out), "--epochs", "6"])
    network = load_digit_classifier(out)
    assert network.side == 16 and sha256_of(out) in capsys.readouterr().out
    stacks = StackedMNIST(tmp_path, n_train=300, n_test=10).reference("train")
    found = stacked_report(stacks[torch.arange(300)], network=network)
    truth = len(stacks.modes.unique())
    assert 0.5 * truth < found["stacked_modes"] < 1.1 * truth  # six short epochs
    with pytest.raises(ValueError, match="16 px or more"):
        network(torch.zeros(1, 1, 8, 8))


def test_the_command_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--mnist", str(tmp_path / "nowhere"), "--out", str(tmp_path / "w.safetensors")])
    assert stop.value.code == 2 and "MNIST" in capsys.readouterr().err
    (tmp_path / "other.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"other\.safetensors does not hold the weights of a digit classifier"):
        load_digit_classifier(tmp_path / "other.safetensors")
