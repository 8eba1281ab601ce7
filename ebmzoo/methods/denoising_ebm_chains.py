"""Denoising-EBM's two energies, and the two-stage chains on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ebmzoo.mcmc import AnnealedLangevin, Noise, frozen
from ebmzoo.mcmc.chain import Callback, Chain, per_example
from ebmzoo.objectives import squared_error

__all__ = ["Chains", "Kernel", "Start", "TwoStage", "semantic_energy", "texture_energy"]

Kernel = Literal["gradient", "residual"]
Start = Literal["semantic", "noise"]


def texture_energy(
    denoiser: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    eps: Tensor,
    sigma: float | Tensor,
    *,
    kernel: Kernel = "gradient",
) -> Tensor:
    """U_c(x, σ) = ‖x − r(x̃, σ)‖²/2σ² with x̃ = x + σ·ε (Eq. 7), ``(B,)``.

    Args:
        denoiser: r, from (x̃, σ) to the denoised x and a code.
        x: ``(B, *image_shape)``.
        eps: white noise ε, shaped like ``x``.
        sigma: a number, or one for each example ``(B,)``.
        kernel: whether gradients go through r (Eq. 21), or not: then that of x is the residual (x − r)/σ².
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
    with torch.set_grad_enabled(torch.is_grad_enabled() and kernel == "gradient"):
        r = denoiser(x + per_example(sigma, x) * eps, sigma)[0].to(x.dtype)
    return squared_error(x, r) / (2 * sigma.square())


def semantic_energy(
    denoiser: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    decoder: Callable[[Tensor], Tensor],
    z: Tensor,
    eps: Tensor,
    sigma: float | Tensor,
) -> Tensor:
    """U_s(z, σ) = U_c(h(z), σ) (Eq. 8), ``(B,)``; ``decoder`` is h, z ``(B, latent_dim)``."""
    return texture_energy(denoiser, decoder(z).to(z.dtype), eps, sigma)


class Chains(NamedTuple):
    """What `TwoStage` returns: z^K (None without a first stage), x^0, and the chain from x^0 to x^T."""

    z: Tensor | None
    start: Tensor
    texture: Chain[Tensor]


@dataclass(frozen=True)
class TwoStage:
    """Chains in z on the semantic energy, then in x on the texture energy (Algorithm 1, lines 7 to 13).

    Args:
        semantic: K steps from z ~ N(0, I), Eq. 15.
        texture: T steps from x = h(z), Eq. 16.
        kernel: see `texture_energy`.
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
        callback: Callback | None = None,
    ) -> Chains:
        """Run ``n`` chains, both networks frozen.

        Args:
            n: number of chains.
            denoiser: r, which knows its image_shape and its latent_dim.
            decoder: h.
            noise: the source of every random number.
            like: a tensor of the device and dtype wanted.
            steps: of the texture chain; None is its own number.
            callback: sees the texture chain.
        """
        shape, z = denoiser.image_shape, None
        call: dict[str, Any] = {"noise": noise, "draws": [shape]}
        if self.start == "noise":
            x = self.start_sigma * noise.normal((n, *shape), like)
        else:
            z = noise.normal((n, denoiser.latent_dim), like)
            potential = partial(semantic_energy, denoiser, decoder)
            z = self.semantic(potential, z, networks=[denoiser, decoder], **call).state
            with torch.no_grad(), frozen(decoder):
                x = decoder(z).to(z.dtype)
        potential = partial(texture_energy, denoiser, kernel=self.kernel)
        return Chains(z, x, self.texture(potential, x, networks=[denoiser], steps=steps, callback=callback, **call))
