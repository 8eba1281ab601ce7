"""Which networks keep their maps in channels-last order on a GPU: each as it was measured there."""

from __future__ import annotations

import torch
from torch import nn

from .dual_mcmc import DualMCMCEnergy
from .resnet_energy import MultiScaleResNetEnergy, VAEBMEnergy
from .sngan import SNGANDecoder

__all__ = ["CHANNELS_LAST", "order_for_gpu"]

CHANNELS_LAST: dict[type[nn.Module], str] = {
    VAEBMEnergy: "a chain's step at batch 512, bf16: 9.2 to 8.4 ms",
    MultiScaleResNetEnergy: "a chain's step at batch 128, bf16: 7.1 to 5.9 ms",
    SNGANDecoder: "its gradient at batch 100: 94 to 23 ms, bf16 91 to 20",
    DualMCMCEnergy: "its gradient at batch 100, bf16: 5.0 to 4.4 ms",
}
"""Networks that gain by it, and what (one H200, docs/speed.md). EC-VAE's `FastGANDecoder` loses, 14.6 to 17 ms; the
others have not been measured, and stay as torch has them."""


def order_for_gpu(module: nn.Module) -> None:
    """Bring the kernels of those networks within a module into channels-last order: their maps follow.

    Values, names and shapes are the same; so are checkpoints.

    Example:
        >>> energy = VAEBMEnergy((1, 8, 8), column="stacked_mnist", width=8)
        >>> order_for_gpu(nn.Sequential(energy))
        >>> energy.blocks[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    for part in module.modules():
        if type(part) in CHANNELS_LAST:
            part.to(memory_format=torch.channels_last)
