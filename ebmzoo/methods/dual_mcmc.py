"""Dual-MCMC teaching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Chain, Langevin, Noise, ReplayBuffer, Sampler, Watch, as_noise, frozen
from ebmzoo.objectives import Penalty, gaussian_log_prob, squared_error

from .base import (
    DecoderFactory,
    EncoderFactory,
    EnergyFactory,
    ImageShape,
    Method,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)
from .mixins import GaussianLatent, TaughtByChains, chain_health
from .potentials import Posterior

Start = Literal["inference", "noise"]


class Revised(NamedTuple):
    """What both chains made of a batch: (z, x̃) for the generated samples, z̃ for the data."""

    z: Tensor
    generated: Tensor
    x: Chain
    inferred: Tensor
    latent: Chain


class DualMCMC(TaughtByChains, GaussianLatent, Method):
    """Dual-MCMC teaching: an energy revises what a generator makes, the generator what an inference network infers.

    Paper: Cui and Han, "Learning Energy-based Model via Dual-MCMC Teaching", NeurIPS 2023.
    Idea: short chains need good starts. A generator gives them to the chain in x that the energy needs, an inference
    network to the chain in z that the generator needs; both learn, by maximum likelihood, from where the chains ended.

    Equations, in the paper's numbers (its f is −E):
        generator (Eq. 4): p(x, z) = N(z; 0, I)·N(x; generator(z), σ²I).
        x chain (Eq. 20): U(x) = E(x), from x̂ = generator(z), z ~ N(0, I).
        z chain (Eq. 21): U(z) = ‖x − generator(z)‖²/2σ² + ½‖z‖², from ẑ ~ q(z|x), x data.
        energy (Eq. 17): ∇[E(x) − E(x̃)].
        generator (Eq. 18): ‖x − generator(z̃)‖²/2σ² + w_g·‖x̃ − generator(z)‖²/2σ²; the paper: w_g = 1.
        inference (Eq. 19): −log q(z̃|x) − w_i·log q(z|x̃); the paper: w_i = 1.

    Algorithm 1, one iteration:
        1. Take a batch of data x and as many z ~ N(0, I).
        2. MCMC sampling: x̂ = generator(z); x̃ = the x chain from x̂.
        3. MCMC inference: ẑ from q(z|x); z̃ = the z chain from ẑ.
        4. Update the energy with x and x̃.
        5. Update the generator with (x, z̃) and (x̃, z).
        6. Update the inference network with the same pairs.

    Where we differ from the paper: the temperature is the sampler's, the energy the raw network output. From the
    released code: Algorithm 1's order with one shared set of chains (``fresh_chains`` gives each player its own; the
    code updates generator, inference, energy, and resamples for the last); −log p(x|z) has its ½, which the code leaves
    out (so that its σ = 0.3 is ours of 0.212); networks are in eval mode in the chains and where they start.

    Args:
        image_shape: shape of one example.
        encoder: makes the inference network from (image_shape, latent_dim).
        decoder: makes the generator from (image_shape, latent_dim).
        energy: makes the energy from image_shape.
        latent_dim: size of z; the released code: 128.
        sampler: the x chain of training; the paper: 30 steps; the released code: s = 0.25, T = 4e-6.
        latent_sampler: the z chain, in training and in `reconstruct`; the paper: 10 steps; the released code: s = 0.01.
        refine: the x chain of `sample`; None takes the training chain, as the paper does.
        z_init: where z chains begin: what the inference network infers, or "noise", N(0, I) (Table 4).
        sigma: σ, in the data's units; the released code: 0.3.
        generator_weight: w_g; the released code: 50, CelebA 70.
        inference_weight: w_i; the released code: 0.1.
        generator_steps: generator updates per set of chains.
        pair_memory: the generator's updates take the newest so many pairs of each kind, of these chains and those
            before; 0 takes these chains' alone.
        fresh_chains: generator and inference network each get chains of their own under what was updated before them.
        data_noise: standard deviation of the noise on the data that the energy sees.
        penalties: what is added to the energy's loss.
        energy_optimizer: makes the energy's optimiser; the released code: Adam (0, 0.9) at 1e-4.
        generator_optimizer: makes the generator's; the released code: Adam (0, 0.9) at 3e-4, weight decay 5e-4.
        inference_optimizer: makes the inference network's; the released code: Adam (0, 0.9) at 1e-4, weight decay 5e-4.
        energy_schedule: makes the energy's learning-rate schedule, stepped every iteration; the released code:
            exponential, 0.998 an epoch.
        generator_schedule: makes the generator's; the released code: the same.
        inference_schedule: makes the inference network's; the released code: the same.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no such ``z_init``, or ``generator_steps`` is below 1.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> model = DualMCMC((1, 8, 8), MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=4)
        >>> model.sample(2, noise=0).shape, model.reconstruct(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        image_shape: ImageShape,
        encoder: EncoderFactory,
        decoder: DecoderFactory,
        energy: EnergyFactory,
        latent_dim: int = 128,
        sampler: Sampler = Langevin(steps=30, step_size=0.25, temperature=4e-6),  # noqa: B008 - holds no state
        latent_sampler: Sampler = Langevin(steps=10, step_size=0.01),  # noqa: B008 - holds no state
        refine: Sampler | None = None,
        z_init: Start = "inference",
        sigma: float = 0.3,
        generator_weight: float = 1.0,
        inference_weight: float = 1.0,
        generator_steps: int = 1,
        pair_memory: int = 0,
        fresh_chains: bool = False,
        data_noise: float = 0.0,
        penalties: Sequence[Penalty] = (),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        generator_optimizer: OptimizerFactory = spec(Adam, lr=3e-4, betas=[0.0, 0.9]),
        inference_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        energy_schedule: ScheduleFactory | None = None,
        generator_schedule: ScheduleFactory | None = None,
        inference_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if z_init not in get_args(Start):
            raise ValueError(f"unknown z_init {z_init!r}: choose one of {', '.join(get_args(Start))}")
        if generator_steps < 1:
            raise ValueError(f"generator_steps must be at least 1, not {generator_steps}")
        self.encoder = build(encoder, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.energy_network = build(energy, self.image_shape)
        self.latent_dim, self.z_init, self.precision = latent_dim, z_init, 1 / sigma**2
        self.sampler, self.latent_sampler, self.refine = sampler, latent_sampler, refine
        self.generator_weight, self.inference_weight = generator_weight, inference_weight
        self.generator_steps, self.fresh_chains = generator_steps, fresh_chains
        self.pairs = ReplayBuffer(pair_memory) if pair_memory else None
        self.data_noise, self.penalties = data_noise, list(penalties)
        self._players: dict[str, Any] = {
            "energy": ([self.energy_network], energy_optimizer, energy_schedule),
            "generator": ([self.decoder], generator_optimizer, generator_schedule),
            "inference": ([self.encoder], inference_optimizer, inference_schedule),
        }

    def players(self) -> dict[str, Any]:
        return self._players

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        x = self.data(batch)
        self.initialise_energy(x)
        # 1, 2, 3: both chains.
        revised = self._revise(x)
        self._report_chains(revised)
        # 4: the energy.
        self.update_energy(self.noisy(x), revised.x.x)
        # 5: the generator.
        if self.fresh_chains:
            revised = self._revise(x)
        self._update_generator(x, revised)
        # 6: the inference network.
        if self.fresh_chains:
            revised = self._revise(x)
        self._update_inference(x, revised)

    def _revise(self, x: Tensor) -> Revised:
        """Both chains with the networks as they are, each from where its initialiser puts it."""
        z = self.noise.normal((len(x), self.latent_dim), like=x)
        with torch.no_grad(), frozen(self.decoder, self.encoder):
            generated = self.decode(z).to(x.dtype)
            inferred = self._infer(x, self.noise)
        chain = self.sampler(self.energy_network, generated, self.noise)
        return Revised(z, generated, chain, inferred, self._explain(inferred, x, self.noise))

    def _infer(self, x: Tensor, noise: Noise) -> Tensor:
        """Where z chains begin: a draw from q(z|x), or from N(0, I)."""
        xi = noise.normal((len(x), self.latent_dim), like=x)
        if self.z_init == "noise":
            return xi
        mean, log_variance = self.encode(x)
        return mean + (0.5 * log_variance).exp() * xi

    def _explain(self, z: Tensor, x: Tensor, noise: Noise, **call: Any) -> Chain:
        """Chains on −log p(x, z) with x given (Eq. 21)."""
        return self.latent_sampler(Posterior(self.decoder, x, self.precision), z, noise, **call)

    def _update_generator(self, x: Tensor, revised: Revised) -> None:
        pairs: tuple[Tensor, ...] = (revised.latent.x, x, revised.z, revised.x.x)
        if self.pairs is not None:
            self.pairs.push(*pairs)
            pairs = self.pairs.leaves
        z_data, x_data, z_model, x_model = pairs
        for _ in range(self.generator_steps):
            # One forward for both, so that BatchNorm keeps one set of statistics.
            of_data, of_model = self.decode(torch.cat([z_data, z_model])).to(x.dtype).chunk(2)
            sse_data, sse_model = squared_error(of_data, x_data), squared_error(of_model, x_model)
            loss = 0.5 * self.precision * (sse_data + self.generator_weight * sse_model).mean()
            self.update("generator", loss)
        self.report(
            {"train/loss_generator": loss, "train/sse_data": sse_data, "train/sse_model": sse_model},
            show=["train/sse_model"],
        )

    def _update_inference(self, x: Tensor, revised: Revised) -> None:
        mean, log_variance = self.encode(torch.cat([x, revised.x.x]))
        log_q = gaussian_log_prob(torch.cat([revised.latent.x, revised.z]), mean, 0.5 * log_variance)
        nll_data, nll_model = (-log_q).chunk(2)
        loss = (nll_data + self.inference_weight * nll_model).mean()
        self.update("inference", loss, clock=True)
        self.report({"train/loss_inference": loss, "train/nll_data": nll_data, "train/nll_model": nll_model})

    def _report_chains(self, revised: Revised) -> None:
        if self.logs_now():
            self.report(
                {
                    **chain_health(revised.generated, revised.x.x, revised.x),
                    "mcmc/displacement_z": squared_error(revised.inferred, revised.latent.x).sqrt(),
                    "mcmc/grad_norm_z": revised.latent.grad_norm,
                }
            )

    # -- the contract -----------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Energy and reconstruction error, before and after the z chain, on held-out data."""
        x = self.data(batch)
        for name, steps in (("val/mse_before_chain", 0), ("val/mse", None)):
            error = squared_error(self.reconstruct(x, steps=steps, noise=batch_idx), x).mean() / x[0].numel()
            self.log(name, error, sync_dist=True)
        self.log("val/energy_data", self.energy(x).mean(), sync_dist=True)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both ``(B, latent_dim)``."""
        mean, log_variance = (value.to(x.dtype) for value in self.encoder(x))
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """The generator's mean of p(x|z), ``(B, *image_shape)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.decoder(z)

    def reconstruct(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = 0,
        watch: Watch | None = None,
    ) -> Tensor:
        """What the generator makes of z chains that began at the mean of q(z|x), ``(B, *image_shape)``.

        With ``z_init: noise`` they begin at N(0, I). Calls of equal noise are points of the same chains.

        Args:
            x: ``(B, *image_shape)``.
            steps: chain steps; 0 is the inference network's own reconstruction; None is what ``latent_sampler`` says.
            noise: where the chain's noise comes from; the same at every call unless another is given.
            watch: sees the chain, its state as z.
        """
        source = as_noise(noise, x.device)
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()  # a tensor made in inference mode could not enter the chain's graph
            z = self._infer(x, source) if self.z_init == "noise" else self.encode(x)[0]
            if steps != 0:
                z = self._explain(z, x, source, steps=steps, watch=watch).x
            return self.decode(z)

    def test_sampler(self) -> tuple[Sampler | None, int]:
        sampler = self.refine or self.sampler
        return sampler, sampler.steps

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Ends of ``n`` x chains from the generator's samples, ``(n, *image_shape)``.

        Args:
            n: number of samples.
            steps: chain steps; 0 gives the generator's own samples; None is what ``refine`` (or ``sampler``) says.
            noise: where z and the chain's noise come from.
            watch: sees the chain.
        """
        source, sampler = as_noise(noise, self.device), self.refine or self.sampler
        with torch.inference_mode(False), torch.no_grad():
            x = self.decode(self.draw_latents(n, source, self.like)).to(self.dtype)
            if (sampler.steps if steps is None else steps) == 0:
                return x
            return sampler(self.energy_network, x, source, steps=steps, watch=watch).x
