"""VAEBM: the product of a VAE and an energy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Langevin, Noise, ReplayBuffer, Sampler, SharedNoise, State, Watch, as_noise, frozen
from ebmzoo.optim import ThreeSigmaAdam
from ebmzoo.parts import InNoise, LatentVAE
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.latent_vae import VAEFactory
from ebmzoo.parts.spaces import SPACES, Kind, Name, Space, needed_curvature

from .answers import AnswersByEnergy, AnswersByVAE
from .base import Method, Updates

_UNSEEN = 0.1  # σ of noise, a twentieth of the range of images, that costs little: see docs/results.md


class VAEBM(AnswersByVAE, AnswersByEnergy, Method):
    """VAEBM: a VAE lays out the modes, an energy on x rules out what is not data; chains run in the VAE's white noise.

    Paper: Xiao et al., "VAEBM: A Symbiosis between Variational Autoencoders and Energy-based Models", ICLR 2021.
    Idea: h(x, z) = p(x, z) exp(−E(x))/Z. The VAE is trained first and then fixed; the energy is trained by maximum
    likelihood, with samples from short chains in the noise that the VAE turns into (z, x), where all scales are one.

    Equations, in the paper's numbers:
        VAE (Eq. 3): −log p(x|z) + KL(q(z|x) ‖ p(z)), plus what the network adds to regularise itself.
        energy (Eq. 7): ∇[E(x) − E(x⁻)], x⁻ from h.
        chain (Eqs. 8, 9): x = T(ε_x, ε_z), U(ε) = E(x) + ½‖ε‖².
        chain in (x, z) (appendix B.1): U(x, z) = E(x) − log p(x, z).
        decoder (Eq. 21): ∇E(x), x ~ the VAE.

    Algorithm, one iteration of stage one (the first ``vae_steps``):
        1. Ascend the bound in the VAE, the KL warmed up and balanced.
    One iteration of stage two, with the VAE fixed and in eval mode:
        1. Draw ε ~ N(0, I), the z-part of some chains from the replay buffer.
        2. Run the chains; keep their ends.
        3. Update the energy.
        4. Where it is asked for, update the decoder.

    Where we differ from the released code: it samples E − log p(x, z) with respect to ε without the Jacobian, which is
    not Eq. 9; its energies see [0, 1], ours [−1, 1]; it initialises them on five batches, we on stage two's first.

    Args:
        image_shape: shape of one example.
        vae: makes the VAE (`GaussianVAE`, `HierarchicalVAE`) from image_shape.
        energy: makes the energy from image_shape: an `Energy`, or a bare network; the paper: ``SpectralPenalty(0.2)``.
        vae_steps: iterations of stage one.
        vae_ckpt: a checkpoint of `VAE` or `VAEBM` whose VAE is taken instead of stage one.
        kl_warmup: iterations over which the KL's weight grows from 1e-4 to 1, its groups balanced; NVAE: 30% of all.
        regularisation: weight of the VAE's own regularisation; the released code: 0.1.
        regularisation_start: its weight at the start, brought down in the logarithm as the KL warms up; the released
            code for CelebA-HQ: 10 (then 0.01).
        sampler: the training chain; the paper: 10 steps of 8e-5 for CIFAR-10, persistent 6 of 6e-5 (Table 8).
        refine: the test-time chain; None takes the training chain. The paper: the same, 16 to 24 steps.
        space: what the chain moves: "noise" is (ε_x, ε_z); "data" is (x, z); "x" is x alone from the VAE's samples with
            U = E, which models exp(−E) alone (Table 4, "EBM on x").
        negatives: the energy's negatives are x with decoder noise ("sample") or the decoder mean ("mean"; the released
            code on all but CIFAR-10).
        output: the same choice for `sample`.
        refresh_x: number of steps after which `sample` draws ε_x anew, as each replayed chain has it in training: that
            chain's number, or 0 for never.
        start_temperature: t of the start of `sample`'s chains; below 1, means of the VAE at noise scaled by t, its
            BatchNorm readjusted, are encoded to white noise; the paper's pictures of CelebA-HQ: 0.7.
        buffer: chains kept for replay, 0 for none; the paper: 10,000.
        replay_probability: share of chains that begin in the buffer; the paper: 0.6.
        replay_ramp: iterations in which that share grows from 0; the paper: 5,000.
        replay_x: the x-part is replayed too; in the paper it is always fresh.
        vae_optimizer: makes stage one's optimiser; the released code: Adamax at 1e-2 with a cosine.
        energy_optimizer: makes stage two's; the paper: Adam at 4e-5, weight decay 3e-5, 3σ clip.
        decoder_optimizer: makes the decoder's in stage two, which asks for its update; the paper: Adam at 5e-6.
        vae_schedule: makes stage one's learning-rate schedule, stepped in that stage.
        energy_schedule: makes stage two's, stepped in that one.
        decoder_schedule: makes the decoder's in stage two.
        grad_clip: largest norm of a player's gradient.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> VAEBM((1, 8, 8), vae, MLPEnergy).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap", "train/loss_vae", "train/stage")

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        energy: EnergyFactory,
        vae_steps: int = 0,
        vae_ckpt: str | None = None,
        kl_warmup: int = 0,
        regularisation: float = 0.0,
        regularisation_start: float | None = None,
        sampler: Sampler = Langevin(steps=10, step_size=8e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        space: Name = "noise",
        negatives: Kind = "sample",
        output: Kind = "sample",
        refresh_x: int = 0,
        start_temperature: float = 1.0,
        buffer: int = 0,
        replay_probability: float = 0.6,
        replay_ramp: int = 5000,
        replay_x: bool = False,
        vae_optimizer: OptimizerFactory = spec(Adam, lr=1e-3),
        energy_optimizer: OptimizerFactory = spec(ThreeSigmaAdam, lr=4e-5, betas=[0.99, 0.999], weight_decay=3e-5),
        decoder_optimizer: OptimizerFactory | None = None,
        vae_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        decoder_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if regularisation_start and not regularisation:
            raise ValueError("a regularisation_start needs the regularisation that it leads to")
        self.vae: LatentVAE = build(vae, self.image_shape)
        self.ebm = energy_of(energy, self.image_shape)
        self.vae_ckpt, self.vae_steps = vae_ckpt, 0 if vae_ckpt else vae_steps
        self.kl_warmup, self.regularisation = kl_warmup, (regularisation_start or regularisation, regularisation)
        self.sampler, self.refine, self.space = sampler, refine or sampler, space
        self.negatives, self.output, self.refresh_x = negatives, output, refresh_x
        self.start_temperature = start_temperature
        self.replay = ReplayBuffer(buffer) if buffer else None
        self.replay_probability, self.replay_ramp, self.replay_x = replay_probability, replay_ramp, replay_x
        self.trains(
            vae=(self.vae, vae_optimizer, vae_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )
        self.updates_decoder = decoder_optimizer is not None
        if decoder_optimizer is not None:
            self.trains(decoder=(self.vae.generator(), decoder_optimizer, decoder_schedule))
        if space == "x" and (negatives == "mean" or (buffer and not replay_x)):
            raise ValueError('space "x" has no latents: it needs negatives "sample", and replay_x with a buffer')
        if space == "x" and refresh_x:
            raise ValueError('space "x" has no latents to draw x anew from: it needs refresh_x 0')
        if start_temperature != 1 and space != "noise":
            raise ValueError(f'a start_temperature encodes to white noise: it needs space "noise", not "{space}"')

    @property
    def stage(self) -> int:
        """1 while the VAE trains, then 2."""
        return 1 if max(self.iteration, self.global_step) < self.vae_steps else 2

    def algorithm(self, x: Tensor) -> Updates:
        """The algorithm above."""
        self.report({"train/stage": self.stage}, show=self.shows)
        if self.stage == 1:
            warmth = min(1.0, self.iteration / self.kl_warmup) if self.kl_warmup else 1.0
            loss = self.vae.loss(x, self.vae.bound(x, self.noise), warmth, self.regularisation)
            yield "vae", loss, {"train/loss_vae": loss}
            return
        self.vae.eval()
        passed = self.iteration - self.vae_steps
        ramp = min(1.0, passed / self.replay_ramp) if self.replay_ramp else 1.0
        start = self.start(len(x), x, self.noise, self.replay_probability * ramp)  # 1
        space = self.potential(start, self.sampler)
        chain = self.sampler(space, start, self.noise)  # 2
        if self.replay is not None:
            self.replay.push(chain.x if self.replay_x else chain.x[:, x[0].numel() :])
        negatives = space.data(chain.x, self.negatives)
        yield "energy", *self.ebm.loss(x, negatives, self.noise)  # 3
        if self.updates_decoder:
            loss = self.decoder_loss(x)
            yield "decoder", loss, {"train/loss_decoder": loss}  # 4
        if self.logs_now():
            self.report(health(space.data(start, self.negatives), negatives, chain))

    def start(self, n: int, like: Tensor, noise: Noise, probability: float = 0.0) -> Tensor:
        """Where chains begin: white noise or, outside the space of noise, what the VAE makes of it; some replayed."""
        space = SPACES[self.space](self.ebm, self.vae)
        z = self.vae.white(n, noise, like)
        x = noise.normal((n, *self.image_shape), like)
        with torch.no_grad(), frozen(self.vae):
            state = space.place(x, space.latents(z))
            if self.replay is None:
                return state
            if self.replay_x:
                return self.replay.mix((state,), probability, noise)[0]
            (kept,) = self.replay.mix((state[:, x[0].numel() :],), probability, noise)
            return space.place(x, space.row.parts(torch.cat([x.flatten(1), kept], 1))[1:])

    def decoder_loss(self, like: Tensor) -> Tensor:
        """Eq. 21: the energy of fresh samples of the VAE goes down, the energy fixed."""
        x = self.noise.normal(like.shape, like)
        latents = self.vae.generate(*self.vae.white(len(like), self.noise, like))
        with frozen(self.ebm):
            return self.ebm(latents.x.draw(x)).mean()

    # -- the contract -----------------------------------------------------------------------------------------------

    def begin(self, n: int, noise: Noise) -> Tensor:
        """White noise, or another state of the space, at the start's temperature."""
        start = self.start(n, self.like, noise)
        if self.start_temperature == 1:
            return start
        return InNoise(self.ebm, self.vae).cooled(start, self.start_temperature, noise)

    def potential(self, state: Tensor, sampler: Sampler) -> Space:
        """U in the space of the chains."""
        return SPACES[self.space](self.ebm, self.vae)

    def walk(
        self,
        sampler: Sampler,
        potential: Callable[[Tensor], Tensor],
        state: Tensor,
        noise: Noise,
        steps: int,
        watch: Watch | None = None,
    ) -> Tensor:
        """Chains whose x is drawn anew from p(x|z) every ``refresh_x`` steps, but not after the last."""
        assert isinstance(potential, Space)
        each = self.refresh_x or max(steps, 1)
        for begun in range(0, steps, each):
            if begun:
                _, *z = potential.row.parts(state)
                state = potential.place(noise.normal((len(state), *self.image_shape), state), tuple(z))
            see = None if watch is None else partial(_later, watch, begun)
            state = super().walk(sampler, potential, state, noise, min(each, steps - begun), see)
        return state

    def advice(self) -> list[str]:
        """Of a decoder's noise that no chain removes, and that the data do not have: see docs/methods/vaebm.md."""
        sigma, time = self.vae.least_sigma, self.sampler.steps * self.sampler.step_size
        seen = len(self.image_shape) == 3 and sigma > max(_UNSEEN, 1.5 * self.ebm.data_noise)
        if self.space != "noise" or self.replay_x or not 0 < time < 1 or not seen:
            return []
        return [
            f"each fresh noise of x lives for steps x step size = {time:.2g}: unless the energy curves by more than "
            f"{needed_curvature(sigma, time):,.0f}, the decoder's sigma {sigma:.2g} stays in x; take {_UNSEEN} with "
            f"kl_weight {(sigma / _UNSEEN) ** 2:.2g} times as large, or as much data_noise"
        ]

    def emit(self, state: Tensor, steps: int) -> Tensor:
        """x, with decoder noise if ``output`` says so."""
        return SPACES[self.space](self.ebm, self.vae).data(state, self.output)

    def refit_statistics(self) -> None:
        """Nothing: chains begin with white noise, and the energy has learnt against the VAE as stage one left it."""
        self.of_draws, self.statistics = {}, None

    def test_sampler(self) -> tuple[Sampler, int]:
        """The chain, which has no steps while stage one trains."""
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        return self.refine, 0 if fitting and self.stage == 1 else self.refine.steps

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """`log_density` with the same 100 draws for every example: high means in-distribution."""
        return self._log_density(x, SharedNoise.of_seed(0, x.device))

    @torch.no_grad()
    def log_density(self, x: Tensor) -> Tensor:
        """log p_VAE(x) − E(x), log h(x) up to log Z (Eq. 5), ``(B,)`` nats; in space "x" −E alone.

        p_VAE by 100 importance-weighted draws for each example, whose errors average out over many.
        """
        return self._log_density(x, as_noise(0, x.device))

    def _log_density(self, x: Tensor, noise: Noise) -> Tensor:
        return -self.energy(x) if self.space == "x" else self.log_likelihood_bound(x, 100, noise) - self.energy(x)

    @property
    def has_base(self) -> bool:
        """Whether the density is the VAE's, tilted; in space "x" it is exp(−E) alone."""
        return self.space != "x"

    @property
    def white_shapes(self) -> list[tuple[int, ...]]:
        """Of ε_x and of each group's ε_z."""
        return [self.image_shape, *self.vae.noise_shapes]

    def white_energy(self, *noise: Tensor) -> Tensor:
        """E(T(ε)), ``(B,)``."""
        space = InNoise(self.ebm, self.vae)
        return space.tilt(space.row.pack(*noise))

    def base_sample(self, n: int, *, noise: None | int | torch.Generator | Noise = None) -> Tensor:
        """Draws of the VAE's density p(x), ``(n, *image_shape)``: with decoder noise, whatever ``output`` says."""
        with torch.inference_mode(False), torch.no_grad():
            start = self.start(n, self.like, as_noise(noise, self.device))
            return SPACES[self.space](self.ebm, self.vae).data(start, "sample")


def _later(watch: Watch, begun: int, step: int, state: State) -> None:
    watch(begun + step, state)
