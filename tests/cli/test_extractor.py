"""``ebmzoo extractor``: from labelled images to a file that Evaluate takes, and what can be wrong with them."""

import numpy as np
import pytest
from PIL import Image

from ebmzoo.callbacks import Evaluate
from ebmzoo.data import CIFAR10, Digits, ImageFolder
from ebmzoo.data.digits import digits
from ebmzoo.figures import Classified, Fidelity
from ebmzoo.metrics.image_classifier import load

from ..callbacks.fakes import Images, Tiny, measured
from ..data.published import cifar

TINY = ("--epochs", "1", "--width", "1", "--batch_size", "32")


def folder(root, names, side=8):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(i).randint(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from ebmzoo.cli.main import main

    path = tmp_path_factory.mktemp("extractor") / "of digits.safetensors"
    assert main(["extractor", "--config", "ecvae_digits", "--out", str(path), *TINY]) == 0
    return path


def test_labels_are_those_of_the_set(tmp_path):
    assert Digits().labels("test").tolist() == digits("test")[1].tolist()
    cifar(tmp_path / "cifar")
    assert CIFAR10(tmp_path / "cifar").labels("train").tolist() == [0, 1, 2] * 5
    root = folder(tmp_path / "train", ["cat/a.png", "cat/deep/b.png", "bird/a.png", "dog/x.png"])
    test = folder(tmp_path / "test", ["dog/y.png", "bird/z.png"], side=9)
    data = ImageFolder(root, size=8, test_root=test)
    assert data.labels("train").tolist() == [0, 1, 1, 2]
    assert data.labels("test").tolist() == [0, 2]
    folder(test, ["emu/a.png"], side=10)
    with pytest.raises(ValueError, match="has the class 'emu', of which no image is trained on"):
        ImageFolder(root, size=8, test_root=test).labels("test")


def test_its_file_measures_what_evaluate_evaluates(file, tmp_path):
    found = load(file)
    assert found.data == "digits-8" and found.facts["split"] == "digits-8 train" and found.network.classes == 10
    numbers, skipped, _ = measured(
        tmp_path, Tiny(), Images(), extractor=str(file), n_test=40, figures=[Fidelity(), Classified()]
    )
    assert {"fid", "kid", "precision", "recall", "sure_share", "class_share_9"} <= set(numbers) and not skipped


def test_bad_input_is_one_line(ebmzoo, file, tmp_path):
    flat = folder(tmp_path / "flat", [f"{i}.png" for i in range(40)])
    (text := tmp_path / "text.safetensors").write_text("no")
    out = ["--out", "x.safetensors", *TINY]
    lines = {
        "has no classes: a subfolder for each of two or more is needed, and": [
            *("extractor", "--data", "ImageFolder", "--data.root", flat, "--data.size", 8, *out),
        ],
        "Gaussians25 has no classes": ["extractor", "--data", "Gaussians25", *out],
        "give a file that ends in .safetensors": ["extractor", "--data", "Digits", "--out", "x.pt"],
        "no class 'Digit' here: did you mean Digits": ["extractor", "--data", "Digit", *out],
        "--epochs, --width and --batch_size are at least 1": ["extractor", "--data", "Digits", *out[:2], "--epochs", 0],
        "1500 images are no batch of 9000": ["extractor", "--data", "Digits", *out[:2], "--batch_size", 9000],
    }

    def fit(extractor, *more):
        callbacks = (
            f"trainer: {{callbacks: [{{class_path: Evaluate, init_args: {{extractor: {extractor}, n_val: 10}}}}]}}"
        )
        path = tmp_path / f"{len(lines)}.yaml"
        path.write_text(callbacks)
        return ["fit", "--config", "vae.yaml", "--config", path, *more]

    lines["images of (1, 8, 8), and takes none of (1, 16, 16)"] = fit(file, "--data.size", 16)
    lines["text.safetensors is not an image classifier of ebmzoo extractor"] = fit(text)
    lines["no feature extractor at"] = fit(tmp_path / "none.safetensors")
    lines["there is no feature extractor 'digts': digits, cifar10, inception, or a .safetensors file"] = fit("digts")
    for line, words in lines.items():
        answer = ebmzoo(*words)
        assert answer.code == 2 and line in answer.err and answer.err.count("\n") == 1, (words, answer.err)


def test_evaluate_takes_names_and_files():
    assert Evaluate(extractor="my.safetensors").extractor == "my.safetensors"
    with pytest.raises(ValueError, match="no feature extractor 'resnet'"):
        Evaluate(extractor="resnet")
