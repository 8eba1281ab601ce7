"""Dual-MCMC teaching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import (
    DecoderFactory,
    EncoderFactory,
    EnergyFactory,
    ImageShape,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)
from ebmzoo.mcmc import Chain, Langevin, Noise, Sampler, Watch, as_noise, frozen
from ebmzoo.parts import Energy, GaussianVAE, Pairs, Posterior
from ebmzoo.parts.captured_loss import captured_loss
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.objectives import squared_error

from .answers import AnswersByChains, AnswersByCode
from .base import Method, Updates

Start = Literal["inference", "noise"]


class Revised(NamedTuple):
    """What both chains made of a batch: (z, x̃) for the generated samples, z̃ for the data."""

    z: Tensor
    generated: Tensor
    x: Chain
    inferred: Tensor
    latent: Chain


class DualMCMC(AnswersByCode, AnswersByChains, Method):
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
        energy: makes the energy from image_shape: an `Energy`, or a bare network.
        latent_dim: size of z; the released code: 128.
        sampler: the x chain of training; the paper: 30 steps; the released code: s = 0.25, T = 4e-6.
        latent_sampler: the z chain, in training and in `reconstruct`; the paper: 10 steps; the released code: s = 0.01.
        refine: the x chain of `sample`; None takes the training chain, as the paper does.
        z_init: where z chains begin: what the inference network infers, or "noise", N(0, I) (Table 4).
        sigma: σ, in the data's units; the released code: 0.3.
        generator_weight: w_g; the released code: 50, CelebA 70.
        inference_weight: w_i; the released code: 0.1.
        vae_steps: iterations in which generator and inference network learn as a VAE, before the energy begins; the
            paper has none.
        pairs: makes what the generator's updates take: how many a set of chains gives, of which pairs of each kind.
        fresh_chains: generator and inference network each get chains of their own under what was updated before them.
        energy_optimizer: makes the energy's optimiser; the released code: Adam (0, 0.9) at 1e-4.
        generator_optimizer: makes the generator's; the released code: Adam (0, 0.9) at 3e-4, weight decay 5e-4.
        inference_optimizer: makes the inference network's; the released code: Adam (0, 0.9) at 1e-4, weight decay 5e-4.
        energy_schedule: makes the energy's learning-rate schedule; the released code:
            exponential, 0.998 an epoch.
        generator_schedule: makes the generator's; the released code: the same.
        inference_schedule: makes the inference network's; the released code: the same.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no such ``z_init``.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> model = DualMCMC((1, 8, 8), MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=4)
        >>> model.sample(2, noise=0).shape, model.reconstruct(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
    """

    shows = ("train/energy_gap", "train/sse_model", "train/loss_vae")

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
        vae_steps: int = 0,
        pairs: Callable[[], Pairs] = spec(Pairs),
        fresh_chains: bool = False,
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
        # The generator and the inference network as a VAE has them.
        self.vae: GaussianVAE = GaussianVAE(self.image_shape, encoder, decoder, latent_dim, sigma)
        self.ebm, self.pairs = energy_of(energy, self.image_shape), build(pairs)
        self.z_init, self.precision, self.fresh_chains = z_init, 1 / sigma**2, fresh_chains
        self.sampler, self.latent_sampler, self.refine = sampler, latent_sampler, refine or sampler
        self.generator_weight, self.inference_weight = generator_weight, inference_weight
        self.vae_steps = vae_steps
        self.trains(
            energy=(self.ebm, energy_optimizer, energy_schedule),
            generator=(self.vae.decoder, generator_optimizer, generator_schedule),
            inference=(self.vae.encoder, inference_optimizer, inference_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        if self.iteration < self.vae_steps:
            yield from self.update_vae(x)
            return
        found = self.revise(x)  # 1, 2, 3
        if self.logs_now():
            self.report(_health(found))
        yield "energy", *self.ebm.loss(x, found.x.x, self.noise)  # 4
        if self.fresh_chains:
            found = self.revise(x)
        pairs = self.pairs.kept(found.latent.x, x, found.z, found.x.x)
        for _ in range(self.pairs.updates):
            yield "generator", *self.generator_loss(*pairs)  # 5
        if self.fresh_chains:
            found = self.revise(x)
        yield "inference", *self.inference_loss(x, found.latent.x, found.x.x, found.z)  # 6

    def update_vae(self, x: Tensor) -> Updates:
        """The bound on x, for the generator, and once more for the inference network."""
        for player in ("generator", "inference"):
            bound = self.vae.bound(x, self.noise)
            loss = self.vae.loss(x, bound)
            yield player, loss, {"train/loss_vae": loss, "train/kl": bound.kl.sum(0)}

    def revise(self, x: Tensor) -> Revised:
        """Both chains with the networks as they are, each from where its initialiser puts it."""
        z = self.noise.normal((len(x), self.latent_dim), like=x)
        with torch.no_grad(), frozen(self.vae):
            generated, inferred = self.vae.decode(z), self.infer(x, self.noise)
        chain = self.sampler(self.ebm, generated, self.noise)
        return Revised(z, generated, chain, inferred, self.latent_sampler(self.posterior(x), inferred, self.noise))

    def infer(self, x: Tensor, noise: Noise) -> Tensor:
        """Where z chains begin: a draw from q(z|x), or from N(0, I)."""
        xi = noise.normal((len(x), self.latent_dim), like=x)
        return xi if self.z_init == "noise" else self.vae.posterior(x).draw(xi)

    def posterior(self, x: Tensor) -> Posterior:
        """Eq. 21."""
        return Posterior(self.vae.decoder, x, self.precision)

    @captured_loss
    def generator_loss(
        self, z_data: Tensor, x_data: Tensor, z_model: Tensor, x_model: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 18."""
        # One forward for both, so that BatchNorm keeps one set of statistics.
        of_data, of_model = self.vae.decode(torch.cat([z_data, z_model])).chunk(2)
        sse_data, sse_model = squared_error(of_data, x_data), squared_error(of_model, x_model)
        loss = 0.5 * self.precision * (sse_data + self.generator_weight * sse_model).mean()
        return loss, {"train/loss_generator": loss, "train/sse_data": sse_data, "train/sse_model": sse_model}

    @captured_loss
    def inference_loss(
        self, x_data: Tensor, z_data: Tensor, x_model: Tensor, z_model: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 19."""
        log_q = self.vae.posterior(torch.cat([x_data, x_model])).log_prob(torch.cat([z_data, z_model]))
        nll_data, nll_model = (-log_q).chunk(2)
        loss = (nll_data + self.inference_weight * nll_model).mean()
        return loss, {"train/loss_inference": loss, "train/nll_data": nll_data, "train/nll_model": nll_model}

    def begin(self, n: int, noise: Noise) -> Tensor:
        """The generator's samples."""
        return self.decode(self.draw_latents(n, noise, self.like))

    def potential(self, state: Tensor, sampler: Sampler) -> Energy:
        """Eq. 20."""
        return self.ebm

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
            z = self.infer(x, source) if self.z_init == "noise" else self.encode(x).mean
            if steps != 0:
                z = self.latent_sampler(self.posterior(x), z, source, steps=steps, watch=watch).x
            return self.decode(z)

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Reconstruction error before and after the z chain, and the energy."""

        def error(steps: int | None) -> Tensor:
            return squared_error(self.reconstruct(x, steps=steps, noise=noise), x) / x[0].numel()

        return {"mse_before_chain": error(0), "mse": error(None), **self.ebm.validate(x, noise)}


def _health(found: Revised) -> dict[str, Tensor]:
    return {
        **health(found.generated, found.x.x, found.x),
        "mcmc/displacement_z": squared_error(found.inferred, found.latent.x).sqrt(),
        "mcmc/grad_norm_z": found.latent.grad_norm,
    }
