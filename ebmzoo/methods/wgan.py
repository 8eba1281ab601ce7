"""A VAE whose decoder also plays against a Wasserstein critic: the adversarial baseline of EC-VAE and VAEBM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Noise, Watch, as_noise, frozen
from ebmzoo.objectives import Penalty, contrastive_gap, lipschitz_penalty, squared_error

from .base import EnergyFactory, ImageShape, Method, OptimizerFactory, ScheduleFactory, build, spec
from .mixins import EnergyBased
from .stage_one import StageOne, VAEFactory


class WGAN(StageOne, EnergyBased, Method):
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
        energy: makes the critic from image_shape: low on data, the negative of the paper's.
        vae_ckpt: a checkpoint of `VAE` or `VAEBM` whose VAE is taken at the start; the baseline of VAEBM needs one.
        elbo_weight: v above.
        critic_steps: updates of the critic per iteration; with the gradient penalty its paper: 5.
        gradient_penalty: w above; its paper: 10.
        penalties: what else is added to the critic's loss.
        vae_optimizer: makes the decoder's optimiser; VAEBM's Table 4: Adam at 5e-6.
        energy_optimizer: makes the critic's; VAEBM's Table 4: Adam at 5e-5.
        vae_schedule: makes the decoder's learning-rate schedule, stepped every iteration; VAEBM's Table 4: a cosine.
        energy_schedule: makes the critic's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no update of the critic.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import GaussianVAE, MLPDecoder, MLPEncoder, MLPEnergy
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> WGAN((1, 8, 8), vae, MLPEnergy).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        energy: EnergyFactory,
        vae_ckpt: str | None = None,
        elbo_weight: float = 1.0,
        critic_steps: int = 1,
        gradient_penalty: float = 0.0,
        penalties: Sequence[Penalty] = (),
        vae_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.0, 0.9]),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if critic_steps < 1:
            raise ValueError(f"critic_steps must be at least 1, not {critic_steps}")
        self.vae: Any = build(vae, self.image_shape)
        self.energy_network = build(energy, self.image_shape)
        self.vae_ckpt, self.elbo_weight = vae_ckpt, elbo_weight
        self.critic_steps, self.gradient_penalty, self.penalties = critic_steps, gradient_penalty, list(penalties)
        self._vae = vae_optimizer, vae_schedule
        self._energy = energy_optimizer, energy_schedule

    def players(self) -> dict[str, Any]:
        return {
            "vae": ([self.vae] if self.elbo_weight else self.vae.generator(), *self._vae),
            "energy": ([self.energy_network], *self._energy),
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        x = self.data(batch)
        self.initialise_energy(x)
        # 2: the critic.
        for _ in range(self.critic_steps):
            with torch.no_grad():
                generated = self._generate(len(x), x, self.noise)
            self._update_critic(x, generated)
        # 3: the VAE.
        self._update_vae(x)

    def _generate(self, n: int, like: Tensor, noise: Noise) -> Tensor:
        """Decoder means of ``n`` prior draws."""
        drawn = (noise.normal((n, *shape), like) for shape in self.vae.noise_shapes)
        return self.vae.generate(*drawn).mean

    def _update_critic(self, x: Tensor, generated: Tensor) -> None:
        def loss(energy_data: Tensor, energy_model: Tensor) -> Tensor:
            gap = contrastive_gap(energy_data, energy_model)
            if not self.gradient_penalty:
                return gap
            share = self.noise.uniform((len(x), *[1] * (x.dim() - 1)), x)
            between = share * x + (1 - share) * generated
            return gap + self.gradient_penalty * lipschitz_penalty(self.energy, between)

        self.update_energy(x, generated, loss=loss)

    def _update_vae(self, x: Tensor) -> None:
        with frozen(self.energy_network):
            adversarial = self.energy(self._generate(len(x), x, self.noise)).mean()
        loss = adversarial
        reported = {"train/adversarial": adversarial}
        if self.elbo_weight:
            negative_bound = self.vae_loss(x, self.noise, warmth=1.0, regularisation=(0.0, 0.0))
            loss = loss + self.elbo_weight * negative_bound
            reported["train/negative_elbo"] = negative_bound
        self.update("vae", loss, clock=True)
        self.report({**reported, "train/loss_vae": loss}, show=["train/loss_vae"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """ELBO, reconstruction error and energy on held-out data."""
        x = self.data(batch)
        log_likelihood, kl = self.vae_bound(x, self.validation_noise(batch_idx))
        self.log("val/elbo", (log_likelihood - kl.sum(0)).mean(), sync_dist=True)
        self.log("val/mse", squared_error(self.reconstruct(x), x).mean() / x[0].numel(), sync_dist=True)
        self.log("val/energy_data", self.energy(x).mean(), sync_dist=True)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Decoder means of ``n`` prior draws, ``(n, *image_shape)``; a WGAN has no chain to step or to watch."""
        if steps:
            raise ValueError("a WGAN samples in one step: it has no chain, so --steps cannot be given")
        return self._generate(n, self.like, as_noise(noise, self.device))
