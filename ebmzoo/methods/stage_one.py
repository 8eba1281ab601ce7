"""A VAE trained before or beside an energy: its loss, what it alone answers, and the file it may come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Noise, as_noise
from ebmzoo.objectives import balanced_kl, gaussian_log_prob, latent_bound, latent_log_weight

__all__ = ["StageOne", "TakesVAE", "VAEFactory", "load_vae"]

VAEFactory = Callable[[tuple[int, ...]], nn.Module]


class TakesVAE:
    """Mixin of methods whose VAE, called ``vae``, can come from a checkpoint, ``vae_ckpt``."""

    vae: Any
    vae_ckpt: str | None = None
    _rng_to_restore: Any

    def setup(self, stage: str) -> None:
        """Take the VAE of ``vae_ckpt``, before callbacks look at weights and before a resumed run restores its own."""
        super().setup(stage)  # type: ignore[misc]
        if stage == "fit" and self.vae_ckpt and Path(self.vae_ckpt).is_file():
            load_vae(self.vae, self.vae_ckpt)

    def on_fit_start(self) -> None:
        """A resumed run has its VAE in its own checkpoint; any other needs the file."""
        super().on_fit_start()  # type: ignore[misc]
        if self.vae_ckpt and self._rng_to_restore is None and not Path(self.vae_ckpt).is_file():
            here = ", or vae_steps to train the VAE here" if hasattr(self, "vae_steps") else ""
            raise FileNotFoundError(
                f"no stage-one checkpoint at {self.vae_ckpt} (vae_ckpt, looked from {Path.cwd()}): give one of VAE or "
                f"VAEBM{here}"
            )


class StageOne(TakesVAE):
    """Mixin of methods with a VAE of Gaussian groups of latents (`ebmzoo.networks.LatentVAE`) called ``vae``."""

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions, all groups together."""
        return self.vae.latent_dim

    def vae_bound(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """log p(x|z) ``(B,)`` and the KL of each group ``(groups, B)`` (Eq. 3), with one draw of z, nats."""
        return latent_bound(x, self.vae.infer(x, partial(noise.normal, like=x)))

    def vae_loss(self, x: Tensor, noise: Noise, warmth: float, regularisation: tuple[float, float]) -> Tensor:
        """Eq. 3 as a loss, with NVAE's warm-up.

        Args:
            x: data.
            noise: where the posterior's noise comes from.
            warmth: weight of the KL, 0 to 1; below 1 its groups are balanced.
            regularisation: weight of the network's own regularisation at warmth 0 and 1; in between it moves in the
                logarithm.
        """
        log_likelihood, kl = self.vae_bound(x, noise)
        sizes = [math.prod(shape) for shape in self.vae.noise_shapes]
        total = kl.sum(0) if warmth == 1 else max(warmth, 1e-4) * balanced_kl(kl, sizes)
        loss = (total - log_likelihood).mean()
        start, end = regularisation
        return loss + start ** (1 - warmth) * end**warmth * self.vae.regularisation() if end else loss

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), both ``(B, latent_dim)``; below the top group, given the means above."""
        return self.vae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x|z), ``(B, *image_shape)``, of ``(B, latent_dim)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.vae.decode(z)

    def draw_latents(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """``(n, latent_dim)`` latents from the prior, all groups together, with the dtype and device of ``like``."""
        z = self.vae.generate(*(noise.normal((n, *shape), like) for shape in self.vae.noise_shapes)).z
        return torch.cat([group.flatten(1) for group in z], 1)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of all groups together, ``(B,)`` nats."""
        sizes = [math.prod(shape) for shape in self.vae.noise_shapes]
        groups = [g.unflatten(1, shape) for g, shape in zip(z.split(sizes, 1), self.vae.noise_shapes, strict=True)]
        pairs = zip(groups, self.vae.evaluate(*groups).prior, strict=True)
        return sum((gaussian_log_prob(group, *prior) for group, prior in pairs), start=z.new_zeros(len(z)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoded posterior means, ``(B, *image_shape)``, not clamped either."""
        return self.vae.infer(x, lambda shape: x.new_zeros(tuple(shape))).mean

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """Importance-weighted lower bound of the VAE's log p(x) with ``samples`` draws, ``(B,)`` nats.

        That of VAEBM's whole model is this − E(x) − log Z, and log Z is not known.
        """
        draw = partial(as_noise(noise, x.device).normal, like=x)
        weights = [latent_log_weight(x, self.vae.infer(x, draw)) for _ in range(samples)]
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)


def load_vae(vae: nn.Module, path: str | Path) -> None:
    """Put the VAE of a stage-one checkpoint into ``vae``: read as tensors, its averaged weights if it has some.

    Args:
        vae: the VAE, whose parts' names (encoder, decoder, log_sigma) are those of a checkpoint of `VAE`.
        path: a file there is: a checkpoint of `VAE` or of a VAEBM.

    Raises:
        ValueError: it cannot be read as tensors, or its VAE is another.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights = {**checkpoint["state_dict"], **(checkpoint.get("ema") or {})}
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise ValueError(f"{path} (vae_ckpt) cannot be read as a checkpoint of tensors") from error
    prefix = "vae." if any(name.startswith("vae.") for name in weights) else ""
    wanted = vae.state_dict()
    parts = {name.partition(".")[0] for name in wanted}
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not prefix:
        found = {name: value for name, value in found.items() if name.partition(".")[0] in parts}
    odd = sorted(wanted.keys() ^ found.keys())
    odd += [name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape]
    if odd:
        raise ValueError(
            f"the VAE of {path} (vae_ckpt) is not this config's: {len(odd)} of {len(wanted)} weights differ "
            f"({odd[0]}, …); give vae the networks and sizes that it was trained with"
        )
    vae.load_state_dict(found)
