"""A VAE whose decoder also plays against a Wasserstein critic: the adversarial baseline of EC-VAE and VAEBM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Noise, frozen
from ebmzoo.parts import LatentVAE
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.latent_vae import VAEFactory

from .answers import AnswersByEnergy, AnswersByVAE
from .base import Method, Updates


class WGAN(AnswersByVAE, AnswersByEnergy, Method):
    """VAE + WGAN: the decoder's samples are the negatives of the energy as they are, and the decoder lowers theirs.

    Paper: Arjovsky et al., "Wasserstein Generative Adversarial Networks", ICML 2017, with the gradient penalty of
    Gulrajani et al., NeurIPS 2017, as an option; "VAE + WGAN" of EC-VAE's Table 10 (ELBO and adversary jointly,
    ``elbo_weight`` 1), "WGAN w/ NVAE decoder" of VAEBM's Table 4 (a trained decoder, no ELBO: ``vae_ckpt`` and
    ``elbo_weight`` 0).
    Idea: the gradient of the energy is the one of EC-VAE and VAEBM, but no chain revises its negatives: in the chain's
    place the decoder itself descends the energy, which is then a critic and needs bounded slopes.

    Equations, x̂ = decoder(z), z ~ p(z):
        critic: ∇[E(x) − E(x̂) + w·(‖∇E(x′)‖ − 1)²], x′ = u·x + (1 − u)·x̂, u uniform in [0, 1].
        VAE: E(x̂) + v·(−log p(x|z′) + KL(q(z′|x) ‖ p(z))), z′ ~ q(z′|x); with v = 0 the decoder learns alone.

    Algorithm 1, one iteration:
        1. Take a batch of data x.
        2. A number of times: generate x̂ and update the critic.
        3. Generate x̂ and update the VAE, the critic fixed.

    Where we differ from the papers: they bound the critic's slopes by its networks (spectral norm), and so do the
    configs for images of 32 px; the gradient penalty is for networks without it. All updates of the critic in one
    iteration see the same batch of data. x̂ is the decoder's mean.

    Args:
        image_shape: shape of one example.
        vae: makes the VAE (`GaussianVAE`, `HierarchicalVAE`) from image_shape.
        energy: makes the critic from image_shape: an `Energy` or a bare network, low on data, the negative of the
            paper's. The gradient penalty is ``LipschitzPenalty(w)``; its paper: w = 10.
        vae_ckpt: a checkpoint of `VAE` or `VAEBM` whose VAE is taken at the start; the baseline of VAEBM needs one.
        elbo_weight: v above.
        critic_steps: updates of the critic per iteration; with the gradient penalty its paper: 5.
        vae_optimizer: makes the decoder's optimiser; VAEBM's Table 4: Adam at 5e-6.
        energy_optimizer: makes the critic's; VAEBM's Table 4: Adam at 5e-5.
        vae_schedule: makes the decoder's learning-rate schedule; VAEBM's Table 4: a cosine.
        energy_schedule: makes the critic's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no update of the critic.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> WGAN((1, 8, 8), vae, MLPEnergy).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap", "train/loss_vae")

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        energy: EnergyFactory,
        vae_ckpt: str | None = None,
        elbo_weight: float = 1.0,
        critic_steps: int = 1,
        vae_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.0, 0.9]),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if critic_steps < 1:
            raise ValueError(f"critic_steps must be at least 1, not {critic_steps}")
        self.vae: LatentVAE = build(vae, self.image_shape)
        self.ebm = energy_of(energy, self.image_shape)
        self.vae_ckpt, self.elbo_weight, self.critic_steps = vae_ckpt, elbo_weight, critic_steps
        self.trains(
            vae=(self.vae if elbo_weight else self.vae.generator(), vae_optimizer, vae_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        for _ in range(self.critic_steps):
            with torch.no_grad():
                generated = self.generate(len(x), x, self.noise)
            yield "energy", *self.ebm.loss(x, generated, self.noise)  # 2
        with frozen(self.ebm):
            loss = self.ebm(self.generate(len(x), x, self.noise)).mean()
        seen = {"train/adversarial": loss}
        if self.elbo_weight:
            seen["train/negative_elbo"] = self.vae.loss(x, self.vae.bound(x, self.noise))
            loss = loss + self.elbo_weight * seen["train/negative_elbo"]
        yield "vae", loss, {**seen, "train/loss_vae": loss}  # 3

    def generate(self, n: int, like: Tensor, noise: Noise) -> Tensor:
        """Decoder means of ``n`` prior draws."""
        return self.vae.generate(*self.vae.white(n, noise, like)).mean

    def begin(self, n: int, noise: Noise) -> Tensor:
        """The same; gradients and temperatures apart."""
        return self.decode(self.draw_latents(n, noise, self.like))
