"""Feature networks of the fidelity metrics, as extractors of torch-fidelity with float64 features.

All are called by one code path. torch-fidelity takes the mean of features in their own dtype, and in float32
that alone moves a Fréchet distance in its third digit: hence float64 (the convolutions of Inception and of classifiers
from a file stay float32).
"""

from __future__ import annotations

import socket
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from ebmzoo.images import to_uint8
from ebmzoo.metrics import image_classifier
from ebmzoo.metrics.digit_classifier import WEIGHTS, DigitClassifier, load_digit_classifier, sha256_of
from ebmzoo.metrics.protocol import check_extractor

INCEPTION_FILE = URL_INCEPTION_V3.rpartition("/")[2]
_CONNECT_SECONDS = 20.0


class _OfClassifier(FeatureExtractorBase):
    """The features of a classifier, and its logits, of uint8 images, as float64."""

    layer: str
    """The features' name."""
    network: DigitClassifier | image_classifier.ImageClassifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features asked for, in that order, each ``(B, size)`` float64."""
        if images.dtype != torch.uint8:
            raise ValueError(f"feature extractors take uint8 images, not {images.dtype}")
        features = self.network.features(images)
        found = {self.layer: features, "logits": self.network.to_logits(features)}
        return tuple(found[name].double() for name in self.features_list)

    @classmethod
    def get_provided_features_list(cls) -> tuple[str, ...]:
        return cls.layer, "logits"

    @classmethod
    def get_default_feature_layer_for_metric(cls, metric: str) -> str:
        return "logits" if metric == "isc" else cls.layer

    @staticmethod
    def can_be_compiled() -> bool:
        return False


class DigitFeatures(_OfClassifier):
    """The shipped digit classifier, all of it in float64: features "64" and "logits" of ``(B, 1 or 3, H, W)``."""

    layer = "64"

    def __init__(self, name: str, features_list: Sequence[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = load_digit_classifier().double()


class ClassifierFeatures(_OfClassifier):
    """A trained `ImageClassifier`: features "features" and "logits" of images of its shape."""

    layer = "features"

    def __init__(self, name: str, features_list: Sequence[str], feature_extractor_weights_path: str, **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = image_classifier.load(feature_extractor_weights_path).network


class InceptionFeatures(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception, the network of the published FID, with its outputs as float64."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features asked for, in that order, each ``(B, size)`` float64."""
        return tuple(feature.double() for feature in super().forward(images))


_CLASSES: dict[str, type[FeatureExtractorBase]] = {
    "ebmzoo-digits": DigitFeatures,
    "ebmzoo-inception": InceptionFeatures,
    "ebmzoo-classifier": ClassifierFeatures,
}


@dataclass(frozen=True)
class Extractor:
    """A feature network and what a protocol says of it.

    Attributes:
        name: "digits", "inception", or that of the data that a classifier learned from (not quite CIFAR-10's own files:
            "cifar10-jpeg-32").
        registered: its name in torch-fidelity's registry.
        layer: the features of FID, KID and precision/recall.
        num_features: their number.
        colour: whether it takes colour images only (grey ones are then repeated).
        resize: how images are brought to its size.
        weights: the file of its weights.
        image_shape: the one (C, H, W) that it takes, grey images for colour ones; None where it resizes.
    """

    name: str
    registered: str
    layer: str
    num_features: int
    colour: bool
    resize: str
    weights: Path
    image_shape: tuple[int, ...] | None = None

    @property
    def sha256(self) -> str:
        """Of the weights file, in hexadecimal."""
        return sha256_of(self.weights)

    @property
    def options(self) -> dict[str, Any]:
        """What torch-fidelity is told: the extractor, its features and its weights."""
        return {
            "feature_extractor": self.registered,
            **{f"feature_layer_{metric}": self.layer for metric in ("fid", "kid", "prc")},
            "feature_extractor_weights_path": str(self.weights),
        }

    def build(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network itself, frozen: uint8 images to a tuple of one tensor ``(B, num_features)`` float64."""
        weights = str(self.weights)
        network = _CLASSES[self.registered](self.registered, [self.layer], feature_extractor_weights_path=weights)
        return network.requires_grad_(False).eval().to(device)

    def check(self, shape: Sequence[int]) -> None:
        """Refuse images of a shape (C, H, W) that this network does not take.

        Raises:
            ValueError: one line with both shapes.
        """
        own = self.image_shape
        if own is not None and (tuple(shape[1:]) != own[1:] or (shape[0] == 3 and not self.colour)):
            raise ValueError(
                f"the extractor {self.weights} learned from {self.name}, images of {own}, and takes none of "
                f"{tuple(shape)}: make one of these with ebmzoo extractor"
            )

    def classifier(self) -> nn.Module:
        """The network from a file itself, images to the logits of its classes."""
        return image_classifier.load(self.weights).network

    def bytes_of(self, images: Tensor) -> Tensor:
        """Images ``(..., C, H, W)``, uint8 or floats in [-1, 1], as this network takes them: uint8.

        Raises:
            ValueError: see `check`.
        """
        self.check(images.shape[-3:])
        images = images if images.dtype == torch.uint8 else to_uint8(images)
        if self.colour and images.shape[-3] == 1:
            images = images.expand(*images.shape[:-3], 3, *images.shape[-2:]).contiguous()
        return images


def find_extractor(name: str, inception_path: str | Path | None = None, download: bool = True) -> Extractor:
    """Find a feature network and its weights, and register it with torch-fidelity.

    Args:
        name: "digits" (the shipped classifier, 64 features), "cifar10" (the shipped one of 3x32x32 images, 96),
            "inception" (2,048), or a file that ``ebmzoo extractor`` made.
        inception_path: torch-fidelity's Inception weights; without it they are taken from torch's hub folder,
            and downloaded to it if they are not there.
        download: False only looks for them.

    Raises:
        FileNotFoundError: there is no such file, or the Inception weights are not there and cannot be downloaded.
        ValueError: there is no such extractor, or the file holds no such weights.

    Example:
        >>> find_extractor("digits").num_features
        64
    """
    if name == "digits":
        found = Extractor(name, "ebmzoo-digits", "64", 64, False, "area average to 8x8", WEIGHTS)
    elif name == "inception":
        resize = "bilinear to 299x299 as TensorFlow 1, no antialias"
        path = _inception_weights(inception_path, download)
        found = Extractor(name, "ebmzoo-inception", "2048", 2048, True, resize, path)
    else:
        check_extractor(name)
        path = image_classifier.CIFAR10 if name == "cifar10" else Path(name)
        network, data, *_ = image_classifier.load(path)
        shape, size = network.image_shape, "x".join(map(str, network.image_shape[1:]))
        about = "features", network.num_features, shape[0] == 3, f"none, {size} only"
        found = Extractor(data, "ebmzoo-classifier", *about, path, shape)
    if found.registered not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(found.registered, _CLASSES[found.registered])
    return found


def _inception_weights(given: str | Path | None, download: bool) -> Path:
    path = Path(given) if given is not None else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.is_file():
        if given is not None:
            raise FileNotFoundError(
                f"no Inception weights at {path}: put torch-fidelity's {INCEPTION_FILE} there (from {URL_INCEPTION_V3})"
            )
        if not download:
            raise FileNotFoundError(
                f"no Inception weights at {path}: a training downloads them from {URL_INCEPTION_V3}"
            )
        _download(path)
    foreign = f"{path} does not hold torch-fidelity's Inception weights ({INCEPTION_FILE})"
    try:
        # torch-fidelity reads the file as a pickle that may run code; this refuses any that could.
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(foreign) from error
    if not isinstance(weights, dict) or "Conv2d_1a_3x3.conv.weight" not in weights:
        raise ValueError(foreign)
    return path


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _connect_timeout(_CONNECT_SECONDS):
            digest = INCEPTION_FILE.rpartition("-")[2].removesuffix(".pth")
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=digest, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise FileNotFoundError(
            f"Inception weights missing: no {path}, and {URL_INCEPTION_V3} cannot be downloaded ({reason}); "
            f"put the file there, or give its place as inception_path"
        ) from error


@contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)  # torch's download has none: behind a silent firewall it would hang
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
