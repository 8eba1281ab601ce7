"""Interpolation between latent codes, shown by what the generator makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmzoo.methods.capabilities import Decodes

_PARALLEL = 1e-4  # radians: below it an arc is a line to float32


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Spherical interpolation: along the arc between two directions, the length changing linearly.

    Codes drawn from N(0, I) have a length of about √latent_dim, and so has every code on this path; on a straight
    line the middle is shorter than anything the generator has seen.

    Args:
        a: where t = 0, ``(B, d)``.
        b: where t = 1, ``(B, d)``; opposite directions have no shortest arc, and give a straight line.
        t: in [0, 1], a number or ``(B, 1)``.

    Returns:
        ``(B, d)``; exactly ``a`` and ``b`` at the ends.

    Example:
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0]]), 0.5)
        tensor([[1.7678, 1.7678]])
    """
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device)
    lengths = [x.norm(dim=1, keepdim=True) for x in (a, b)]
    units = [x / length.clamp_min(1e-30) for x, length in zip((a, b), lengths, strict=True)]
    angle = (units[0] * units[1]).sum(1, keepdim=True).clamp(-1, 1).acos()
    flat = angle.sin() < _PARALLEL
    sine = torch.where(flat, torch.ones_like(angle), angle.sin())
    direction = (((1 - t) * angle).sin() * units[0] + (t * angle).sin() * units[1]) / sine
    arc = ((1 - t) * lengths[0] + t * lengths[1]) * direction
    path = torch.where(flat, (1 - t) * a + t * b, arc)
    return torch.where(t == 0, a, torch.where(t == 1, b, path))


@torch.no_grad()
def interpolate(model: Decodes, a: Tensor, b: Tensor, frames: int = 9) -> Tensor:
    """What the generator makes of equally spaced codes between ``a`` and ``b``, both included.

    Args:
        model: a method that `Decodes`.
        a: ``(B, latent_dim)``.
        b: ``(B, latent_dim)``.
        frames: 2 or more.

    Returns:
        ``(frames, B, *image_shape)``.

    Raises:
        ValueError: fewer than two frames.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.methods import VAE
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> from ebmzoo.parts import GaussianVAE
        >>> model = VAE((1, 8, 8), partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4))
        >>> interpolate(model, torch.zeros(3, 4), torch.ones(3, 4), frames=5).shape
        torch.Size([5, 3, 1, 8, 8])
    """
    if frames < 2:
        raise ValueError(f"an interpolation has two frames or more, not {frames}")
    return torch.stack([model.decode(slerp(a, b, k / (frames - 1))) for k in range(frames)])
