"""Denoising-EBM's two energies, and the two-stage chains on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ebmzoo.mcmc import AnnealedLangevin, Chain, Noise, Potential, Watch, frozen
from ebmzoo.mcmc.potential import per_example, squared_norm

__all__ = ["Chains", "Kernel", "Semantic", "Start", "Texture", "TwoStage"]

Kernel = Literal["gradient", "residual"]
Start = Literal["semantic", "noise"]


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
        self.denoiser, self.kernel = denoiser, kernel
        self.sigma = sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=torch.float64)  # x's in the end
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


class Chains(NamedTuple):
    """What `TwoStage` returns: z^K (None without a first stage), x^0, and the chain from x^0 to x^T."""

    z: Tensor | None
    start: Tensor
    texture: Chain


@dataclass(frozen=True)
class TwoStage:
    """Chains in z on the semantic energy, then in x on the texture energy (Algorithm 1, lines 7 to 13).

    Args:
        semantic: K steps from z ~ N(0, I), Eq. 15.
        texture: T steps from x = h(z), Eq. 16.
        kernel: see `Texture`.
        start: "semantic" as above, or "noise": no first stage, x ~ N(0, start_sigma²·I).
        start_sigma: of that noise.
        denoise_sigma: σ of a last step x ← r(x, σ) after texture steps; None for none. It is not part of what is
            returned here: training contrasts the chain's own ends.
    """

    semantic: AnnealedLangevin
    texture: AnnealedLangevin
    kernel: Kernel = "gradient"
    start: Start = "semantic"
    start_sigma: float = 1.0
    denoise_sigma: float | None = None

    @property
    def step_size(self) -> float:
        """Of the texture chain, in units of σ²."""
        return self.texture.step_size

    @property
    def temperature(self) -> float:
        """Of the texture chain."""
        return self.texture.temperature

    def __call__(
        self,
        n: int,
        denoiser: Any,
        decoder: Any,
        noise: Noise,
        like: Tensor,
        steps: int | None = None,
        watch: Watch | None = None,
    ) -> Chains:
        """Run ``n`` chains, both networks frozen.

        Args:
            n: number of chains.
            denoiser: r, which knows its image_shape and its latent_dim.
            decoder: h.
            noise: the source of every random number.
            like: a tensor of the device and dtype wanted.
            steps: of the texture chain; None is its own number.
            watch: sees the texture chain.
        """
        shape, z = denoiser.image_shape, None
        if self.start == "noise":
            x = self.start_sigma * noise.normal((n, *shape), like)
        else:
            z = noise.normal((n, denoiser.latent_dim), like)
            z = self.semantic(Semantic(denoiser, decoder), z, noise).x
            with torch.no_grad(), frozen(decoder):
                x = decoder(z).to(z.dtype)
        return Chains(z, x, self.texture(Texture(denoiser, self.kernel), x, noise, steps=steps, watch=watch))
