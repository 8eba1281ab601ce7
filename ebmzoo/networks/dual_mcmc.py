"""The energy and the inference network of Dual-MCMC's code; its generator is `SNGANDecoder`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ebmzoo.networks.dcgan import halvings
from ebmzoo.networks.layers import check_input, check_square
from ebmzoo.networks.sngan import SIZES, WIDEST, DownBlock, start


class DualMCMCEncoder(nn.Module):
    """Gaussian encoder q(z|x) of Dual-MCMC's code: convolutions without normalisation.

    4x4 convolutions of stride 2 with leaky ReLU (0.2), each twice as wide as the one before, until the map has 4x4
    pixels; two 4x4 convolutions read mean and log-variance off it. Up to 32 px a 3x3 convolution that keeps the size
    comes first, so that the defaults have 15.2M parameters at 32 px and at 64 px alike (latent code of 128); by the
    same rule 256 px are brought to 1024 channels from a width of 32. Weights start Xavier-normal, biases from 0.
    Cui and Han, "Learning Energy-based Model via Dual-MCMC Teaching" (2023), Table 9.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128, 256.
        latent_dim: size of the latent code.
        width: channels of the first convolution.

    Raises:
        ValueError: on another image size, or another input shape.

    Example:
        >>> import torch
        >>> mean, log_variance = DualMCMCEncoder((3, 32, 32), latent_dim=16, width=4)(torch.zeros(5, 3, 32, 32))
        >>> mean.shape, log_variance.shape
        (torch.Size([5, 16]), torch.Size([5, 16]))
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, width: int = 128) -> None:
        super().__init__()
        before, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        self.body = nn.Sequential()
        if size <= 32:
            self.body.extend([nn.Conv2d(before, width, 3, padding=1), nn.LeakyReLU(0.2)])
            before, width = width, 2 * width
        for _ in range(halvings(size)):
            self.body.extend([nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)])
            before, width = width, 2 * width
        self.mean, self.log_variance = nn.Conv2d(before, latent_dim, 4), nn.Conv2d(before, latent_dim, 4)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x` (B, C, S, S) in [-1, 1] to the mean and the log-variance, both (B, latent_dim)."""
        check_input(x, self.image_shape, self)
        features = self.body(x)
        return self.mean(features).flatten(1), self.log_variance(features).flatten(1)


class DualMCMCEnergy(nn.Module):
    """Residual energy of Dual-MCMC's code: SNGAN's discriminator without biases, the raw output.

    The blocks of `SNGANEnergy`; then ReLU, global **mean** pooling and one linear layer, all with spectral norm. Up to
    32 px two blocks that halve the map and two that keep it, all of one width, the paper's nef (16.8M parameters with
    512); above, blocks that halve until the map has 2x2 pixels, the first of width 64, each twice as wide as the one
    before, up to 1024 (19.5M at 64 px). Cui and Han, "Learning Energy-based Model via Dual-MCMC Teaching" (2023),
    Tables 7 and 9.

    Args:
        image_shape: (C, S, S), S one of 8, 16, 32, 64, 128, 256.
        width: channels of the first block; 512 up to 32 px (the paper: 256, 512, 1024) and 64 above when not given.

    Raises:
        ValueError: on another image size, or another input shape.

    Example:
        >>> import torch
        >>> DualMCMCEnergy((3, 32, 32), width=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5])
    """

    channels_last_on_gpu = True  # its gradient at batch 100, bf16: 5.0 to 4.4 ms

    def __init__(self, image_shape: tuple[int, ...], width: int | None = None) -> None:
        super().__init__()
        before, size = check_square(image_shape, SIZES, self)
        self.image_shape = tuple(image_shape)
        if size <= 32:
            plan = [(width or 512, down) for down in (True, True, False, False)]
        else:
            plan = [((width or 64) * min(2**level, WIDEST), True) for level in range(halvings(size) + 1)]
        self.blocks = nn.Sequential()
        for index, (outputs, down) in enumerate(plan):
            self.blocks.append(DownBlock(before, outputs, down, first=index == 0, bias=False))
            before = outputs
        linear = nn.Linear(before, 1, bias=False)
        start(linear)
        self.linear = spectral_norm(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, C, S, S) in [-1, 1] to one energy per image (B,)."""
        check_input(x, self.image_shape, self)
        return self.linear(F.relu(self.blocks(x)).mean(dim=(2, 3))).squeeze(1)
