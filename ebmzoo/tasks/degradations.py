"""Linear degradations of images, each with a pseudo-inverse: what a restoration has to undo."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ebmzoo.mcmc import Noise

_CELLS = 8  # a scattered mask hides blocks of an eighth of the side


class Degradation(ABC):
    """A linear operator A on images, y = A x, and a pseudo-inverse A⁺ with A A⁺ A = A (EC-VAE, appendix B)."""

    name: ClassVar[str]

    @abstractmethod
    def degrade(self, x: Tensor) -> Tensor:
        """A x, of images ``(B, C, H, W)``."""

    @abstractmethod
    def lift(self, y: Tensor) -> Tensor:
        """A⁺ y, images ``(B, C, H, W)``: the simplest ones that are degraded to ``y``."""

    @abstractmethod
    def measured_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one degraded image.

        Raises:
            ValueError: images of this shape cannot be degraded so.
        """

    def seen(self, x: Tensor) -> Tensor:
        """A⁺A x: what the degradation leaves of ``x``."""
        return self.lift(self.degrade(x))

    def complete(self, y: Tensor, x: Tensor) -> Tensor:
        """A⁺y + (I − A⁺A) x: what was measured from ``y``, the rest from ``x`` (EC-VAE, section 4.3)."""
        return self.lift(y) + (x - self.seen(x))


@dataclass(frozen=True)
class Colorize(Degradation):
    """Grey images are to become coloured: A is the mean of the three channels, A⁺ its threefold repetition.

    Example:
        >>> operator = Colorize()
        >>> x = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
        >>> operator.lift(operator.degrade(x)).flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    name: ClassVar[str] = "colorize"

    def degrade(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def lift(self, y: Tensor) -> Tensor:
        return y.expand(-1, 3, -1, -1)

    def measured_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(image_shape) != 3 or image_shape[0] != 3:
            raise ValueError(f"colorize needs a model of colour images (3, H, W), this one makes {image_shape}")
        return (1, *image_shape[1:])


@dataclass(frozen=True)
class SuperResolve(Degradation):
    """Small images are to become ``scale`` times as large: A is the mean of n×n pixels, A⁺ repeats each n×n times.

    Args:
        scale: n; the paper: 4.

    Example:
        >>> operator = SuperResolve(2)
        >>> operator.degrade(torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)).item()
        0.5
    """

    scale: int = 4
    name: ClassVar[str] = "superres"

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise ValueError(f"a super-resolution scale is 2 or more, not {self.scale}")

    def degrade(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.scale)

    def lift(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)

    def measured_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(image_shape) != 3 or image_shape[1] % self.scale or image_shape[2] % self.scale:
            raise ValueError(f"images {image_shape} do not divide into blocks of {self.scale} x {self.scale} px")
        return (image_shape[0], image_shape[1] // self.scale, image_shape[2] // self.scale)


@dataclass(frozen=True)
class Inpaint(Degradation):
    """Hidden pixels are to be filled in: A = A⁺ keeps the visible ones and sets the hidden ones to 0, middle grey.

    Args:
        hidden: bool ``(1 or B, 1, H, W)``, True where a pixel is to be filled in.

    Example:
        >>> operator = Inpaint(box_mask((1, 2, 2), (0, 0, 1, 2)))
        >>> operator.complete(torch.full((1, 1, 2, 2), 7.0), torch.ones(1, 1, 2, 2)).flatten().tolist()
        [1.0, 7.0, 1.0, 7.0]
    """

    hidden: Tensor
    name: ClassVar[str] = "inpaint"

    def __post_init__(self) -> None:
        if self.hidden.dtype != torch.bool or self.hidden.ndim != 4 or self.hidden.shape[1] != 1:
            raise ValueError(f"a mask is bool (1 or B, 1, H, W), not {self.hidden.dtype} {tuple(self.hidden.shape)}")

    def degrade(self, x: Tensor) -> Tensor:
        return x.masked_fill(self.hidden.to(x.device), 0)

    def lift(self, y: Tensor) -> Tensor:
        return self.degrade(y)

    def measured_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        size = tuple(self.hidden.shape[2:])
        if tuple(image_shape[1:]) != size:
            raise ValueError(f"the mask has {size[1]} x {size[0]} px, the images {image_shape[2]} x {image_shape[1]}")
        return image_shape


def box_mask(image_shape: tuple[int, ...], box: tuple[int, int, int, int]) -> Tensor:
    """A mask that hides one box.

    Args:
        image_shape: ``(C, H, W)``.
        box: (left, top, right, bottom), px, right and bottom excluded.

    Returns:
        bool ``(1, 1, H, W)``.

    Raises:
        ValueError: the box is empty or does not lie in the image.
    """
    _, height, width = image_shape
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box {box} (left, top, right, bottom) does not lie in {width} x {height} px")
    hidden = torch.zeros(1, 1, height, width, dtype=torch.bool)
    hidden[..., top:bottom, left:right] = True
    return hidden


def centre_mask(image_shape: tuple[int, ...], px_of_64: int) -> Tensor:
    """A mask that hides a centred square, its side given as that of Dual-MCMC's figure 5: px of a 64-px image.

    Args:
        image_shape: ``(C, H, W)``.
        px_of_64: 20, 30 and 40 are the paper's M20, M30 and M40.

    Returns:
        bool ``(1, 1, H, W)``: the nearest square that can be centred, of one pixel at least.

    Example:
        >>> centre_mask((1, 8, 8), 20).sum().item()  # a side of 8 * 20/64 = 2.5 px
        4
    """
    if not 0 < px_of_64 < 64:
        raise ValueError(f"a centred square has a side of 1 to 63 px of 64, not {px_of_64}")
    _, height, width = image_shape
    sides = [2 * max(1, int(side * px_of_64 / 128 + 0.5)) - side % 2 for side in (height, width)]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    return box_mask(image_shape, (left, top, left + sides[1], top + sides[0]))


def scattered_mask(image_shape: tuple[int, ...], share: float, noise: Noise, n: int = 1) -> Tensor:
    """Masks that hide blocks, an eighth of the side each, at random places, until a share of the image is hidden.

    Args:
        image_shape: ``(C, H, W)``.
        share: of the pixels, in (0, 1), kept to within half a block; 0.2, 0.3 and 0.4 are the R20, R30 and R40 of
            Dual-MCMC's figure 5.
        noise: draws the places.
        n: number of masks, each with its own blocks.

    Returns:
        bool ``(n, 1, H, W)``.

    Example:
        >>> from ebmzoo.mcmc import as_noise
        >>> scattered_mask((1, 16, 16), 0.25, as_noise(0)).float().mean().item()
        0.25
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of hidden pixels lies between 0 and 1, not {share}")
    _, height, width = image_shape
    block = [max(1, side // _CELLS) for side in (height, width)]
    cells = [math.ceil(side / edge) for side, edge in zip((height, width), block, strict=True)]
    # The last row and column of blocks are narrower where 8 does not divide the side: it is pixels that are counted.
    widths = [torch.tensor([min(edge, side - i) for i in range(0, side, edge)])
              for side, edge in zip((height, width), block, strict=True)]  # fmt: skip
    pixels = (widths[0][:, None] * widths[1]).flatten()
    order = noise.uniform((n, len(pixels))).argsort(1)
    reached = pixels[order].cumsum(1) - share * height * width
    taken = (reached - pixels[order] / 2 < 0) | (torch.arange(len(pixels)) == 0)  # nearer with it than without
    chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, taken)
    hidden = chosen.view(n, 1, *cells).repeat_interleave(block[0], 2).repeat_interleave(block[1], 3)
    return hidden[..., :height, :width].contiguous()
