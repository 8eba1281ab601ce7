"""The variational autoencoder: the baseline of every paper on this shelf."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ebmzoo.mcmc import Noise, SharedNoise, Watch, as_noise
from ebmzoo.objectives import squared_error

from .base import (
    DecoderFactory,
    EncoderFactory,
    ImageShape,
    Method,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)
from .mixins import Autoencoding


class VAE(Autoencoding, Method):
    """Variational autoencoder with a Gaussian decoder.

    Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014; EC-VAE section 2.2.
    Idea: maximise a lower bound of the likelihood with an inference network.

    Equation: ELBO = E_q(z|x)[log N(x; decoder(z), σ²I)] − β·KL(q(z|x) ‖ N(0, I)), β = 1 in the paper.

    Algorithm, one iteration:
        1. Infer q(z|x) for a batch of data and draw z.
        2. Ascend the bound in encoder and decoder (and σ, where it is learned).

    Args:
        image_shape: shape of one example.
        encoder: makes the inference network from (image_shape, latent_dim).
        decoder: makes the generator from (image_shape, latent_dim).
        latent_dim: size of z.
        sigma: standard deviation of the decoder, in the data's units, or "learned" (one number for all pixels).
        kl_weight: β.
        optimizer: makes the optimiser.
        schedule: makes its learning-rate schedule, stepped every iteration.
        grad_clip: largest norm of the gradient.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> vae = VAE((1, 8, 8), MLPEncoder, MLPDecoder, latent_dim=4)
        >>> vae.sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    log_sigma: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        encoder: EncoderFactory,
        decoder: DecoderFactory,
        latent_dim: int = 128,
        sigma: float | Literal["learned"] = "learned",
        kl_weight: float = 1.0,
        optimizer: OptimizerFactory = spec(Adam, lr=1e-3),
        schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.encoder = build(encoder, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.prior, self.latent_dim, self.kl_weight = None, latent_dim, kl_weight
        if sigma == "learned":
            self.log_sigma = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
        self._optimizer_factory, self._schedule_factory = optimizer, schedule

    def players(self) -> dict[str, Any]:
        own = [self.log_sigma] if isinstance(self.log_sigma, nn.Parameter) else []
        return {"vae": ([self.encoder, self.decoder, *own], self._optimizer_factory, self._schedule_factory)}

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of the algorithm above."""
        bound = self.elbo(self.data(batch))
        loss = (self.kl_weight * bound.kl - bound.log_likelihood).mean()
        self.update("vae", loss, clock=True)
        self.report(
            {"train/loss_vae": loss, "train/kl": bound.kl, "train/sigma": self.log_sigma.exp()},
            show=["train/loss_vae"],
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """ELBO and reconstruction error on held-out data."""
        x = self.data(batch)
        bound = self.elbo(x, self.validation_noise(batch_idx))
        self.log("val/elbo", bound.bound.mean(), sync_dist=True)
        self.log("val/mse", squared_error(self.reconstruct(x), x).mean() / x[0].numel(), sync_dist=True)

    def score(self, x: Tensor) -> Tensor:
        """The ELBO, ``(B,)`` nats, with one fixed draw for all: high means in-distribution."""
        return self.elbo(x, SharedNoise.of_seed(0, x.device)).bound

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Decoder means of ``n`` prior draws, ``(n, *image_shape)``; a VAE has no chain to step or to watch."""
        if steps:
            raise ValueError("a VAE samples in one step: it has no chain, so --steps cannot be given")
        return self.decode(self.draw_latents(n, as_noise(noise, self.device), self.like))
