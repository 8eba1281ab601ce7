"""What several methods have in common besides the contract: a Gaussian autoencoder, an energy learned by contrast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Noise, as_noise
from ebmzoo.objectives import Elbo, Penalty, contrastive_gap, elbo, importance_weighted_bound, squared_error

__all__ = ["Autoencoding", "EnergyBased"]


class Autoencoding:
    """Mixin of methods with an encoder, a decoder and a Gaussian likelihood p(x|z) = N(x; decoder(z), σ²).

    The class it is mixed into has ``encoder``, ``decoder``, ``latent_dim``, ``log_sigma`` and ``noise``.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_dim: int
    log_sigma: Tensor
    noise: Noise

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both ``(B, latent_dim)``."""
        mean, log_variance = self.encoder(x)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z), ``(B, *image_shape)``."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoded posterior means, ``(B, *image_shape)``."""
        return self.decode(self.encode(x)[0])

    def elbo(self, x: Tensor, noise: Noise | None = None) -> Elbo:
        """The evidence lower bound and its pieces with one posterior draw, nats."""
        xi = (noise or self.noise).normal((len(x), self.latent_dim), like=x)
        return elbo(x, self.encoder, self.decoder, self.log_sigma, xi)

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """Importance-weighted lower bound of log p(x) with ``samples`` draws, ``(B,)`` nats; one draw is the ELBO's."""
        source = as_noise(noise, x.device)
        draw = partial(source.normal, like=x)
        return importance_weighted_bound(x, self.encoder, self.decoder, self.log_sigma, draw, samples)


class EnergyBased:
    """Mixin of methods that learn an energy, their player "energy", by holding data against negatives.

    The class it is mixed into has ``energy_network`` and the `Method`'s ``update``, ``report`` and ``logs_now``.
    """

    energy_network: Any
    penalties: Sequence[Penalty] = ()
    update: Any
    report: Any
    logs_now: Any

    def energy(self, x: Tensor) -> Tensor:
        """The raw network output E(x), ``(B,)``; low means likely."""
        energy = self.energy_network(x)
        return energy if energy.dtype == torch.float64 else energy.float()

    def score(self, x: Tensor) -> Tensor:
        """−E(x), ``(B,)``: high means in-distribution."""
        return -self.energy(x)

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

    def report_chain(self, start: Tensor, end: Tensor, grad_norm: Tensor) -> None:
        """Log how far a chain in the data's space went, its last gradient, and the share of pixels at the border."""
        if self.logs_now():
            self.report(
                {
                    "mcmc/displacement": squared_error(start, end).sqrt(),
                    "mcmc/grad_norm": grad_norm,
                    "mcmc/saturation": (end.abs() >= 1).float(),
                }
            )
