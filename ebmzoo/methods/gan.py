"""The generative adversarial network: the baseline of EC-VAE's 25 Gaussians."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Noise, Watch, as_noise, frozen

from .base import (
    DecoderFactory,
    EnergyFactory,
    ImageShape,
    Method,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)


class GAN(Method):
    """Generative adversarial network with the non-saturating loss.

    Paper: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; EC-VAE's figure 4.
    Idea: a generator learns from a discriminator that learns to tell its samples from data.

    Equations, with D(x) = sigmoid(discriminator(x)) the probability that x is data:
        discriminator: −log D(x) − log(1 − D(G(z))).
        generator: −log D(G(z)).

    Algorithm 1, one iteration:
        1. A number of times: draw z ~ N(0, I) and update the discriminator on data and G(z).
        2. Draw z and update the generator.

    Where we differ from the paper: the discriminator's updates of one iteration see the same batch of data. Its output
    is no energy: at its optimum it is log p(x)/p_G(x), which is flat once the generator is good.

    Args:
        image_shape: shape of one example.
        generator: makes the generator from (image_shape, latent_dim); any decoder is one.
        discriminator: makes the discriminator, one logit per example, from image_shape; any energy is one.
        latent_dim: size of z.
        discriminator_steps: updates of the discriminator per iteration; the paper: 1.
        generator_optimizer: makes the generator's optimiser.
        discriminator_optimizer: makes the discriminator's.
        generator_schedule: makes the generator's learning-rate schedule, stepped every iteration.
        discriminator_schedule: makes the discriminator's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no update of the discriminator.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEnergy
        >>> GAN((2,), MLPDecoder, MLPEnergy, latent_dim=4).sample(3, noise=0).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        image_shape: ImageShape,
        generator: DecoderFactory,
        discriminator: EnergyFactory,
        latent_dim: int = 128,
        discriminator_steps: int = 1,
        generator_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.5, 0.999]),
        discriminator_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.5, 0.999]),
        generator_schedule: ScheduleFactory | None = None,
        discriminator_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if discriminator_steps < 1:
            raise ValueError(f"discriminator_steps must be at least 1, not {discriminator_steps}")
        self.generator = build(generator, self.image_shape, latent_dim)
        self.discriminator = build(discriminator, self.image_shape)
        self.latent_dim, self.discriminator_steps = latent_dim, discriminator_steps
        self._generator = generator_optimizer, generator_schedule
        self._discriminator = discriminator_optimizer, discriminator_schedule

    def players(self) -> dict[str, Any]:
        return {
            "generator": ([self.generator], *self._generator),
            "discriminator": ([self.discriminator], *self._discriminator),
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        x = self.data(batch)
        # 1: the discriminator.
        for _ in range(self.discriminator_steps):
            with torch.no_grad():
                generated = self._generate(x)
            self._update_discriminator(x, generated)
        # 2: the generator.
        with frozen(self.discriminator):
            loss = F.softplus(-self._logit(self._generate(x))).mean()
        self.update("generator", loss, clock=True)
        self.report({"train/loss_generator": loss}, show=["train/loss_generator"])

    def _generate(self, x: Tensor) -> Tensor:
        """G(z) for as many z as there are examples."""
        return self.decode(self.noise.normal((len(x), self.latent_dim), like=x)).to(x.dtype)

    def _logit(self, x: Tensor) -> Tensor:
        logit = self.discriminator(x)
        return logit if logit.dtype == torch.float64 else logit.float()

    def _update_discriminator(self, x: Tensor, generated: Tensor) -> None:
        logit_data, logit_model = self._logit(torch.cat([x, generated])).chunk(2)
        loss = F.softplus(-logit_data).mean() + F.softplus(logit_model).mean()
        self.update("discriminator", loss)
        self.report(
            {
                "train/loss_discriminator": loss,
                "train/probability_data": logit_data.sigmoid(),
                "train/probability_model": logit_model.sigmoid(),
            },
            show=["train/loss_discriminator"],
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """How often the discriminator takes held-out data for data."""
        probability = self._logit(self.data(batch)).sigmoid()
        self.log("val/probability_data", probability.mean(), sync_dist=True)

    def decode(self, z: Tensor) -> Tensor:
        """G(z), ``(B, *image_shape)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.generator(z)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """G of ``n`` prior draws, ``(n, *image_shape)``; a GAN has no chain to step or to watch."""
        if steps:
            raise ValueError("a GAN samples in one step: it has no chain, so --steps cannot be given")
        return self.decode(as_noise(noise, self.device).normal((n, self.latent_dim), self.like))
