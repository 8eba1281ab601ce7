"""The generative adversarial network: the baseline of EC-VAE's 25 Gaussians."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import (
    DecoderFactory,
    EnergyFactory,
    ImageShape,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)
from ebmzoo.mcmc import Noise, frozen
from ebmzoo.mcmc.potential import one_per_example

from .base import Method, Updates


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

    shows = ("train/loss_discriminator", "train/loss_generator")

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
        if latent_dim < 1:
            raise ValueError(f"a code has at least one number, not latent_dim {latent_dim}")
        if discriminator_steps < 1:
            raise ValueError(f"discriminator_steps must be at least 1, not {discriminator_steps}")
        self.generator = build(generator, self.image_shape, latent_dim)
        self.discriminator = build(discriminator, self.image_shape)
        self.latent_dim, self.discriminator_steps = latent_dim, discriminator_steps
        self.trains(
            generator=(self.generator, generator_optimizer, generator_schedule),
            discriminator=(self.discriminator, discriminator_optimizer, discriminator_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        for _ in range(self.discriminator_steps):
            with torch.no_grad():
                generated = self.generate(len(x), x, self.noise)
            of_data, of_model = self.logit(torch.cat([x, generated])).chunk(2)
            loss = F.softplus(-of_data).mean() + F.softplus(of_model).mean()
            seen = {"train/probability_data": of_data.sigmoid(), "train/probability_model": of_model.sigmoid()}
            yield "discriminator", loss, {"train/loss_discriminator": loss, **seen}  # 1
        with frozen(self.discriminator):
            loss = F.softplus(-self.logit(self.generate(len(x), x, self.noise))).mean()
        yield "generator", loss, {"train/loss_generator": loss}  # 2

    def generate(self, n: int, like: Tensor, noise: Noise) -> Tensor:
        """G(z) for as many z, ``(n, *image_shape)``."""
        z = noise.normal((n, self.latent_dim), like)
        return self.generator(z).to(z.dtype)

    def logit(self, x: Tensor) -> Tensor:
        """The discriminator's, ``(B,)``."""
        return one_per_example(self.discriminator(x), x)

    def begin(self, n: int, noise: Noise) -> Tensor:
        """G of ``n`` prior draws."""
        return self.generate(n, self.like, noise)

    def decode(self, z: Tensor) -> Tensor:
        """G(z), ``(B, *image_shape)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.generator(z)

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """How often the discriminator takes held-out data for data."""
        return {"probability_data": self.logit(x).sigmoid()}
