"""Cooperative learning of a VAE and an energy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Langevin, Noise, Sampler
from ebmzoo.parts import Energy, Pairs
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.latent_vae import VAEFactory

from .answers import AnswersByChains, AnswersByVAE
from .base import Method, Updates


class CooperativeVAE(AnswersByVAE, AnswersByChains, Method):
    """Cooperative learning: an energy revises the decoder's samples, and the VAE learns from those alone.

    Paper: EC-VAE's CoopVAEBM (Luo et al., Table 11), after Xie et al., "Cooperative Training of Descriptor and
    Generator Networks", 2018, and "Learning Energy-Based Model with Variational Auto-Encoder as Amortized Sampler",
    2021.
    Idea: what the energy's chain makes of the generator's samples is what the generator should have made.

    Equations, in EC-VAE's numbers:
        chain: U(x̃) = E(x̃), from x̂.
        energy (section 3): ∇[E(x) − E(x̃)].
        VAE: SSE/2σ² + β·KL, of x̃ in place of data.

    Algorithm, one iteration:
        1. Generate x̂ = decoder(z), z ~ p(z).
        2. Revise: x̃ = K Langevin steps from x̂.
        3. Update the energy.
        4. Update the VAE by the bound on x̃.

    Args:
        image_shape: shape of one example.
        vae: makes the VAE from image_shape, with its decoder's σ and β.
        energy: makes the energy from image_shape: an `Energy`, or a bare network.
        sampler: the training chain.
        refine: the test-time chain, from the decoder's samples; None is one-step generation.
        vae_steps: iterations of plain VAE training, on data, at the start.
        pairs: makes what the VAE's updates take: how many a chain gives, of which x̃.
        vae_optimizer: makes the VAE's optimiser.
        energy_optimizer: makes the energy's.
        vae_schedule: makes the VAE's learning-rate schedule, which counts the VAE's iterations.
        energy_schedule: makes the energy's, which counts the energy's.
        grad_clip: largest norm of a player's gradient.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> CooperativeVAE((1, 8, 8), vae, MLPEnergy).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap", "train/loss_vae")

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        energy: EnergyFactory,
        sampler: Langevin = Langevin(steps=15, step_size=0.1, temperature=1e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        vae_steps: int = 0,
        pairs: Callable[[], Pairs] = spec(Pairs),
        vae_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.0, 0.9]),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.vae, self.ebm = build(vae, self.image_shape), energy_of(energy, self.image_shape)
        self.pairs, self.vae_steps = build(pairs), vae_steps
        self.sampler, self.refine = sampler, refine
        self.trains(
            vae=(self.vae, vae_optimizer, vae_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """The algorithm above."""
        if self.iteration < self.vae_steps:
            yield from self.update_vae(x)
            return
        generated = self.begin(len(x), self.noise)  # 1
        chain = self.sampler(self.ebm, generated, self.noise)  # 2
        yield "energy", *self.ebm.loss(x, chain.x, self.noise)  # 3
        (revised,) = self.pairs.kept(chain.x)
        for _ in range(self.pairs.updates):
            yield from self.update_vae(revised)  # 4
        if self.logs_now():
            self.report(health(generated, chain.x, chain))

    def update_vae(self, x: Tensor) -> Updates:
        """The bound on x."""
        bound = self.vae.bound(x, self.noise)
        loss = self.vae.loss(x, bound)
        yield "vae", loss, {"train/loss_vae": loss, "train/kl": bound.kl.sum(0)}

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Decoder means of ``n`` prior draws, which no gradient reaches."""
        return self.decode(self.draw_latents(n, noise, self.like)).detach()

    def potential(self, state: Tensor, sampler: Sampler) -> Energy:
        """E."""
        return self.ebm
