"""What methods answer by a part of theirs: an energy, a VAE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ebmzoo.mcmc import Noise, as_noise
from ebmzoo.parts.energy import Energy
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.parts.latent_vae import Bound, LatentVAE


class AnswersByEnergy:
    """Of a method with an energy ``ebm``."""

    ebm: Energy

    def energy(self, x: Tensor) -> Tensor:
        """The raw network output E(x), ``(B,)``; low means likely."""
        return self.ebm(x)

    def score(self, x: Tensor) -> Tensor:
        """−E(x), ``(B,)``: high means in-distribution."""
        return -self.energy(x)


class AnswersByChains(AnswersByEnergy):
    """Of one whose energy learns from chains of ``sampler`` on it: its density is exp(−E/T), with the chains' T."""

    sampler: Any

    def log_density(self, x: Tensor) -> Tensor:
        """−E(x)/T up to log Z, ``(B,)`` nats.

        Raises:
            ValueError: the training chain has T = 0, which teaches the energy no density.
        """
        if not self.sampler.temperature:
            raise ValueError("an energy that was trained at temperature 0 has learnt no density")
        return -self.energy(x) / self.sampler.temperature


class AnswersByCode:
    """Of a method with a code z, its prior, a generator and an inference network, the parts of ``vae``.

    Attributes:
        latent_temperature: standard deviation of the white noise that `draw_latents` draws: 1 is the model's own;
            below 1 samples are more typical and less varied, as with Glow and NVAE.
    """

    vae: LatentVAE
    latent_temperature: float = 1.0

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions, all groups together."""
        return self.vae.latent_dim

    def draw_latents(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """``(n, latent_dim)`` codes from the prior to generate from, which no gradient reaches."""
        return self.vae.draw(n, noise, like, self.latent_temperature)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), ``(B,)`` nats."""
        return self.vae.log_prior(z)

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x): mean and log σ, both ``(B, latent_dim)``; below the top group, given the means above."""
        return self.vae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z), ``(B, *image_shape)``; it may leave [-1, 1]: `ebmzoo.images.to_uint8` clamps and rounds."""
        return self.vae.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoded posterior means, ``(B, *image_shape)``, not clamped either."""
        return self.vae.reconstruct(x)


class AnswersByVAE(AnswersByCode):
    """Of a method with a VAE ``vae``, whose likelihood p(x|z) has a meaning."""

    noise: Noise

    def elbo(self, x: Tensor, noise: Noise | None = None) -> Bound:
        """The evidence lower bound and its pieces with one posterior draw, nats."""
        return self.vae.bound(x, noise or self.noise)

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """Importance-weighted lower bound of the VAE's log p(x) with ``samples`` draws, ``(B,)`` nats."""
        return self.vae.log_likelihood_bound(x, samples, as_noise(noise, x.device))
