"""``ebmzoo extractor``: train a classifier of labelled images, the feature network of figures that need no download."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from ebmzoo.cli.arguments import check_writable
from ebmzoo.cli.configs import config_path, load_named, options, parsed, read_config
from ebmzoo.cli.errors import UserError, instantiating

if TYPE_CHECKING:
    from torch import Tensor

    from ebmzoo.data import DataModule

_HELP = """usage: ebmzoo extractor --data CLASS [--data.SETTING VALUE ...] --out FILE [options]
       ebmzoo extractor --config CONFIG [--data.SETTING VALUE ...] --out FILE [options]

Train a small ResNet that tells the classes of labelled images apart, and write it as safetensors. As `extractor: FILE`
of Evaluate, it measures Fréchet and kernel distances, precision and recall where Inception cannot be had. CIFAR10,
CIFAR100, Digits and MNIST have labels, and an ImageFolder with a subfolder for each class. Images are mirrored at
random where the data module's flip is above 0.

  --data       the data module; or --config, of which the data alone are read
  --out        the file, .safetensors
  --epochs     passes over the training images (9)
  --width      half the channels of the first convolution (16: 265,000 weights, 530 kB in half precision)
  --batch_size images in a step (128)
  --seed       of weights, order and augmentation (0)
  --device     cpu, cuda, ... (the GPU if there is one)
"""
_CHUNK = 1000


def run(verb: str, arguments: Sequence[str]) -> None:
    """Train on the training images, measure the accuracy on the test images, and write the file."""
    if {"-h", "--help"} & set(arguments):
        print(_HELP, end="")
        return
    from ebmzoo.cli.trainer import filter_messages
    from ebmzoo.data import DataModule

    filter_messages()
    words = with_data(list(arguments))
    load_named(words)

    parser = ArgumentParser(prog=f"ebmzoo {verb}", exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", type=str | None)
    for name, default in (("epochs", 9), ("width", 16), ("batch_size", 128), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parsed(parser, words)
    out = Path(given.out)
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"--out {out}: give a file that ends in .safetensors")
    check_writable(out)
    if min(given.epochs, given.width, given.batch_size) < 1 or given.seed < 0:
        raise UserError("--epochs, --width and --batch_size are at least 1, --seed at least 0")
    with instantiating():
        data = parser.instantiate_classes(given).data
    _train(data, out, given.device, given.epochs, given.width, given.batch_size, given.seed)


def with_data(words: list[str]) -> list[str]:
    """Words in which the data of each ``--config`` stand in its place."""
    found = []
    for path in map(config_path, options(words, "--config", "-c")):
        if not (data := read_config(path).get("data")):
            raise UserError(f"{path} has no data: a config with a data module is needed")
        found.append(f"--data={json.dumps(data)}")
    rest = iter(words)
    for word in rest:
        name, joined, _ = word.partition("=")
        if name not in ("--config", "-c"):
            found.append(word)
        elif not joined:
            next(rest, None)
    return found


def _train(data: DataModule, out: Path, device: str | None, epochs: int, width: int, batch: int, seed: int) -> None:
    import torch

    from ebmzoo.metrics import image_classifier

    data.prepare_data()
    data.setup("fit")
    labels, test_labels = data.labels("train"), data.labels("test")
    classes = int(labels.max()) + 1
    x, test = _bytes(data, "train"), _bytes(data, "test")
    print(f"{len(x):,} images of {classes} classes of {data.reference_name('train')}", flush=True)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()

    def watch(epoch: int, loss: float) -> None:
        print(f"epoch {epoch} of {epochs}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)

    how: dict[str, Any] = {"flip": data.flip > 0, "epochs": epochs, "batch_size": batch, "width": width, "seed": seed}
    network = image_classifier.train(x, labels, classes, device=device, watch=watch, **how).cpu()
    # As it will be read: the accuracy is that of the rounded weights.
    right = image_classifier.accuracy(network.half().float(), test, test_labels)
    facts = {"split": data.reference_name("train"), "measured_on": data.reference_name("test"), "images": len(x)}
    digest = image_classifier.write(network, out, data=data.name, accuracy=right, classes=classes, **facts, **how)
    size = f"{out.stat().st_size / 1000:.0f} kB"
    print(f"{out}: accuracy {right:.4f} on {data.reference_name('test')}, {size}, weights sha256 {digest}")


def _bytes(data: DataModule, split: str) -> Tensor:
    """All images of a split, uint8 ``(n, C, H, W)``; as floats they would take four times the memory."""
    import torch

    from ebmzoo.images import to_uint8

    images = data.reference(split)
    return torch.cat([to_uint8(images[rows]) for rows in torch.arange(len(images)).split(_CHUNK)])
