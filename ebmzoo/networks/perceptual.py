"""Perceptual distances: what may stand for the squared error in a VAE's reconstruction."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks.layers import check_image

# VGG-16's convolutions by stage: channels of each; between two stages the map is halved.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# LPIPS's mean and standard deviation of an image in [-1, 1], per colour.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Learned perceptual distance on VGG-16 (Zhang et al., CVPR 2018), LPIPS version 0.1, plus a squared error.

    distance(x, y) = pixels·‖x − y‖² + weight·LPIPS(x, y). LPIPS compares features after each of VGG's five stages,
    scaled to unit length at each pixel: their squared differences, weighted by channel, averaged over the map and
    summed over stages. Grey images count as three equal colours.

    Two files give it its weights, and no checkpoint holds them: they are read when the distance is first used. Figures
    in Inception's features stay fair; LPIPS as a figure would not be, beside this loss.

    Args:
        image_shape: (C, H, W), sides multiples of 16, of 1 or 3 channels.
        weights: path of torchvision's VGG-16 classifier, `vgg16-397923af.pth`.
        heads: path of the channel weights, `vgg.pth` of LPIPS v0.1; None takes the file that comes with torchmetrics.
        weight: factor of LPIPS, in the units of a squared error per image.
        pixels: factor of the squared error; 0 is LPIPS alone.

    Raises:
        ValueError: on another image size, or a file that is not what it should be.
        FileNotFoundError: when first used, if a file is missing.

    Example:
        >>> distance = LPIPS((3, 32, 32), weights="nowhere/vgg16-397923af.pth")
        >>> distance(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32))
        Traceback (most recent call last):
            ...
        FileNotFoundError: LPIPS needs VGG-16's weights: there is no file nowhere/vgg16-397923af.pth; ...
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        weights: str | Path = "vgg16-397923af.pth",
        heads: str | Path | None = None,
        weight: float = 1.0,
        pixels: float = 1.0,
    ) -> None:
        super().__init__()
        if check_image(image_shape, 16, self)[0] not in (1, 3):
            raise ValueError(f"LPIPS compares images of 1 or 3 channels, not {image_shape[0]}")
        self.weights, self.heads, self.weight, self.pixels = weights, heads, weight, pixels
        # Not registered: neither a checkpoint nor an average nor an optimiser should hold a finished network.
        self._tensors: tuple[list[tuple[Tensor, Tensor]], list[Tensor]] | None = None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,) of two batches of images (B, C, H, W) in [-1, 1]."""
        if self._tensors is None or self._tensors[1][0].device != x.device:
            self._tensors = self._read(x.device)
        total = self.pixels * (x - y).flatten(1).square().sum(1)
        with torch.autocast(x.device.type, enabled=False):
            for a, b, head in zip(self._features(x), self._features(y), self._tensors[1], strict=True):
                total = total + self.weight * F.conv2d((a - b).square(), head).mean((1, 2, 3)).to(total.dtype)
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        """The maps after VGG's stages, of unit length at each pixel."""
        assert self._tensors is not None
        shift, scale = (torch.tensor(c, device=x.device).view(1, 3, 1, 1) for c in (SHIFT, SCALE))
        x = (x.float() - shift) / scale
        layers, found = iter(self._tensors[0]), []
        for index, stage in enumerate(VGG16):
            if index:
                x = F.max_pool2d(x, 2)
            for _ in stage:
                x = F.relu(F.conv2d(x, *next(layers), padding=1))
            found.append(_unit(x))
        return found

    def _read(self, device: torch.device) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        hint = "torchvision publishes it; give its path as weights"
        vgg = _load(Path(self.weights), "VGG-16's weights", hint)
        heads = _load(
            self._heads(), "LPIPS's channel weights", "torchmetrics and lpips bring it; give its path as heads"
        )
        try:
            numbers = [n for n, part in enumerate(_vgg_layout()) if part == "conv"]
            convolutions = [(vgg[f"features.{n}.weight"], vgg[f"features.{n}.bias"]) for n in numbers]
            channels = [heads[f"lin{n}.model.1.weight"] for n in range(len(VGG16))]
        except KeyError as error:
            raise ValueError(
                f"{self.weights} or {self._heads()} has no {error}: not the weights LPIPS needs"
            ) from error
        moved = [(w.to(device), b.to(device)) for w, b in convolutions]
        return moved, [head.to(device) for head in channels]

    def _heads(self) -> Path:
        if self.heads is not None:
            return Path(self.heads)
        found = find_spec("torchmetrics")
        folder = Path(found.origin).parent if found and found.origin else Path()
        return folder / "functional" / "image" / "lpips_models" / "vgg.pth"


class RandomFeatures(nn.Module):
    """A perceptual distance without files: features of a small convolutional network that is never trained.

    distance(x, y) = pixels·‖x − y‖² + weight·Σ over two stages of the squared difference of features of unit length,
    averaged over the map, as in `LPIPS`. Untrained features compare edges and strokes in place of single pixels; for
    images that no published network fits, such as 8x8 digits. The network follows from the seed alone.

    Args:
        image_shape: (C, H, W), sides multiples of 2.
        width: channels of the first stage; the second has twice as many.
        seed: of the network's weights.
        weight: factor of the features' distance, in the units of a squared error per image.
        pixels: factor of the squared error.

    Example:
        >>> distance = RandomFeatures((1, 8, 8))
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> distance(x, x).tolist(), bool((distance(x, x + 0.5) > 16).all())
        ([0.0, 0.0], True)
    """

    first: Tensor
    second: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int = 32,
        seed: int = 0,
        weight: float = 1.0,
        pixels: float = 1.0,
    ) -> None:
        super().__init__()
        channels = check_image(image_shape, 2, self)[0]
        self.weight, self.pixels = weight, pixels
        generator = torch.Generator().manual_seed(seed)
        for name, inputs, outputs in (("first", channels, width), ("second", width, 2 * width)):
            kernel = torch.randn(outputs, inputs, 3, 3, generator=generator, device="cpu") / (9 * inputs) ** 0.5
            self.register_buffer(name, kernel, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,) of two batches of images (B, C, H, W)."""
        total = self.pixels * (x - y).flatten(1).square().sum(1)
        for a, b in zip(self._features(x), self._features(y), strict=True):
            total = total + self.weight * (a - b).square().sum(1).mean((1, 2))
        return total

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.leaky_relu(F.conv2d(x, self.first.to(x.dtype), padding=1), 0.2)
        second = F.leaky_relu(F.conv2d(F.avg_pool2d(first, 2), self.second.to(x.dtype), padding=1), 0.2)
        return _unit(first), _unit(second)


def _unit(features: Tensor) -> Tensor:
    """Scale to unit length at each pixel."""
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _vgg_layout() -> list[str]:
    """What stands at each index of torchvision's `vgg16().features`."""
    return [part for stage in VGG16 for part in [*["conv", "relu"] * len(stage), "pool"]]


def _load(path: Path, what: str, hint: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"LPIPS needs {what}: there is no file {path}; {hint}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise ValueError(f"{path} cannot be read as {what}") from error
