"""Denoising-EBM's two energies: what a denoiser leaves of x, less x."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ebmzoo.mcmc import AnnealedLangevin, Noise, Potential, as_noise
from ebmzoo.mcmc.potential import per_example, squared_norm

Kernel = Literal["gradient", "residual"]


class Texture(Potential):
    """U_c(x, σ) = ‖x − r(x̃, σ)‖²/2σ² with x̃ = x + σ·ε (Eq. 7), σ and ε new at each step of a chain.

    U_c counts the score twice: exp(−U_c) is not the density of the data, see `chain_std`.

    Args:
        denoiser: r, from (x̃, σ) to the denoised x and a code.
        kernel: whether gradients go through r (Eq. 21), or not: then that of x is the residual (x − r)/σ².
        sigma: σ, a number or one for each example ``(B,)``; a chain's sampler has its own.
        eps: white noise ε, shaped like x; a chain draws it.
    """

    redraws: ClassVar[bool] = True
    eps: Tensor

    def __init__(
        self, denoiser: Any, kernel: Kernel = "gradient", sigma: float | Tensor = 1.0, eps: Tensor | None = None
    ):
        super().__init__()
        self.denoiser, self.kernel = denoiser, kernel
        self.sigma = sigma if isinstance(sigma, Tensor) else torch.full((), float(sigma))
        if eps is not None:
            self.eps = eps

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        self.sigma = self.sigma if level is None else x.new_full((), level)
        self.eps = noise.normal((len(x), *self.denoiser.image_shape), x)

    def forward(self, x: Tensor) -> Tensor:
        sigma = self.sigma.to(x).expand(len(x))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.kernel == "gradient"):
            r = self.denoiser(x + per_example(sigma, x) * self.eps, sigma)[0].to(x.dtype)
        return squared_norm(x - r) / (2 * sigma.square())


class Semantic(Texture):
    """U_s(z, σ) = U_c(h(z), σ) (Eq. 8).

    Args:
        denoiser: r.
        decoder: h, of ``(B, latent_dim)``.
        at: σ and ε, as of `Texture`.
    """

    def __init__(self, denoiser: Any, decoder: Callable[[Tensor], Tensor], **at: Any):
        super().__init__(denoiser, **at)
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(self.decoder(z).to(z.dtype))


class Averaged(Potential):
    """U_c at one σ, averaged over fixed ε, the same for every example and on every device.

    Args:
        denoiser: r, which knows its image_shape.
        sigma: σ.
        draws: number of ε.
    """

    def __init__(self, denoiser: Any, sigma: float, draws: int):
        super().__init__()
        self.denoiser, self.sigma, self.draws = denoiser, sigma, draws

    def forward(self, x: Tensor) -> Tensor:
        source, total = as_noise(0), x.new_zeros(len(x))  # on the CPU: draws do not depend on the device
        sigma = x.new_full((), self.sigma)  # a number would become one of fp32
        for _ in range(self.draws):
            eps = source.normal(self.denoiser.image_shape).to(x).expand_as(x)
            total = total + Texture(self.denoiser, sigma=sigma, eps=eps)(x)
        return total / self.draws


def chain_std(
    sampler: AnnealedLangevin, data_std: float = 0.0, *, kernel: Kernel = "gradient", steps: int | None = None
) -> float:
    """How wide a chain on `Texture` ends that begins at the data's mean: the standard deviation of a coordinate.

    The law is exact, ε and steps of finite length included, where the data are N(0, s²) and r is their best denoiser:
    r(x̃, σ) = k·x̃, k = s²/(s² + σ²), makes each step of size h linear, with q = 1 − k:

        gradient: x ← (1 − h·q²/2)·x + (h/2)·q·k·σ·ε + σ·√(h·T)·ξ,
        residual: x ← (1 − h·q/2)·x + (h/2)·k·σ·ε + σ·√(h·T)·ξ.

    Short steps that have settled at one σ have by the gradient the variance T·σ²(1 + s²/σ²)², which is least at σ = s,
    4T·s², so at T = 1 (the paper's) twice the data's width or more at every σ, and that of the data at σ = s, T = 1/4;
    by the residual T·(s² + σ²). They settle in 2(1 + s²/σ²)²/h steps, at σ = s in 8/h. s = 0 is what is off the data's
    manifold: there 2/h steps settle on √T·σ, the noise that the samples are left with.

    Args:
        sampler: the chain: its step sizes, temperature and noise levels; its bounds and clamps are not counted.
        data_std: s, the standard deviation of the data in that direction, in their units.
        kernel: as of `Texture`.
        steps: length of the chain; None is the sampler's own.

    Example:
        >>> round(chain_std(AnnealedLangevin(2000, 0.01, temperature=0.25, sigma=0.3), data_std=0.3), 2)
        0.3
    """
    h, variance = sampler.step_size, 0.0
    for sigma in sampler.sigmas(steps):
        k = data_std**2 / (data_std**2 + sigma**2)
        through = 1 - k if kernel == "gradient" else 1.0  # Eq. 21's second factor
        kept, of_eps = 1 - h / 2 * (1 - k) * through, h / 2 * k * through * sigma
        variance = kept**2 * variance + of_eps**2 + h * sampler.temperature * sigma**2
    return math.sqrt(variance)
