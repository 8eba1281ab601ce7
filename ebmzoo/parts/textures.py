"""Denoising-EBM's two energies: what a denoiser leaves of x, less x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise, Potential, as_noise
from ebmzoo.mcmc.potential import per_example, squared_norm

__all__ = ["Averaged", "Kernel", "Semantic", "Texture"]

Kernel = Literal["gradient", "residual"]


class Texture(Potential):
    """U_c(x, σ) = ‖x − r(x̃, σ)‖²/2σ² with x̃ = x + σ·ε (Eq. 7), σ and ε new at each step of a chain.

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
        self.denoiser, self.kernel, self.sigma = denoiser, kernel, torch.as_tensor(sigma)
        if eps is not None:
            self.eps = eps

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        self.sigma = self.sigma if level is None else x.new_tensor(level)
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
        sigma = x.new_tensor(self.sigma)  # a number would become one of fp32
        for _ in range(self.draws):
            eps = source.normal(self.denoiser.image_shape).to(x).expand_as(x)
            total = total + Texture(self.denoiser, sigma=sigma, eps=eps)(x)
        return total / self.draws
