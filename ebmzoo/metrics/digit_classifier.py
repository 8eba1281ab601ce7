"""A small digit classifier: the feature network of everything that is measured on digits.

Its weights ship with the package. They were made, on one CPU thread, by::

    python -m ebmzoo.metrics.digit_classifier --out ebmzoo/metrics/weights/digits.safetensors --seed 0

It learns from the 1,500 training digits alone, and nothing is ever trained on its features. Its settings were
chosen by accuracy on other, random splits of the scans, its seed beforehand.

The modes of stacked MNIST are counted by a classifier of MNIST, which sees 16x16 px and which is made by::

    python -m ebmzoo.metrics.digit_classifier --mnist ROOT --out mnist.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ebmzoo.images import from_uint8
from ebmzoo.metrics.image_classifier import accuracy
from ebmzoo.metrics.modes import share_divergence

SIDE = 8
CLASSES = 10
WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"


class DigitClassifier(nn.Module):
    """Two convolutions, a layer of 64 features, ten logits; smooth (SiLU) and without batch statistics.

    Larger images are brought to its side by area averaging; colour is averaged to grey.

    Args:
        channels: widths of the two convolutions.
        side: px of what it sees, an even number.
        dropout: share of units dropped before and after the features, in training only.

    Attributes:
        num_features: 64.

    Example:
        >>> import torch
        >>> network = DigitClassifier()
        >>> network.features(torch.zeros(2, 1, 16, 16)).shape, network(torch.zeros(2, 3, 8, 8)).shape
        (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    num_features = 64

    def __init__(self, channels: tuple[int, int] = (24, 48), dropout: float = 0.2, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.narrow = nn.Conv2d(1, channels[0], 3, padding=1)
        self.wide = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.to_features = nn.Linear(channels[1] * (side // 2) ** 2, self.num_features)
        self.to_logits = nn.Linear(self.num_features, CLASSES)
        self.dropout = dropout

    def features(self, x: Tensor) -> Tensor:
        """The 64 features.

        Args:
            x: images ``(B, C, H, W)``, floats in [-1, 1] or uint8; C is 1 or 3, H and W at least its side.

        Returns:
            ``(B, 64)``, in the dtype of the weights.

        Raises:
            ValueError: for another shape.
        """
        h = functional.silu(self.narrow(self._grey(x)))
        h = functional.avg_pool2d(functional.silu(self.wide(h)), 2).flatten(1)
        return functional.silu(self.to_features(functional.dropout(h, self.dropout, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        """The ten logits of ``x``, which is as in `features`, ``(B, 10)``."""
        return self.to_logits(functional.dropout(self.features(x), self.dropout, self.training))

    def _grey(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < self.side:
            raise ValueError(
                f"the digit classifier takes images (B, 1 or 3, H, W) of {self.side} px or more, not {tuple(x.shape)}"
            )
        if x.dtype == torch.uint8:
            x = from_uint8(x)
        x = x.to(self.narrow.weight.dtype).mean(1, keepdim=True)
        return x if x.shape[2:] == (self.side, self.side) else functional.adaptive_avg_pool2d(x, self.side)


def load_digit_classifier(path: str | Path = WEIGHTS) -> DigitClassifier:
    """The trained classifier, frozen, in eval mode, float32, on the CPU.

    Args:
        path: a safetensors file; by default the weights that ship with the package.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.

    Example:
        >>> load_digit_classifier().training
        False
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"digit classifier: no weights at {path}: make them with python -m "
            f"ebmzoo.metrics.digit_classifier --out {path}"
        )
    try:
        weights = load_file(path)
        inputs = weights["to_features.weight"].shape[1] // weights["wide.weight"].shape[0]
        network = DigitClassifier(side=2 * math.isqrt(inputs))
        network.load_state_dict(weights)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of a digit classifier") from error
    return network.requires_grad_(False).eval()


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: str | Path = WEIGHTS) -> str:
    """The sha256 of a weights file, in hexadecimal: part of the protocol of what its features measure."""
    path = Path(path)
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns)


@torch.no_grad()
def report(
    samples: Tensor, sure: float = 0.9, batch_size: int = 1000, network: nn.Module | None = None
) -> dict[str, float]:
    """What a classifier says of generated images.

    Args:
        samples: images ``(n, 1 or 3, H, W)``, uint8 or floats in [-1, 1].
        sure: the least probability of the likeliest class at which the classifier counts as sure.
        batch_size: images at once.
        network: images to the logits of their classes; that of digits, which is shipped, by default.

    Returns:
        "sure_share", the share of samples of which it is surer than that; "class_share_0" to "class_share_9", or as
        many as there are classes, the shares of samples by likeliest class; and "class_share_min", the least of them.

    Raises:
        ValueError: if there are no samples, or not such images.

    Example:
        >>> import torch
        >>> report(torch.zeros(4, 1, 8, 8))["class_share_min"]
        0.0
    """
    if len(samples) == 0:
        raise ValueError("a report on no samples: give at least one")
    network = (load_digit_classifier().double() if network is None else network).to(samples.device)
    probability = torch.cat([network(part).softmax(1) for part in samples.split(batch_size)])
    top, label = probability.max(1)
    shares = (torch.bincount(label, minlength=probability.shape[1]) / len(samples)).tolist()
    return {
        "sure_share": (top > sure).float().mean().item(),
        **{f"class_share_{k}": share for k, share in enumerate(shares)},
        "class_share_min": min(shares),
    }


@torch.no_grad()
def stacked_report(
    samples: Tensor, sure: float = 0.9, batch_size: int = 1000, network: DigitClassifier | None = None
) -> dict[str, float]:
    """Which of the 1,000 modes of stacked digits the samples cover, a digit in each of their three channels.

    Args:
        samples: images ``(n, 3, H, W)``, uint8 or floats in [-1, 1].
        sure: a mode counts as covered by a sample of whose every channel the classifier is surer than that.
        batch_size: images at once.
        network: a classifier of their digits; the shipped one by default.

    Returns:
        "stacked_modes", how many modes the likeliest classes name; "stacked_modes_sure", how many of them some sample
        covers surely; "stacked_sure_share", the share of sure samples; and "stacked_kl", the KL divergence in nats of
        all samples' modes from the uniform distribution (of n uniform draws about 999/2n).

    Raises:
        ValueError: if there are no samples, or they do not have three channels.

    Example:
        >>> import torch
        >>> round(stacked_report(torch.zeros(4, 3, 8, 8))["stacked_kl"], 3)  # all in one mode: log 1000
        6.908
    """
    if samples.ndim != 4 or samples.shape[1] != 3 or len(samples) == 0:
        raise ValueError(f"stacked digits are images of three channels, at least one, not {tuple(samples.shape)}")
    network = (load_digit_classifier() if network is None else network).to(samples.device).double()
    modes, surely = [], []
    for part in samples.split(batch_size):
        top, label = network(part.flatten(0, 1)[:, None]).softmax(1).view(-1, 3, CLASSES).max(2)
        modes.append((label * label.new_tensor([100, 10, 1])).sum(1))
        surely.append((top > sure).all(1))
    mode, is_sure = torch.cat(modes), torch.cat(surely)
    counts = torch.bincount(mode, minlength=CLASSES**3)
    return {
        "stacked_modes": float((counts > 0).sum()),
        "stacked_modes_sure": float(len(mode[is_sure].unique())),
        "stacked_sure_share": is_sure.double().mean().item(),
        "stacked_kl": share_divergence(counts),
    }


def train(
    x: Tensor,
    labels: Tensor,
    seed: int = 0,
    epochs: int = 100,
    batch_size: int = 125,
    rate: float = 5e-3,
) -> DigitClassifier:
    """Train the classifier: AdamW, one cycle of the learning rate, every batch slightly moved and noisy.

    The same seed gives the same weights, bit for bit, on the same machine with the same number of threads.
    torch's global random state is left as it was.

    Args:
        x: digits ``(n, 1, side, side)`` in [-1, 1].
        labels: int64 ``(n,)``.
        seed: of initial weights, order, augmentation and dropout.
        epochs: passes over the data; incomplete batches are left out.
        batch_size: digits in a step.
        rate: the largest learning rate.

    Returns:
        The network, frozen and in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DigitClassifier(side=x.shape[2])
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=5e-2)
        steps = len(x) // batch_size
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x))[: steps * batch_size].split(batch_size):
                loss = functional.cross_entropy(network(_disturbed(x[rows])), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
    return network.requires_grad_(False).eval()


def _disturbed(
    x: Tensor, shift: float = 1.0, degrees: float = 10.0, scale: float = 0.15, noise: float = 0.15
) -> Tensor:
    """Digits moved by up to ``shift`` px, turned, stretched and sheared a little, with Gaussian noise."""

    def spread(*shape: int) -> Tensor:
        return torch.rand(len(x), *shape) * 2 - 1

    angle, stretch, shear = spread() * math.radians(degrees), 1 + scale * spread(2), scale * spread()
    affine = x.new_zeros(len(x), 2, 3)
    affine[:, 0, 0], affine[:, 0, 1] = angle.cos() * stretch[:, 0], shear - angle.sin()
    affine[:, 1, 0], affine[:, 1, 1] = angle.sin(), angle.cos() * stretch[:, 1]
    affine[:, :, 2] = spread(2) * shift * 2 / x.shape[2]
    grid = functional.affine_grid(affine, list(x.shape), align_corners=False)
    # Shifted to [0, 2] around the sampling, so that what moves in from outside is paper and not grey.
    moved = functional.grid_sample(x + 1, grid, padding_mode="zeros", align_corners=False) - 1
    return moved + noise * torch.randn_like(moved)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on the training digits, write the weights, and print how well they do on the test digits."""
    program = "python -m ebmzoo.metrics.digit_classifier"
    parser = argparse.ArgumentParser(prog=program, description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes over the data (100; of MNIST 10)")
    parser.add_argument(
        "--mnist", type=Path, metavar="ROOT", help="train on the MNIST of this folder, for stacked MNIST"
    )
    options = parser.parse_args(arguments)

    # Lazily: metrics know no data, only this command does.
    from ebmzoo.data.digits import digits
    from ebmzoo.data.mnist import mnist

    epochs = options.epochs or (10 if options.mnist else 100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and with it the last bit, depends on the number of threads
    try:
        if options.mnist:
            x, labels = mnist(options.mnist, "train", 32)
            network = train(_halved(x), labels, seed=options.seed, epochs=epochs)
        else:
            network = train(*digits("train"), seed=options.seed, epochs=epochs)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    finally:
        torch.set_num_threads(threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), options.out)
    options.out.chmod(0o644)  # safetensors writes for the owner alone; an installed package has other readers
    if options.mnist:
        x, labels = mnist(options.mnist, "test", 32)
        right = [f"{accuracy(network, _halved(x), labels):.4f} at 32 px"]
    else:
        right = [f"{accuracy(network, *digits('test', size)):.4f} at {size} px" for size in (SIDE, 16, 32)]
    print(f"{options.out}: accuracy on the test digits {', '.join(right)}; sha256 {sha256_of(options.out)}")


def _halved(x: Tensor) -> Tensor:
    """Images of half the side, floats in [-1, 1], by area averaging."""
    return torch.cat([functional.avg_pool2d(from_uint8(part), 2) for part in x.split(10_000)])


if __name__ == "__main__":
    main()
