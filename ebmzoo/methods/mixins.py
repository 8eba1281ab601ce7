"""What several methods share besides the contract: a Gaussian autoencoder, a flow, an energy, its calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Chain, Langevin, Noise, Sampler, Tethered, Watch, as_noise
from ebmzoo.objectives import (
    Elbo,
    Penalty,
    contrastive_gap,
    dual_ascent,
    elbo,
    importance_weighted_bound,
    squared_error,
)

__all__ = [
    "Autoencoding",
    "Calibrated",
    "EnergyBased",
    "FlowBased",
    "GaussianLatent",
    "TaughtByChains",
    "chain_health",
]


class GaussianLatent:
    """Mixin of methods that generate from a latent code z ~ N(0, I) of ``latent_dim`` numbers.

    Attributes:
        latent_temperature: standard deviation of the codes that `draw_latents` draws: 1 is the model's own; below 1
            samples are more typical and less varied, as with Glow and NVAE.
    """

    latent_dim: int
    latent_temperature: float = 1.0

    def draw_latents(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """``(n, latent_dim)`` codes to generate from, with the dtype and device of ``like``."""
        return noise.normal((n, self.latent_dim), like) * self.latent_temperature

    def log_prior(self, z: Tensor) -> Tensor:
        """log N(z; 0, I), ``(B,)`` nats."""
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


class Autoencoding(GaussianLatent):
    """Mixin of methods with an encoder, a decoder and a Gaussian likelihood p(x|z) = N(x; decoder(z), σ²).

    The class it is mixed into has ``encoder``, ``decoder``, ``latent_dim``, ``log_sigma`` and ``noise``, and
    ``prior``, a learned p(z) with ``sample`` and ``log_prob``; None is N(0, I).
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: Any
    log_sigma: Tensor
    noise: Noise

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both ``(B, latent_dim)``."""
        mean, log_variance = self.encoder(x)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z), ``(B, *image_shape)``; it may leave [-1, 1]: `ebmzoo.images.to_uint8` clamps and rounds."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoded posterior means, ``(B, *image_shape)``, not clamped either."""
        return self.decode(self.encode(x)[0])

    def elbo(self, x: Tensor, noise: Noise | None = None) -> Elbo:
        """The evidence lower bound and its pieces with one posterior draw, nats."""
        xi = (noise or self.noise).normal((len(x), self.latent_dim), like=x)
        return elbo(x, self.encoder, self.decoder, self.log_sigma, xi, self._log_prior)

    @torch.no_grad()
    def draw_latents(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """``n`` codes from the prior, ``(n, latent_dim)``, which no gradient reaches."""
        xi = super().draw_latents(n, noise, like)
        return xi if self.prior is None else self.prior.sample(xi).to(xi.dtype)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), ``(B,)`` nats."""
        return super().log_prior(z) if self.prior is None else self.prior.log_prob(z)

    @property
    def _log_prior(self) -> Any:
        return None if self.prior is None else self.prior.log_prob

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """Importance-weighted lower bound of log p(x) with ``samples`` draws, ``(B,)`` nats; one draw is the ELBO's."""
        source = as_noise(noise, x.device)
        draw = partial(source.normal, like=x)
        return importance_weighted_bound(x, self.encoder, self.decoder, self.log_sigma, draw, samples, self._log_prior)


class EnergyBased:
    """Mixin of methods that learn an energy, their player "energy", by holding data against negatives.

    The class it is mixed into has ``energy_network`` and the `Method`'s ``noise``, ``update`` and ``report``.

    Attributes:
        data_noise: standard deviation of the noise on the data that the energy sees.
        penalties: what is added to the energy's loss.
    """

    energy_network: Any
    noise: Noise
    data_noise: float = 0.0
    penalties: Sequence[Penalty] = ()
    update: Any
    report: Any
    all_gather: Any
    _has_scales = False

    def energy(self, x: Tensor) -> Tensor:
        """The raw network output E(x), ``(B,)``; low means likely."""
        energy = self.energy_network(x)
        if energy.shape == (len(x), 1):  # as a linear layer at the end leaves it
            energy = energy.squeeze(1)
        return energy if energy.dtype == torch.float64 else energy.float()

    def score(self, x: Tensor) -> Tensor:
        """−E(x), ``(B,)``: high means in-distribution."""
        return -self.energy(x)

    def initialise_energy(self, x: Tensor) -> None:
        """Let a network that takes its first scales from data do so, once in its life; others are left alone.

        Args:
            x: a batch of data, this process's part of it.
        """
        if self._has_scales:
            return
        self._has_scales = True  # asked of the network once: its flag lies on the device
        if getattr(self.energy_network, "initialised", True):
            return
        joint = self.all_gather(x)  # the same scales on every process
        self.energy_network.initialise(joint.reshape(-1, *x.shape[1:]))

    def noisy(self, x: Tensor) -> Tensor:
        """Data as the energy sees them, with ``data_noise``."""
        return x + self.data_noise * self.noise.normal(x.shape, like=x) if self.data_noise else x

    def update_energy(
        self,
        data: Tensor,
        negatives: Tensor,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] = contrastive_gap,
        clock: bool = False,
    ) -> None:
        """One step of the energy: the gradient of E(data) − E(negatives), and of the penalties.

        Args:
            data: ``(B, …)``.
            negatives: ``(B, …)``, which no gradient reaches.
            loss: of the two energies, a scalar.
            clock: see `Method.update`.
        """
        energy_data, energy_model = self.energy(torch.cat([data, negatives])).chunk(2)
        total = loss(energy_data, energy_model)
        for penalty in self.penalties:
            total = total + penalty(self.energy_network, data, negatives, energy_data, energy_model)
        self.update("energy", total, clock=clock)
        self.report(
            {
                "train/energy_data": energy_data,
                "train/energy_model": energy_model,
                "train/energy_gap": contrastive_gap(energy_data, energy_model),
                "train/loss_energy": total,
            },
            show=["train/energy_gap"],
        )


class TaughtByChains(EnergyBased):
    """Mixin of methods whose energy learns from chains of ``sampler`` on it: their density is exp(−E/T), with its T."""

    sampler: Any

    def log_density(self, x: Tensor) -> Tensor:
        """−E(x)/T up to log Z, ``(B,)`` nats.

        Raises:
            ValueError: the training chain has T = 0, which teaches the energy no density.
        """
        if not self.sampler.temperature:
            raise ValueError("an energy that was trained at temperature 0 has learnt no density")
        return -self.energy(x) / self.sampler.temperature


def chain_health(start: Tensor, end: Tensor, chain: Chain) -> dict[str, Tensor]:
    """What is logged of a training chain: how far it moved the data, its last gradient, the values at the edge.

    Args:
        start: the data where the chain began, ``(B, …)``.
        end: and where it ended.
        chain: whose gradient and acceptances these are.
    """
    moved, inside = end - start, end.abs() < 1
    found = {
        "mcmc/displacement": squared_error(start, end).sqrt(),
        # Root mean square of a value. Bounds move those beyond them also where a chain stands still.
        "mcmc/movement": ((moved.square() * inside).sum() / inside.sum().clamp_min(1)).sqrt(),
        "mcmc/grad_norm": chain.grad_norm,
        "mcmc/saturation": (end.abs() >= 1).float(),
        "mcmc/acceptance": chain.acceptance,
        "mcmc/proposal_acceptance": chain.proposal_acceptance,
    }
    return {name: value for name, value in found.items() if value is not None}


class Calibrated(TaughtByChains):
    """Mixin of EC-VAE's calibration: the energy's chain revises a generator's samples, which is pulled after them.

    The class it is mixed into has the settings and the buffer below.
    """

    sampler: Langevin
    refine: Sampler | None
    condition_weight: float
    calibration_weight: Tensor
    dual_rate: float
    dual_margin: float
    dual_max: float
    trainer: Any
    logs_now: Any

    def revise(self, generated: Tensor, sampler: Sampler, noise: Noise, **call: Any) -> Chain:
        """Chains on E(x̃) + T·w·½‖x̃ − x̂‖², from x̂ (Eq. 1)."""
        weight = sampler.temperature * self.condition_weight
        potential = Tethered(self.energy_network, generated.clone(), weight) if weight else self.energy_network
        return sampler(potential, generated, noise, **call)

    def update_dual(self, distance: Tensor, dimensions: int) -> None:
        """λ from d = ‖x̂ − x̃‖², held against the displacement of the chain's noise alone (Eq. 2)."""
        ratio = self.in_floors(distance, self.sampler, dimensions)
        if self.dual_rate:
            dual_ascent(self.calibration_weight, ratio, self.dual_rate, self.dual_margin, self.dual_max)
        self.report(
            {"train/lambda": self.calibration_weight, "train/distance_in_floors": ratio},
            show=["train/lambda"],
        )

    def in_floors(self, distance: Tensor, sampler: Langevin, dimensions: int) -> Tensor:
        """A squared distance, averaged over the processes, in noise floors of a chain; itself where T = 0."""
        return self.trainer.strategy.reduce(distance, reduce_op="mean") / (sampler.noise_floor(dimensions) or 1.0)

    def test_sampler(self) -> tuple[Sampler | None, int]:
        """The chain after the generator, and its steps."""
        return self.refine, self.refine.steps if self.refine else 0

    def refined(self, x: Tensor, steps: int | None, noise: Noise, watch: Watch | None) -> Tensor:
        """Samples after the test-time chain: ``steps`` of it, or as many as ``refine`` says."""
        steps = self.test_sampler()[1] if steps is None else steps
        if not steps:
            return x
        return self.revise(x, self.refine or self.sampler, noise, steps=steps, watch=watch).x


class FlowBased:
    """Mixin of methods with a normalising flow of images in [−1, 1] that have ``levels`` grey levels.

    Data are dequantised: uniform noise as wide as the step between two levels makes their density finite; samples are
    rounded to the nearest level again. The class it is mixed into has what is declared below.
    """

    flow: Any
    levels: int
    image_shape: tuple[int, ...]
    noise: Noise

    @staticmethod
    def check_levels(levels: int) -> None:
        """Refuse a number of levels that leaves nothing to tell apart."""
        if levels < 2:
            raise ValueError(f"images have at least 2 grey levels, not {levels}")

    def dequantise(self, x: Tensor, noise: Noise) -> Tensor:
        """Add noise uniform in ±half a level."""
        return x + (noise.uniform(x.shape, like=x) - 0.5) * self._step

    def quantise(self, x: Tensor) -> Tensor:
        """The nearest of the levels, in [−1, 1]."""
        return ((x.clamp(-1, 1) + 1) / self._step).round() * self._step - 1

    @property
    def _step(self) -> float:
        return 2 / (self.levels - 1)

    def generate(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """Draws of the flow, ``(n, *image_shape)``, not rounded; gradients reach the flow."""
        return self.flow.sample(noise.normal((n, math.prod(self.image_shape)), like=like)).to(like.dtype)

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """Lower bound of the log of the density averaged over x's level, ``(B,)`` nats, with ``samples`` draws.

        The discrete log-probability is this plus log(2/(levels − 1)) for each pixel and channel.
        """
        source = as_noise(noise, x.device)
        draws = [self.flow.log_prob(self.dequantise(x, source)).to(x.dtype) for _ in range(samples)]
        return torch.logsumexp(torch.stack(draws), 0) - math.log(samples)

    def bits_per_dim(self, bound: Tensor) -> Tensor:
        """A bound of the density (see `log_likelihood_bound`) as bits per dimension of the discrete images."""
        return -(bound / math.prod(self.image_shape) + math.log(self._step)) / math.log(2)
