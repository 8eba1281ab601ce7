"""Energy-Calibrated VAE."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Langevin, Noise, ReplayBuffer, Sampler, Watch, as_noise
from ebmzoo.objectives import Penalty, squared_error

from .base import (
    DecoderFactory,
    DistanceFactory,
    EncoderFactory,
    EnergyFactory,
    ImageShape,
    Method,
    OptimizerFactory,
    PriorFactory,
    ScheduleFactory,
    build,
    spec,
)
from .ecvae_posterior import CalibratedPosterior
from .mixins import Autoencoding, Calibrated, chain_health

BoundOn = Literal["data", "revised"]


class ECVAE(Autoencoding, Calibrated, Method):
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
        encoder: makes the inference network from (image_shape, latent_dim).
        decoder: makes the generator from (image_shape, latent_dim).
        energy: makes the energy from image_shape.
        latent_dim: size of z; the paper: 128.
        sampler: the training chain; the released code: 15 steps (30 for CIFAR-10), s = 0.1, T = 1e-5.
        refine: the test-time chain, from the decoder's samples; None is the paper's one-step generation.
        condition_weight: w above; it acts only when w ≳ 0.1/(s·T).
        sigma: standard deviation of the decoder, in the data's units; the released code's loss is σ² = ½.
        kl_weight: β; the released code: 0.1 (with σ² = ½).
        calibration_weight: λ at the start; the released code: 30.
        dual_rate: η; 0 keeps λ fixed. The released code: 0.01 on an absolute margin.
        dual_margin: tolerated d, in noise floors.
        dual_max: λ_max; the released code: 100.
        vae_steps: iterations of plain VAE training before the calibration begins.
        decoder_steps: VAE updates per chain.
        pair_memory: the VAE's updates take the newest so many revised pairs (z, x̃), of this chain and those before
            it; 0 takes this chain's alone.
        fresh_chains: the VAE gets a chain of its own under the updated energy.
        bound_on: whether the bound of step 5 is that of data, as in the paper, or of the revised samples alone. The
            latter, with ``calibration_weight`` and ``dual_rate`` 0, is cooperative learning of a VAE and an energy
            (the paper's CoopVAEBM, Table 11).
        data_noise: standard deviation of the noise on the data that the energy sees.
        penalties: what is added to the energy's loss.
        prior: makes the prior p(z) from latent_dim, trained with the VAE by its log-density of the codes and not by
            the calibration (end of section 3); None is N(0, I). The paper: a flow for CelebA-HQ 256 and in Table 10.
        posterior: makes the calibration of q(z|x) (section 4.1, Table 7), see `CalibratedPosterior`.
        distance: makes what stands for ‖x − decoder(z)‖² in the VAE's loss from image_shape, such as LPIPS (Table 10;
            as in appendix E the calibration keeps the squared error, and so do the bounds that are reported).
        vae_optimizer: makes the VAE's optimiser; the released code: Adam (0, 0.9) at 2e-4.
        energy_optimizer: makes the energy's; the released code: Adam (0, 0.9) at 1e-4.
        vae_schedule: makes the VAE's learning-rate schedule, stepped every iteration.
        energy_schedule: makes the energy's.
        grad_clip: largest norm of a player's gradient.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> model = ECVAE((1, 8, 8), MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=4)
        >>> model.sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    log_sigma: Tensor
    calibration_weight: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        encoder: EncoderFactory,
        decoder: DecoderFactory,
        energy: EnergyFactory,
        latent_dim: int = 128,
        sampler: Langevin = Langevin(steps=15, step_size=0.1, temperature=1e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        condition_weight: float = 1.0,
        sigma: float = math.sqrt(0.5),
        kl_weight: float = 0.1,
        calibration_weight: float = 1.0,
        dual_rate: float = 2e-3,
        dual_margin: float = 3.0,
        dual_max: float = 100.0,
        vae_steps: int = 0,
        decoder_steps: int = 1,
        pair_memory: int = 0,
        fresh_chains: bool = False,
        bound_on: BoundOn = "data",
        data_noise: float = 0.0,
        penalties: Sequence[Penalty] = (),
        prior: PriorFactory | None = None,
        posterior: Callable[[], CalibratedPosterior] | None = None,
        distance: DistanceFactory | None = None,
        vae_optimizer: OptimizerFactory = spec(Adam, lr=2e-4, betas=[0.0, 0.9]),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if bound_on not in get_args(BoundOn):
            raise ValueError(f"unknown bound_on {bound_on!r}: choose one of {', '.join(get_args(BoundOn))}")
        if decoder_steps < 1 or dual_margin <= 0:
            raise ValueError(
                f"decoder_steps must be at least 1 and dual_margin positive, not {decoder_steps} and {dual_margin}"
            )
        self.encoder = build(encoder, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.energy_network = build(energy, self.image_shape)
        self.prior = None if prior is None else build(prior, latent_dim)
        self.posterior = None if posterior is None else build(posterior)
        self.distance = None if distance is None else build(distance, self.image_shape)
        self.latent_dim, self.kl_weight, self.condition_weight = latent_dim, kl_weight, condition_weight
        self.sampler, self.refine, self.penalties = sampler, refine, list(penalties)
        self.dual_rate, self.dual_margin, self.dual_max = dual_rate, dual_margin, dual_max
        self.vae_steps, self.decoder_steps, self.fresh_chains = vae_steps, decoder_steps, fresh_chains
        self.data_noise, self.bound_on = data_noise, bound_on
        self.pairs = ReplayBuffer(pair_memory) if pair_memory else None
        self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
        self.register_buffer("calibration_weight", torch.tensor(float(calibration_weight)))
        self._vae = vae_optimizer, vae_schedule
        self._energy = energy_optimizer, energy_schedule

    def players(self) -> dict[str, Any]:
        return {
            "vae": ([self.encoder, self.decoder, *([self.prior] if self.prior else [])], *self._vae),
            "energy": ([self.energy_network], *self._energy),
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        x = self.data(batch)
        if self.global_step < self.vae_steps:
            self._update_vae(x, calibration=x.new_zeros(()), clock=True)
            return
        self.initialise_energy(x)
        # 2, 3: generate and revise.
        z = self.draw_latents(len(x), self.noise, like=x)
        generated = self.decoder(z).to(x.dtype)
        chain = self.revise(generated.detach(), self.sampler, self.noise)
        # 4: the energy.
        self.update_energy(self.noisy(x), chain.x)
        # 5: the VAE, on data and on the pairs of this chain and, where they are kept, of the last ones.
        if self.fresh_chains:
            z = self.draw_latents(len(x), self.noise, like=x)
            generated = self.decoder(z).to(x.dtype)
            chain = self.revise(generated.detach(), self.sampler, self.noise)
        revised = chain.x
        distance = squared_error(generated, revised).mean()
        if self.pairs is not None:
            self.pairs.push(z, revised)
        z_pair, revised_pair = self.pairs.leaves if self.pairs is not None else (z, revised)
        bounded = x if self.bound_on == "data" else revised_pair
        for step in range(self.decoder_steps):
            if self.pairs is None and step == 0:
                calibration = distance
            else:
                calibration = squared_error(self.decoder(z_pair).to(x.dtype), revised_pair).mean()
            self._update_vae(bounded, calibration, clock=step == self.decoder_steps - 1)
        # 6: the dual variable.
        self.update_dual(distance.detach(), revised[0].numel())
        if self.logs_now():
            self.report(chain_health(generated.detach(), revised, chain))

    def _update_vae(self, x: Tensor, calibration: Tensor, *, clock: bool) -> None:
        bound = self.elbo(x)
        precision = (-2 * self.log_sigma).exp()
        reconstruction = -bound.log_likelihood
        if self.distance is not None:
            reconstruction = 0.5 * precision * self.distance(bound.mean, x)
        loss = (self.kl_weight * bound.kl + reconstruction).mean()
        loss = loss + self.calibration_weight * 0.5 * precision * calibration
        if self.posterior is not None:
            revised = self.posterior.revise(x, bound.z, self.decoder, self.log_sigma, self.prior, self.noise)
            shift = squared_error(bound.z, revised).mean()
            loss = loss + self.posterior.weight * 0.5 * shift
        self.update("vae", loss, clock=clock)
        if self.posterior is not None:
            ratio = self.in_floors(shift.detach(), self.posterior.sampler, self.latent_dim)
            self.posterior.ascend(ratio)
            self.report({"train/lambda_posterior": self.posterior.weight, "train/posterior_in_floors": ratio})
        if clock:
            self.report({"train/loss_vae": loss, "train/kl": bound.kl}, show=["train/loss_vae"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """ELBO, reconstruction error and energy on held-out data."""
        x = self.data(batch)
        self.log("val/elbo", self.elbo(x, self.validation_noise(batch_idx)).bound.mean(), sync_dist=True)
        self.log("val/mse", squared_error(self.reconstruct(x), x).mean() / x[0].numel(), sync_dist=True)
        self.log("val/energy_data", self.energy(x).mean(), sync_dist=True)

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Decoder means of ``n`` prior draws, ``(n, *image_shape)``, revised by a chain where one is asked for.

        Args:
            n: number of samples.
            steps: chain steps after the decoder: 0 is one-step generation; None is what ``refine`` says.
            noise: where z and the chain's noise come from.
            watch: sees the chain.
        """
        source = as_noise(noise, self.device)
        with torch.inference_mode(False), torch.no_grad():
            z = self.draw_latents(n, source, self.like)
            return self.refined(self.decode(z).to(z.dtype), steps, source, watch)
