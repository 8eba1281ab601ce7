"""What a VAE is, whether its latents are one vector or a hierarchy of groups: p(z), p(x|z), q(z|x), and its bound."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ebmzoo.factories import ImageShape
from ebmzoo.mcmc import Noise
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.parts.objectives import balanced_kl

from .statistics import refit

Draw = Callable[[Sequence[int]], Tensor]
"""Gives standard normal numbers of a shape, batch first."""


class Latents(NamedTuple):
    """One pass through a VAE, groups of latents from the top down.

    Attributes:
        z: the latents, one ``(B, …)`` a group.
        prior: p(z_l | z_<l) of each group.
        x: p(x|z); its mean is ``(B, *image_shape)``.
        posterior: q(z_l | z_<l, x) of each group, where x was given.
    """

    z: tuple[Tensor, ...]
    prior: tuple[Gaussian, ...]
    x: Gaussian
    posterior: tuple[Gaussian, ...] = ()

    @property
    def mean(self) -> Tensor:
        """Mean of p(x|z)."""
        return self.x.mean

    @property
    def noise(self) -> tuple[Tensor, ...]:
        """The white noise that the prior turns into ``z`` (the inverse of VAEBM's Eq. 8)."""
        return tuple(prior.white(z) for z, prior in zip(self.z, self.prior, strict=True))


class Bound(NamedTuple):
    """The evidence lower bound with one draw of the latents, in pieces.

    Attributes:
        log_likelihood: log p(x|z), ``(B,)`` nats.
        kl: of each group, ``(groups, B)`` nats.
        latents: the pass that it is of.
    """

    log_likelihood: Tensor
    kl: Tensor
    latents: Latents

    @property
    def bound(self) -> Tensor:
        """The bound itself, E_q[log p(x|z)] − KL(q ‖ p), ``(B,)`` nats."""
        return self.log_likelihood - self.kl.sum(0)


class LatentVAE(nn.Module, ABC):
    """Base of the VAEs: Gaussian prior, posterior and likelihood, all three as shift and scale of white noise.

    Attributes:
        image_shape: shape of one example.
        noise_shapes: shape of each group of latents, from the top down, without the batch.
        kl_weight: β, the weight of the KL term in `loss`.
        least_sigma: the smallest σ that p(x|z) can have, data units.
    """

    image_shape: tuple[int, ...]
    noise_shapes: tuple[tuple[int, ...], ...]
    kl_weight: float = 1.0
    least_sigma: float = 0.0

    @abstractmethod
    def generate(self, *noise: Tensor) -> Latents:
        """White noise, one ``(B, …)`` a group, to the latents and the distribution of x (VAEBM Eq. 8)."""

    @abstractmethod
    def evaluate(self, *z: Tensor) -> Latents:
        """Given latents to their priors and the distribution of x."""

    @abstractmethod
    def infer(self, x: Tensor, draw: Draw) -> Latents:
        """Latents drawn from q(z|x), with the noise of ``draw``."""

    @abstractmethod
    def generator(self) -> list[nn.Module | nn.Parameter]:
        """The parts that `generate` uses: prior and decoder."""

    def regularisation(self) -> Tensor:
        """What is added to the loss of VAEBM's first stage; nothing unless a network says otherwise."""
        return torch.zeros(())

    # -- the latents as one vector ----------------------------------------------------------------------------------

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions, all groups together."""
        return sum(math.prod(shape) for shape in self.noise_shapes)

    def groups(self, z: Tensor) -> tuple[Tensor, ...]:
        """Latents ``(B, latent_dim)`` as one tensor a group."""
        parts = z.split([math.prod(shape) for shape in self.noise_shapes], dim=1)
        return tuple(part.unflatten(1, shape) for part, shape in zip(parts, self.noise_shapes, strict=True))

    def white(self, n: int, noise: Noise, like: Tensor) -> tuple[Tensor, ...]:
        """White noise for ``n`` examples, one tensor a group."""
        return tuple(noise.normal((n, *shape), like) for shape in self.noise_shapes)

    @torch.no_grad()
    def draw(self, n: int, noise: Noise, like: Tensor, temperature: float = 1.0) -> Tensor:
        """Latents from the prior, ``(n, latent_dim)``, which no gradient reaches.

        Args:
            n: how many.
            noise: where their white noise comes from.
            like: a tensor of the device and dtype wanted.
            temperature: factor on the white noise.
        """
        z = self.generate(*(temperature * part for part in self.white(n, noise, like))).z
        return torch.cat([group.flatten(1) for group in z], 1)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of latents ``(B, latent_dim)``, ``(B,)`` nats."""
        return self._log_prior(self.evaluate(*self.groups(z)))

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x), mean and log σ both ``(B, latent_dim)``; below the top group, given the means above."""
        posterior = self.infer(x, lambda shape: x.new_zeros(tuple(shape))).posterior
        flat = ([part.flatten(1) for part in parts] for parts in zip(*posterior, strict=True))
        mean, log_sigma = (torch.cat(parts, 1) for parts in flat)
        return Gaussian(mean, log_sigma)

    def decode(self, z: Tensor) -> Tensor:
        """Latents ``(B, latent_dim)`` to the mean of p(x|z), ``(B, *image_shape)``."""
        return self.evaluate(*self.groups(z)).mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoded means of the posterior, ``(B, *image_shape)``."""
        return self.infer(x, lambda shape: x.new_zeros(tuple(shape))).mean

    # -- the bound --------------------------------------------------------------------------------------------------

    def bound(self, x: Tensor, noise: Noise) -> Bound:
        """The evidence lower bound of x and its pieces."""
        latents = self.infer(x, partial(noise.normal, like=x))
        return Bound(latents.x.log_prob(x), self._kl(latents), latents)

    def loss(
        self, x: Tensor, bound: Bound, warmth: float = 1.0, regularisation: tuple[float, float] = (0.0, 0.0)
    ) -> Tensor:
        """β·KL − log p(x|z), a scalar, with NVAE's warm-up.

        Args:
            x: the data.
            bound: of them.
            warmth: weight of the KL, 0 to 1; below 1 its groups are balanced.
            regularisation: weight of the network's own `regularisation` at warmth 0 and 1; in between it moves in the
                logarithm.
        """
        sizes = [math.prod(shape) for shape in self.noise_shapes]
        kl = bound.kl.sum(0) if warmth == 1 else max(warmth, 1e-4) * balanced_kl(bound.kl, sizes)
        loss = (self.kl_weight * kl + self._misfit(x, bound)).mean()
        start, end = regularisation
        return loss + start ** (1 - warmth) * end**warmth * self.regularisation() if end else loss

    def log_likelihood_bound(self, x: Tensor, samples: int, noise: Noise) -> Tensor:
        """The importance-weighted bound log 1/k Σ p(x, z_k)/q(z_k|x), ``(B,)`` nats; with k = 1 the ELBO's estimate."""
        weights = [self._log_weight(x, self.infer(x, partial(noise.normal, like=x))) for _ in range(samples)]
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)

    def log_joint(self, x: Tensor, latents: Latents) -> Tensor:
        """log p(x, z), ``(B,)`` nats."""
        return latents.x.log_prob(x) + self._log_prior(latents)

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """What is logged of held-out data: ELBO ``(B,)`` nats, and the reconstructions' mean squared error."""
        error = (self.reconstruct(x) - x).flatten(1).square()
        return {"elbo": self.bound(x, noise).bound, "mse": error.sum(1) / error.shape[1]}

    def _log_weight(self, x: Tensor, latents: Latents) -> Tensor:
        log_weight = self.log_joint(x, latents)
        for z, posterior in zip(latents.z, latents.posterior, strict=True):
            log_weight = log_weight - posterior.log_prob(z)
        return log_weight

    def _log_prior(self, latents: Latents) -> Tensor:
        found = [prior.log_prob(z) for z, prior in zip(latents.z, latents.prior, strict=True)]
        return sum(found[1:], start=found[0])

    def _kl(self, latents: Latents) -> Tensor:
        """Of each group, ``(groups, B)``."""
        return torch.stack([q.kl(p) for q, p in zip(latents.posterior, latents.prior, strict=True)])

    def _misfit(self, x: Tensor, bound: Bound) -> Tensor:
        """What stands for −log p(x|z) in the loss, ``(B,)``."""
        return -bound.log_likelihood

    @torch.no_grad()
    def readjusted(self, temperature: float, draw: Draw, batch: int = 64, passes: int = 20) -> LatentVAE:
        """A copy whose BatchNorm statistics are those of its own samples at a temperature (NVAE, section 4.1).

        Statistics of the training do not hold for samples of scaled-down noise. What only the encoder uses keeps its
        own.

        Args:
            temperature: factor on the white noise.
            draw: gives the noise.
            batch: size of a batch.
            passes: number of batches; the statistics are the mean over them.
        """
        other = copy.deepcopy(self).eval()

        def generate() -> Latents:
            return other.generate(*(temperature * draw((batch, *shape)) for shape in self.noise_shapes))

        refit(other, generate, passes)
        return other


VAEFactory = Callable[[ImageShape], LatentVAE]


def load_vae(vae: nn.Module, path: str | Path) -> None:
    """Put the VAE of a checkpoint into ``vae``: read as tensors, its averaged weights if it has some.

    A fixed σ is a setting, not a weight: ``vae`` keeps its own. With σ and β = (σ₁/σ)² networks have the same optimum
    as with σ₁ and β = 1, so those of one σ serve another.

    Args:
        vae: the VAE.
        path: a file there is: a checkpoint of a method that has one.

    Raises:
        ValueError: it cannot be read as tensors, or its VAE is another.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights = {**checkpoint["state_dict"], **(checkpoint.get("ema") or {})}
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise ValueError(f"{path} (vae_ckpt) cannot be read as a checkpoint of tensors") from error
    wanted = vae.state_dict()
    found = {name.removeprefix("vae."): value for name, value in weights.items() if name.startswith("vae.")}
    odd = sorted(wanted.keys() ^ found.keys())
    odd += [name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape]
    if odd:
        raise ValueError(
            f"the VAE of {path} (vae_ckpt) is not this config's: {len(odd)} of {len(wanted)} weights differ "
            f"({odd[0]}, …); give vae the networks and sizes that it was trained with"
        )
    fixed = {name: value for name, value in vae.named_buffers() if name == "log_sigma"}
    vae.load_state_dict({**found, **fixed})
