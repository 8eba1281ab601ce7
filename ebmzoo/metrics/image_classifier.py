"""A small classifier of labelled images: the feature network of figures at sizes where Inception cannot be had.

One is trained, and written as safetensors, by ``ebmzoo extractor``. Its distances are none of Inception's: protocols
and tables name them after the data that it learned from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from ebmzoo.files import written_whole
from ebmzoo.images import from_uint8

#: ships with the package: of CIFAR-10 as JPEGs, 83% of whose test images it tells; how it was made, docs/metrics.md
CIFAR10 = Path(__file__).parent / "weights" / "cifar10.safetensors"
_LEAST_SIDE = 8
_PADDING = 4  # px that a training image may be moved by at 32 px, an eighth of the side
_WHAT = "an image classifier of ebmzoo extractor"


def _convolution(wide: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class _Residual(nn.Module):
    """x + two convolutions of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ImageClassifier(nn.Module):
    """A ResNet of seven convolutions (He et al. 2016), at the side, a half and a quarter of it, averaged over places.

    Args:
        image_shape: (C, H, W) of the images, which are square, of 8 px or more; no other size is taken.
        classes: their number, 2 or more.
        width: half the channels of the first convolution; the two residual stages have three and six times as many.

    Attributes:
        num_features: 6 * width.

    Raises:
        ValueError: for other shapes or numbers.

    Example:
        >>> import torch
        >>> network = ImageClassifier((3, 32, 32), classes=10)
        >>> network.features(torch.zeros(2, 3, 32, 32)).shape, network(torch.zeros(2, 3, 32, 32)).shape
        (torch.Size([2, 96]), torch.Size([2, 10]))
    """

    def __init__(self, image_shape: tuple[int, ...], classes: int, width: int = 16) -> None:
        super().__init__()
        square = len(image_shape) == 3 and image_shape[1] == image_shape[2] >= _LEAST_SIDE
        if not square or image_shape[0] not in (1, 3):
            raise ValueError(f"an image classifier sees square grey or colour images of 8 px or more: {image_shape}")
        if classes < 2 or width < 1:
            raise ValueError(f"an image classifier has 2 classes or more and a width, not {classes} and {width}")
        self.image_shape, self.classes = tuple(image_shape), classes
        self.num_features = 6 * width
        self.body = nn.Sequential(
            _convolution(image_shape[0], 2 * width),
            nn.MaxPool2d(2),
            _convolution(2 * width, 3 * width),
            _Residual(3 * width),
            nn.MaxPool2d(2),
            _convolution(3 * width, 6 * width),
            _Residual(6 * width),
        )
        self.to_logits = nn.Linear(self.num_features, classes)

    def features(self, x: Tensor) -> Tensor:
        """The features.

        Args:
            x: images ``(B, C, H, W)`` of its shape, floats in [-1, 1] or uint8.

        Returns:
            ``(B, num_features)``, not below 0.

        Raises:
            ValueError: for images of another shape.
        """
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"this extractor sees images of {self.image_shape}, not {tuple(x.shape[1:])}")
        x = from_uint8(x) if x.dtype == torch.uint8 else x
        return self.body(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ``x``, which is as in `features`, ``(B, classes)``."""
        return self.to_logits(self.features(x))


class Loaded(NamedTuple):
    """A trained classifier, and what its file says of it.

    Attributes:
        network: frozen, in eval mode, float32.
        data: name of the data that it learned from, such as "digits-8".
        accuracy: share of test images that it names rightly.
        facts: all that the header holds, as text.
    """

    network: ImageClassifier
    data: str
    accuracy: float
    facts: Mapping[str, str]


def write(network: ImageClassifier, path: str | Path, *, data: str, accuracy: float, **facts: object) -> str:
    """Write a trained classifier in half precision, whose header says what it is.

    Args:
        network: the classifier.
        path: the file, safetensors.
        data: name of the data that it learned from.
        accuracy: share of test images that it names rightly, measured on the rounded weights.
        **facts: what else the header holds.

    Returns:
        The sha256 of the weights, as the header has it.

    Raises:
        OSError: if the file cannot be written.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in _kept(network).items()}
    digest = _digest(weights)
    shape = " ".join(map(str, network.image_shape))
    header = {"kind": _WHAT, "data": data, "accuracy": f"{accuracy:.4f}", "image_shape": shape, "sha256": digest}
    with written_whole(Path(path)) as file:
        file.write(save(weights, header | {name: str(value) for name, value in facts.items()}))
    return digest


def load(path: str | Path) -> Loaded:
    """Read what `write` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one line, if it holds something else, or its weights are not those that its header names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no feature extractor at {path}: ebmzoo extractor makes one")
    foreign = f"{path} is not {_WHAT}"
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        if facts.get("kind") != _WHAT:
            raise ValueError(foreign)
        shape = tuple(int(n) for n in facts["image_shape"].split())
        classes, features = weights["to_logits.weight"].shape
        network = ImageClassifier(shape, classes, features // 6)
        network.load_state_dict(weights, strict=False)
        missing = set(_kept(network)) ^ set(weights)
        right = float(facts["accuracy"])
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(foreign) from error
    if missing or _digest(weights) != facts.get("sha256"):
        raise ValueError(f"{path} is damaged: its weights are not those that its header names")
    return Loaded(network.requires_grad_(False).eval(), facts["data"], right, facts)


def _kept(network: nn.Module) -> dict[str, Tensor]:
    """Weights and batch statistics, without the counters of batches."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Share of images ``x`` ``(n, C, H, W)`` whose largest logit is that of ``labels`` ``(n,)``."""
    device = next(network.parameters()).device
    parts = zip(x.split(batch_size), labels.split(batch_size), strict=True)
    right = sum(int((network(part.to(device)).argmax(1).cpu() == label).sum()) for part, label in parts)
    return right / len(labels)


def train(
    x: Tensor,
    labels: Tensor,
    classes: int,
    *,
    flip: bool = False,
    epochs: int = 9,
    batch_size: int = 128,
    rate: float = 0.15,
    width: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Callable[[int, float], None] | None = None,
) -> ImageClassifier:
    """Train a classifier: SGD with Nesterov's momentum, one cycle of the rate, smoothed labels, every image moved.

    torch's global random state is left as it was.

    Args:
        x: images uint8 ``(n, C, H, W)``.
        labels: int64 ``(n,)``, from 0.
        classes: their number.
        flip: whether images are also mirrored, each with probability ½: not where that makes another class of them.
        epochs: passes over the data; incomplete batches are left out.
        batch_size: images in a step.
        rate: the largest learning rate.
        width: see `ImageClassifier`.
        seed: of initial weights, order and augmentation.
        device: where it trains; on a GPU in bfloat16.
        watch: is told the epoch, from 1, and its mean loss.

    Returns:
        The network, frozen and in eval mode, on that device.

    Raises:
        ValueError: fewer images than a batch, or a number that is out of range.
    """
    if len(x) < batch_size or min(epochs, batch_size) < 1 or rate <= 0:
        raise ValueError(f"{len(x)} images are no batch of {batch_size}, or there are no epochs, {epochs}, or rate")
    device = torch.device(device)
    # The order and the moves come from a generator of their own: the same on every device.
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ImageClassifier(tuple(x.shape[1:]), classes, width)
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(x) // batch_size
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.25)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.randperm(len(x), generator=chance)[: steps * batch_size].split(batch_size):
            images = from_uint8(_moved(x[rows], flip, chance)).to(device)
            # On processors without instructions for it, bfloat16 takes ten times as long.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(images)
            loss = functional.cross_entropy(logits.float(), labels[rows].to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
        if watch is not None:
            watch(epoch, total / steps)
    return network.requires_grad_(False).eval()


def _moved(x: Tensor, flip: bool, chance: torch.Generator) -> Tensor:
    """Each image shifted by up to an eighth of its side both ways, its border repeated, and mirrored or not."""
    count, _, side, _ = x.shape
    most = math.ceil(side * _PADDING / 32)
    down, right = torch.randint(2 * most + 1, (2, count, 1), generator=chance) - most
    line = torch.arange(side)
    rows, columns = (line + down).clamp(0, side - 1), (line + right).clamp(0, side - 1)
    if flip:
        mirrored = torch.rand(count, 1, generator=chance) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    which = torch.arange(count)[:, None, None]
    # The index of places stands last, so that a batch is channels-last in memory, as the convolutions want it.
    return x.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
