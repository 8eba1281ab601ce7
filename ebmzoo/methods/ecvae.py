"""Energy-Calibrated VAE."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Chain, Langevin, Noise, Sampler, Tethered
from ebmzoo.parts import CalibratedPosterior, Calibration, Energy, Pairs
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.latent_vae import VAEFactory
from ebmzoo.parts.objectives import squared_error

from .answers import AnswersByChains, AnswersByVAE
from .base import Method, Updates


class ECVAE(AnswersByVAE, AnswersByChains, Method):
    """Energy-Calibrated VAE: an energy revises the decoder's samples by a short chain; the decoder learns to match.

    Paper: Luo et al., "Energy-Calibrated VAE with Test Time Free Lunch" (EC-VAE).
    Idea: a VAE never trains on its own samples. Here an energy-based model revises them by a few Langevin steps, and
    the decoder is pulled towards what became of them, so that at test time one step suffices.

    Equations, in the paper's numbers:
        chain (Eq. 1): U(x̃) = E(x̃) + T·w·½‖x̃ − x̂‖², from x̂; w = 1 is the paper's conditional term.
        energy (section 3): ∇[E(x) − E(x̃)].
        VAE (Definition 1): λ·d/2σ² + SSE/2σ² + β·KL, d = ‖x̂ − x̃‖² per image.
        dual (Eq. 2): λ ← clip(λ + η·(d/floor − margin)/margin, 0, λ_max), where floor = K·s·T·D is what the chain's
        noise alone displaces (at T = 0 there is none, and d itself is held against the margin).

    Algorithm 1, one iteration:
        1. Take a batch of data x.
        2. Generate x̂ = decoder(z), z ~ N(0, I).
        3. Revise: x̃ = K Langevin steps from x̂.
        4. Update the energy.
        5. Update the VAE: bound on x, calibration towards x̃.
        6. Update λ.

    Where we differ from the paper: the chain's energy and the learned one are the same raw network output, with the
    temperature in the sampler. From the released code: one shared chain in Algorithm 1's order (``fresh_chains`` gives
    the VAE its own), and the margin in noise floors.

    Args:
        image_shape: shape of one example.
        vae: makes the VAE from image_shape, with its decoder's σ and β; the paper: 128 latents; the released code: β
            0.1 with σ² = ½. A learned prior is trained by its log-density of the codes, not by the calibration (end of
            section 3); the paper: a flow for CelebA-HQ 256 and in Table 10.
        energy: makes the energy from image_shape: an `Energy`, or a bare network.
        calibration: makes λ, its rate η and its margin.
        sampler: the training chain; the released code: 15 steps (30 for CIFAR-10), s = 0.1, T = 1e-5.
        refine: the test-time chain, from the decoder's samples; None is the paper's one-step generation.
        condition_weight: w above; it acts only when w ≳ 0.1/(s·T).
        vae_steps: iterations of VAE training before the calibration towards revised samples begins.
        pairs: makes what the VAE's updates take: how many a chain gives, of which pairs (z, x̃).
        fresh_chains: the VAE gets a chain of its own under the updated energy.
        posterior: makes the calibration of q(z|x) (section 4.1, Table 7), see `CalibratedPosterior`.
        vae_optimizer: makes the VAE's optimiser; the released code: Adam (0, 0.9) at 2e-4.
        energy_optimizer: makes the energy's; the released code: Adam (0, 0.9) at 1e-4.
        vae_schedule: makes the VAE's learning-rate schedule, which counts the VAE's iterations.
        energy_schedule: makes the energy's, which counts the energy's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: the training chain has no noise floor, or a calibrated posterior is asked of a hierarchy.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> ECVAE((1, 8, 8), vae, MLPEnergy).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap", "train/loss_vae", "train/lambda")

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        energy: EnergyFactory,
        calibration: Callable[[], Calibration] = spec(Calibration),
        sampler: Langevin = Langevin(steps=15, step_size=0.1, temperature=1e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        condition_weight: float = 1.0,
        vae_steps: int = 0,
        pairs: Callable[[], Pairs] = spec(Pairs),
        fresh_chains: bool = False,
        posterior: Callable[[], CalibratedPosterior] | None = None,
        vae_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.0, 0.9]),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if isinstance(sampler, Sampler) and not isinstance(sampler, Langevin):
            raise ValueError(
                f"the training chain is held against its noise floor: Langevin, not {type(sampler).__name__}"
            )
        self.vae = build(vae, self.image_shape)
        self.ebm = energy_of(energy, self.image_shape)
        self.calibration, self.pairs = build(calibration), build(pairs)
        self.posterior = None if posterior is None else build(posterior)
        if self.posterior is not None and len(self.vae.noise_shapes) > 1:
            raise ValueError("a calibrated posterior is of one vector of latents, not of a hierarchy")
        self.sampler, self.refine, self.condition_weight = sampler, refine, condition_weight
        self.vae_steps, self.fresh_chains = vae_steps, fresh_chains
        self.trains(
            vae=(self.vae, vae_optimizer, vae_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        if self.iteration < self.vae_steps:
            yield from self.update_vae(x)
            return
        z, generated, chain = self.generate_and_revise(len(x), x)  # 2, 3
        yield "energy", *self.ebm.loss(x, chain.x, self.noise)  # 4
        if self.fresh_chains:
            z, generated, chain = self.generate_and_revise(len(x), x)
        for mean, revised in self.pairs(self.vae.decode, z, generated, chain.x):  # 5
            yield from self.update_vae(x, self.calibration(mean, revised, self.vae.log_sigma))
        distance = squared_error(generated.detach(), chain.x).mean()
        in_floors = self.calibration.ascend(distance, self.sampler, x[0].numel())  # 6
        self.report({"train/lambda": self.calibration.weight, "train/distance_in_floors": in_floors})
        if self.logs_now():
            self.report(health(generated.detach(), chain.x, chain))

    def update_vae(self, x: Tensor, pull: Tensor | float = 0.0) -> Updates:
        """The bound on x and the pull towards revised samples; with a calibrated posterior, that of the codes."""
        bound = self.vae.bound(x, self.noise)
        loss = self.vae.loss(x, bound) + pull
        z, *_ = bound.latents.z
        if self.posterior is not None:
            revised = self.posterior.revise(self.vae, x, z, self.noise)
            loss = loss + self.posterior(z, revised)
        yield "vae", loss, {"train/loss_vae": loss, "train/kl": bound.kl.sum(0)}
        if self.posterior is not None:
            distance = squared_error(z.detach(), revised).mean()
            in_floors = self.posterior.ascend(distance, self.posterior.sampler, z.shape[1])
            self.report({"train/lambda_posterior": self.posterior.weight, "train/posterior_in_floors": in_floors})

    def generate_and_revise(self, n: int, like: Tensor) -> tuple[Tensor, Tensor, Chain]:
        """z, x̂ = decoder(z), and the chain from x̂."""
        z = self.draw_latents(n, self.noise, like)
        generated = self.vae.decode(z)
        return z, generated, self.sampler(self.potential(generated.detach(), self.sampler), generated, self.noise)

    def potential(self, state: Tensor, sampler: Sampler) -> Energy | Tethered:
        """Eq. 1."""
        weight = sampler.temperature * self.condition_weight
        return Tethered(self.ebm, state, weight) if weight else self.ebm

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Decoder means of ``n`` prior draws."""
        return self.decode(self.draw_latents(n, noise, self.like))
