"""The residual encoder of EC-VAE's code."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks.layers import check_image, check_input, pick

MEANS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "linear": nn.Identity}


class BasicBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus a skip (1x1 and BN where size or width change), then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        return F.relu(self.branch(x) + self.skip(x))


class ResNetEncoder(nn.Module):
    """Gaussian encoder q(z|x) of EC-VAE's code: a ResNet-18 whose first convolution halves the image.

    Stages of two blocks, each stage twice as wide and half as large as the one before, BatchNorm, global
    mean pooling and one linear layer each for mean and log-variance. The defaults are the network for 32 px
    (maps of 16, 8, 4 and 2 px; 44.9M parameters with a latent code of 128); other sizes change the maps
    only. Weights start from N(0, 0.02²), biases from 0. Luo et al., "Energy-Calibrated VAE with Test Time
    Free Lunch" (2023).

    Args:
        image_shape: (C, H, W); H and W multiples of 2^stages.
        latent_dim: size of the latent code.
        width: channels of the first stage.
        stages: number of stages.
        mean: `"tanh"` bounds the mean to (-1, 1), as the published code does; `"linear"` leaves it free.

    Raises:
        ValueError: on an unknown `mean`, a size that does not halve often enough, or another input shape.

    Example:
        >>> import torch
        >>> mean, log_variance = ResNetEncoder((3, 32, 32), latent_dim=16, width=8)(torch.zeros(5, 3, 32, 32))
        >>> mean.shape, log_variance.shape
        (torch.Size([5, 16]), torch.Size([5, 16]))
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 128,
        stages: int = 4,
        mean: Literal["tanh", "linear"] = "tanh",
    ) -> None:
        super().__init__()
        self.image_shape = check_image(image_shape, 2**stages, self)
        layers: list[nn.Module] = [nn.Conv2d(self.image_shape[0], width, 3, 2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        for stage in range(stages):
            outputs, stride = width * 2**stage, 2 if stage else 1
            layers += [BasicBlock(before, outputs, stride), BasicBlock(outputs, outputs, stride=1)]
            before = outputs
        self.body = nn.Sequential(*layers)
        self.mean = nn.Sequential(nn.Linear(before, latent_dim), pick(MEANS, mean, "mean")())
        self.log_variance = nn.Linear(before, latent_dim)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` (B, C, H, W) in [-1, 1] to the mean and the log-variance, both (B, latent_dim)."""
        check_input(x, self.image_shape, self)
        features = self.body(x).mean(dim=(2, 3))
        return self.mean(features), self.log_variance(features)
