"""Multilayer perceptrons for 2-D points and very small images.

The defaults are the networks of EC-VAE's and VAEBM's 25 Gaussians, four linear layers of width 256: three
hidden layers and an output layer.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ebmzoo.networks.layers import ACTIVATIONS, Activation, check_input, pick

Norm = Literal["batch"]
Output = Literal["linear", "tanh"]

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d}
OUTPUTS: dict[str, type[nn.Module]] = {"linear": nn.Identity, "tanh": nn.Tanh}


def mlp(inputs: int, outputs: int, width: int, depth: int, activation: str, norm: str | None = None) -> nn.Sequential:
    """`depth` hidden layers (linear, normalisation if any, activation) of one width, then a linear layer."""
    widths = [inputs, *[width] * depth]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers.append(nn.Linear(before, after))
        if norm is not None:
            layers.append(pick(NORMS, norm, "norm")(after))
        layers.append(pick(ACTIVATIONS, activation, "activation")())
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class MLPEncoder(nn.Module):
    """Gaussian encoder q(z|x): mean and log-variance of the latent code.

    Args:
        image_shape: shape of one example, `(2,)` or `(C, H, W)`.
        latent_dim: size of the latent code.
        width: width of the hidden layers.
        depth: number of hidden layers.
        activation: relu, leaky_relu (slope 0.2), silu, elu or tanh.
        input_scale: fixed factor on the input, for data in their own units.
        norm: `"batch"` puts BatchNorm after every hidden linear layer.

    Raises:
        ValueError: on an unknown activation or norm, or an input of another shape.

    Example:
        >>> import torch
        >>> mean, log_variance = MLPEncoder((2,), latent_dim=20)(torch.zeros(5, 2))
        >>> mean.shape, log_variance.shape
        (torch.Size([5, 20]), torch.Size([5, 20]))
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        input_scale: float = 1.0,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.input_scale = tuple(image_shape), input_scale
        self.net = mlp(math.prod(image_shape), 2 * latent_dim, width, depth, activation, norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` (B, *image_shape) to the mean and the log-variance, both (B, latent_dim)."""
        check_input(x, self.image_shape, self)
        mean, log_variance = self.net(self.input_scale * x.flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class MLPDecoder(nn.Module):
    """Decoder: the mean of p(x|z).

    Args:
        image_shape: shape of one example, `(2,)` or `(C, H, W)`.
        latent_dim: size of the latent code.
        width: width of the hidden layers.
        depth: number of hidden layers.
        activation: relu, leaky_relu (slope 0.2), silu, elu or tanh.
        output: `"linear"` for points, `"tanh"` for images in [-1, 1].
        norm: `"batch"` puts BatchNorm after every hidden linear layer.

    Raises:
        ValueError: on an unknown activation, output or norm, or a code of another size.

    Example:
        >>> import torch
        >>> MLPDecoder((1, 8, 8), latent_dim=16, output="tanh")(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        output: Output = "linear",
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        self.net = mlp(latent_dim, math.prod(image_shape), width, depth, activation, norm)
        self.output = pick(OUTPUTS, output, "output")()

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` (B, latent_dim) to the mean (B, *image_shape)."""
        check_input(z, (self.latent_dim,), self)
        return self.output(self.net(z)).unflatten(1, self.image_shape)


class MLPEnergy(nn.Module):
    """Energy E(x), low where data are likely; the raw output, without temperature.

    Args:
        image_shape: shape of one example, `(2,)` or `(C, H, W)`.
        width: width of the hidden layers.
        depth: number of hidden layers.
        activation: relu, leaky_relu (slope 0.2), silu, elu or tanh.
        input_scale: fixed factor on the input; on 2-D data it decides how well the energy trains (try 2).
        spectral_norm: divide each weight by its spectral norm; with any activation but silu, the slope of the
            energy is then at most `input_scale`.

    Raises:
        ValueError: on an unknown activation, or an input of another shape.

    Example:
        >>> import torch
        >>> MLPEnergy((2,), width=32, input_scale=2.0)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int = 256,
        depth: int = 3,
        activation: Activation = "silu",
        input_scale: float = 1.0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape, self.input_scale = tuple(image_shape), input_scale
        self.net = mlp(math.prod(image_shape), 1, width, depth, activation)
        if spectral_norm:
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, *image_shape) to one energy per example (B,)."""
        check_input(x, self.image_shape, self)
        x = x.flatten(1)
        return self.net(x if self.input_scale == 1 else self.input_scale * x).squeeze(1)
