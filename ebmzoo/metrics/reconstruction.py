"""How well examples are reconstructed: squared error, PSNR and SSIM."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

_RANGE = 2.0  # images are in [-1, 1]


class ReconstructionErrors(NamedTuple):
    """One value per image, ``(B,)`` each.

    Attributes:
        mse: mean squared error over pixels and channels, in [-1, 1] units.
        psnr: peak signal-to-noise ratio, dB; the peak is the range of 2.
        ssim: structural similarity, at most 1.
    """

    mse: Tensor
    psnr: Tensor
    ssim: Tensor


def ssim_window(side: int) -> int:
    """Side of SSIM's Gaussian window: 11 (σ = 1.5) as published, smaller for images under 20 px.

    Example:
        >>> ssim_window(64), ssim_window(8)
        (11, 5)
    """
    return 2 * min(5, side // 4) + 1


def reconstruction_errors(x: Tensor, reconstruction: Tensor) -> ReconstructionErrors:
    """Errors of reconstructed images, clamped to [-1, 1] first, in float64.

    PSNR as 10 log₁₀(2²/MSE); SSIM of Wang et al. 2004 over all pixels, the image mirrored at its
    border (torchmetrics' way).

    Args:
        x: images ``(B, C, H, W)`` in [-1, 1].
        reconstruction: of the same shape.

    Raises:
        ValueError: for other shapes, or images under 4 px.

    Example:
        >>> x = torch.zeros(1, 1, 8, 8)
        >>> found = reconstruction_errors(x, x + 0.2)
        >>> round(found.mse.item(), 6), round(found.psnr.item(), 4)
        (0.04, 20.0)
    """
    if x.shape != reconstruction.shape or x.ndim != 4 or min(x.shape[2:]) < 4:
        raise ValueError(f"images (B, C, H, W) of 4 px or more, not {tuple(x.shape)}, {tuple(reconstruction.shape)}")
    x, again = x.double().clamp(-1, 1), reconstruction.double().clamp(-1, 1)
    reach = ssim_window(min(x.shape[2:])) // 2
    dims = tuple(range(1, x.ndim))
    # torchmetrics takes the window from σ, as 2·int(3.5 σ + 0.5) + 1.
    ssim = structural_similarity_index_measure(
        again, x, sigma=1.5 if reach == 5 else reach / 3.5, data_range=_RANGE, reduction="none"
    )
    return ReconstructionErrors(
        (x - again).square().mean(dims),
        peak_signal_noise_ratio(again, x, data_range=_RANGE, dim=dims, reduction="none"),
        torch.as_tensor(ssim).reshape(len(x)),
    )
