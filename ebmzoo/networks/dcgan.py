"""The convolutional networks of BiDVL's code, after DCGAN: strided convolutions without skips."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ebmzoo.networks.layers import check_input, check_square, pick

SIZES = (8, 16, 32, 64, 128)
OUTPUTS: dict[str, type[nn.Module]] = {"softplus": nn.Softplus, "linear": nn.Identity}


def halvings(size: int) -> int:
    """How often a side, a power of two, halves until it is 4."""
    return size.bit_length() - 3


def initialise(network: nn.Module) -> None:
    """Start all convolutions from N(0, 0.02²) and zero biases, as DCGAN does."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ConvEncoder(nn.Module):
    """Gaussian encoder q(h|v) of BiDVL's code: mean and log-variance of the latent code.

    A 3x3 convolution, then 4x4 convolutions of stride 2 that double the width until the map has 4x4 pixels,
    each with BatchNorm and leaky ReLU (0.2); two 4x4 convolutions read mean and log-variance off it. The
    defaults are the networks for 32 px (2.8M parameters with a latent code of 100) and 64 px (8.7M). Kan et
    al., "Bi-level Doubly Variational Learning for Energy-based Latent Variable Models" (2022), section 5.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128.
        latent_dim: size of the latent code.
        width: channels of the first convolution.

    Raises:
        ValueError: on another image size, or another input shape.

    Example:
        >>> import torch
        >>> mean, log_variance = ConvEncoder((3, 32, 32), latent_dim=16, width=4)(torch.zeros(5, 3, 32, 32))
        >>> mean.shape, log_variance.shape
        (torch.Size([5, 16]), torch.Size([5, 16]))
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int = 48) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        for _ in range(halvings(size)):
            layers.append(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False))
            width *= 2
            layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.mean = nn.Conv2d(width, latent_dim, 4)
        self.log_variance = nn.Conv2d(width, latent_dim, 4)
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` (B, C, S, S) in [-1, 1] to the mean and the log-variance, both (B, latent_dim)."""
        check_input(x, self.image_shape, self)
        features = self.body(x)
        return self.mean(features).flatten(1), self.log_variance(features).flatten(1)


class ConvDecoder(nn.Module):
    """Generator of BiDVL's code: transposed convolutions from a 4x4 map up, the mean of p(v|h).

    A transposed 4x4 convolution makes the 4x4 map, others of stride 2 double it, the first keeping and the
    rest halving the width, each with BatchNorm and ReLU; a transposed 3x3 convolution and tanh make the
    image. The defaults are the networks for 32 px (4.5M parameters with a latent code of 100) and 64 px
    (16.9M). Kan et al., "Bi-level Doubly Variational Learning for Energy-based Latent Variable Models"
    (2022), section 5.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128.
        latent_dim: size of the latent code.
        width: half the channels of the largest map.

    Raises:
        ValueError: on another image size, or a code of another size.

    Example:
        >>> import torch
        >>> ConvDecoder((3, 32, 32), latent_dim=16, width=4)(torch.zeros(5, 16)).shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int = 48) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        doublings = halvings(size)
        before = width * 2**doublings
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, before, 4, bias=False)]
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        for level in range(doublings, 0, -1):
            outputs = width * 2**level
            layers.append(nn.ConvTranspose2d(before, outputs, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            before = outputs
        layers += [nn.ConvTranspose2d(before, channels, 3, padding=1), nn.Tanh()]
        self.net = nn.Sequential(*layers)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map `z` (B, latent_dim) to the mean image (B, C, S, S) in (-1, 1)."""
        check_input(z, (self.latent_dim,), self)
        return self.net(z[:, :, None, None])


class ConvEnergy(nn.Module):
    """Energy of BiDVL's code: convolutions with spectral norm and leaky ReLU (0.1).

    3x3 convolutions double the width and 4x4 ones of stride 2 halve the map in turn until it has 4x4 pixels;
    a 4x4 convolution and two 1x1 ones, the last to one channel, read the energy off it. Every convolution has
    spectral norm and a bias. The defaults are the networks for 32 px (7.4M parameters) and 64 px (29.7M). Kan
    et al., "Bi-level Doubly Variational Learning for Energy-based Latent Variable Models" (2022), section 5.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128.
        width: channels of the first convolution.
        output: `"softplus"` bounds the energy below by 0, as the published code does; `"linear"` does not.

    Raises:
        ValueError: on an unknown output, another image size, or another input shape.

    Example:
        >>> import torch
        >>> ConvEnergy((3, 32, 32), width=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int = 64,
        output: Literal["softplus", "linear"] = "softplus",
    ) -> None:
        super().__init__()
        channels, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        convolutions = [nn.Conv2d(channels, width, 3, padding=1)]
        for _ in range(halvings(size)):
            convolutions.append(nn.Conv2d(width, width, 4, stride=2, padding=1))
            convolutions.append(nn.Conv2d(width, 2 * width, 3, padding=1))
            width *= 2
        convolutions += [nn.Conv2d(width, width, 4), nn.Conv2d(width, width, 1), nn.Conv2d(width, 1, 1)]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, nn.LeakyReLU(0.1)]
        self.net = nn.Sequential(*layers[:-1], pick(OUTPUTS, output, "output")())
        initialise(self)
        for convolution in convolutions:
            spectral_norm(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, S, S) in [-1, 1] to one energy per image (B,)."""
        check_input(x, self.image_shape, self)
        return self.net(x).flatten()
