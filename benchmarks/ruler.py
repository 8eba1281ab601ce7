"""Is a Fréchet distance in the features of an extractor a ruler? What is further from the data must measure more.

    python benchmarks/ruler.py --extractor data/extractor32.safetensors --config vae_cifar_small
    python benchmarks/ruler.py --extractor my.safetensors --data ImageFolder --data.root my/train --data.size 32
    python benchmarks/ruler.py --extractor digits --data Digits

All against the training images: the test images as they are (the floor), noisy, blurred, some of them noisy, half of
the classes, and each class alone. `--n` takes so many test images at most; `--seed` is of noise and choice.
The script ends with 1 where the order is not what it must be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ebmzoo.cli.configs import load_named, parsed
from ebmzoo.cli.extractor import with_data
from ebmzoo.cli.trainer import filter_messages
from ebmzoo.data import DataModule
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.metrics import StreamingFID

NOISES = (0.05, 0.1, 0.2, 0.5)  # standard deviations, of values in [-1, 1]
BLURS = (0.6, 1.0, 2.0)  # standard deviations, px
SHARES = (0.1, 0.25, 0.5)  # of images with the noise below
MIXED = 0.2
BATCH = 500


Ladder = list[tuple[str, Tensor]]


def noisy(x: Tensor, sigma: float, seed: int) -> Tensor:
    """Images ``(n, C, H, W)``, uint8, with Gaussian noise of ``sigma`` in [-1, 1]."""
    chance = torch.Generator().manual_seed(seed)
    return torch.cat([to_uint8(one + sigma * torch.randn(one.shape, generator=chance)) for one in _floats(x)])


def blurred(x: Tensor, sigma: float) -> Tensor:
    """The same, blurred by a Gaussian of ``sigma`` px, cut off at three of them."""
    reach = math.ceil(3 * sigma)
    return torch.cat([to_uint8(gaussian_blur(one, [2 * reach + 1] * 2, [sigma] * 2)) for one in _floats(x)])


def ladders(x: Tensor, labels: Tensor, seed: int = 0) -> Iterator[Ladder]:
    """Lists of images with their names, each further from the data than the one before it.

    Args:
        x: test images, uint8 ``(n, C, H, W)``, in random order.
        labels: their classes ``(n,)``, each of a few images at least.
        seed: of the noise.
    """
    floor = (f"test images, {len(x):,}", x)
    yield [floor, *((f"noise {sigma:g}", noisy(x, sigma, seed)) for sigma in NOISES)]
    yield [floor, *((f"blur {sigma:g} px", blurred(x, sigma)) for sigma in BLURS)]
    spoilt = noisy(x, MIXED, seed)
    counts = {share: round(share * len(x)) for share in SHARES}
    mixed = ((f"{share:.0%} with noise {MIXED:g}", torch.cat([spoilt[:n], x[n:]])) for share, n in counts.items())
    yield [floor, *mixed, (f"noise {MIXED:g}", spoilt)]
    # A distance falls with the number of images: all of these have as many as the smallest class.
    names = labels.unique()
    classes = [x[labels == name] for name in names]
    n = min(map(len, classes))
    half = x[torch.isin(labels, names[: len(names) // 2])]
    for name, one in zip(names.tolist(), classes, strict=True):
        few = (f"test images, {n:,}", x[:n]), (f"half of the classes, {n:,}", half[:n])
        yield [*few, (f"class {name} alone, {n:,}", one[:n])]


def measured(found: Iterable[Ladder], distance: Callable[[Tensor], float]) -> tuple[dict[str, float], list[str]]:
    """The distance of each, and what of the order is not as it must be."""
    values: dict[str, float] = {}
    wrong = []
    for ladder in found:
        for name, images in ladder:
            if name not in values:
                values[name] = distance(images)
                print(f"| {name} | {values[name]:.4g} |", flush=True)
        names = [name for name, _ in ladder]
        wrong += [f"{b} is no further than {a}" for a, b in pairwise(names) if values[b] <= values[a]]
    return values, wrong


def _floats(x: Tensor) -> Iterator[Tensor]:
    return (from_uint8(part) for part in x.split(BATCH))


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether the order holds."""
    filter_messages()
    words = with_data(list(arguments))
    load_named(words)
    parser = ArgumentParser(description=__doc__, exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data", required=True)
    parser.add_argument("--extractor", required=True)
    for name, default in (("n", 10_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parsed(parser, words)
    data = parser.instantiate_classes(given).data
    data.prepare_data()
    data.setup("fit")
    streaming = StreamingFID(given.extractor)
    train, test = data.reference("train"), data.reference("test")
    network = streaming.extractor
    network.check(data.image_shape)
    for rows in torch.arange(len(train)).split(BATCH):
        streaming.update(train[rows], real=True)
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(given.seed))[: given.n]
    x = torch.cat([to_uint8(test[rows]) for rows in chosen.split(BATCH)])
    against = f"{data.reference_name('train')} ({len(train):,})"
    print(f"extractor {network.name} (sha256 {network.sha256[:8]}), against {against}, seed {given.seed}")
    print("| images | Fréchet distance |\n|---|---|")

    def distance(images: Tensor) -> float:
        streaming.reset()
        for part in images.split(BATCH):
            streaming.update(part, real=False)
        return streaming.compute()

    _, wrong = measured(ladders(x, data.labels("test")[chosen], given.seed), distance)
    print("\n".join(wrong) or "the order is what it must be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
