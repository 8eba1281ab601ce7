"""A VAE with one Gaussian latent vector, from any encoder and decoder."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ebmzoo.factories import DecoderFactory, DistanceFactory, EncoderFactory, PriorFactory, build
from ebmzoo.parts.gaussian import Gaussian

from .latent_vae import Bound, Draw, Latents, LatentVAE


class GaussianVAE(LatentVAE):
    """VAE with p(z) = N(0, I) or a learned prior, q(z|x) from an encoder and p(x|z) = N(x; decoder(z), σ²I).

    Args:
        image_shape: shape of one example.
        encoder: makes the inference network from (image_shape, latent_dim); it returns mean and log-variance.
        decoder: makes the generator from (image_shape, latent_dim).
        latent_dim: size of z.
        sigma: standard deviation of the decoder, in the data's units, or "learned" (one number for all pixels).
        kl_weight: β.
        prior: makes the prior p(z) from latent_dim, trained by its log-density of the codes; None is N(0, I).
        distance: makes what stands for ‖x − decoder(z)‖² in the loss from image_shape, such as LPIPS; the bounds that
            are reported keep the squared error.
        log_variance_bound: b > 0: q's log-variance is b·tanh(l/b), l what the encoder says; None leaves it.

    Raises:
        ValueError: the code has no number.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> vae = GaussianVAE((1, 8, 8), MLPEncoder, MLPDecoder, latent_dim=4)
        >>> vae.generate(torch.zeros(2, 4)).mean.shape
        torch.Size([2, 1, 8, 8])
    """

    log_sigma: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        encoder: EncoderFactory,
        decoder: DecoderFactory,
        latent_dim: int = 128,
        sigma: float | Literal["learned"] = "learned",
        kl_weight: float = 1.0,
        prior: PriorFactory | None = None,
        distance: DistanceFactory | None = None,
        log_variance_bound: float | None = None,
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"a code has at least one number, not latent_dim {latent_dim}")
        self.image_shape, self.noise_shapes, self.kl_weight = tuple(image_shape), ((latent_dim,),), kl_weight
        self.encoder = build(encoder, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.prior: Any = None if prior is None else build(prior, latent_dim)
        self.distance = None if distance is None else build(distance, self.image_shape)
        self.log_variance_bound = log_variance_bound
        if sigma == "learned":
            self.log_sigma = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
            self.least_sigma = sigma

    def evaluate(self, *z: Tensor) -> Latents:
        (code,) = z
        zero = code.new_zeros(())
        x = Gaussian(self.decoder(code).to(code.dtype), self.log_sigma)
        return Latents((code,), (Gaussian(zero, zero),), x)

    def generate(self, *noise: Tensor) -> Latents:
        (code,) = noise
        return self.evaluate(code if self.prior is None else self.prior.sample(code).to(code.dtype))

    def draw(self, n: int, noise: Any, like: Tensor, temperature: float = 1.0) -> Tensor:
        (code,) = self.white(n, noise, like)
        code = code * temperature
        if self.prior is None:
            return code
        with torch.no_grad():
            return self.prior.sample(code).to(code.dtype)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x)."""
        mean, log_variance = (value.to(x.dtype) for value in self.encoder(x))
        if (bound := self.log_variance_bound) is not None:
            log_variance = bound * torch.tanh(log_variance / bound)
        return Gaussian(mean, 0.5 * log_variance)

    def infer(self, x: Tensor, draw: Draw) -> Latents:
        posterior = self.posterior(x)
        z = posterior.draw(draw(posterior.mean.shape))
        return self.evaluate(z)._replace(posterior=(posterior,))

    def encode(self, x: Tensor) -> Gaussian:
        return self.posterior(x)

    def log_prior(self, z: Tensor) -> Tensor:
        if self.prior is not None:
            return self.prior.log_prob(z).to(z.dtype)
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.posterior(x).mean)

    def generator(self) -> list[nn.Module | nn.Parameter]:
        learned = [self.log_sigma] if isinstance(self.log_sigma, nn.Parameter) else []
        return [self.decoder, *([self.prior] if self.prior else []), *learned]

    def networks(self) -> dict[str, nn.Module]:
        """What is evaluated, each by itself."""
        prior = {} if self.prior is None else {"prior": self.prior}
        return {"encoder": self.encoder, "decoder": self.decoder, **prior}

    def _log_prior(self, latents: Latents) -> Tensor:
        return super()._log_prior(latents) if self.prior is None else self.log_prior(latents.z[0])

    def _kl(self, latents: Latents) -> Tensor:
        """Exact against N(0, I); else an estimate, −log p at the draw less the posterior's exact entropy."""
        (posterior,), (z,) = latents.posterior, latents.z
        kl = posterior.kl() if self.prior is None else -self.log_prior(z) - posterior.entropy()
        return kl[None]

    def _misfit(self, x: Tensor, bound: Bound) -> Tensor:
        if self.distance is None:
            return super()._misfit(x, bound)
        return 0.5 * (-2 * self.log_sigma).exp() * self.distance(bound.latents.mean, x)
