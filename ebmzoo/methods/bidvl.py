"""Bi-level doubly variational learning of an energy-based latent variable model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Noise, Watch, as_noise, frozen
from ebmzoo.objectives import contrastive_gap, gaussian_kl, gaussian_log_prob, hinge, squared_error

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
from .mixins import EnergyBased, GaussianLatent

Latent = Literal["likelihood", "mse", "none"]
Upper = Literal["likelihood", "hinge"]


class BiDVL(EnergyBased, GaussianLatent, Method):
    """Bi-level doubly variational learning: an energy learned without MCMC, from a generator's samples.

    Paper: Kan et al., "Bi-level Doubly Variational Learning for Energy-based Latent Variable Models",
    CVPR 2022.
    Idea: the maximum-likelihood gradient of an energy with latent variables needs samples of the model and of
    its posterior. A generator G and an inference network q stand for the two: the lower level fits them to the
    energy, to the data and to each other, the upper level fits the energy with their samples.

    Equations, in the paper's numbers; h ~ N(0, I), SSE = ‖v − G(h')‖² with h' ~ q(h'|v):
        model (Eq. 8): p(v, h) ∝ exp(−E(v))·q(h|v).
        lower level (Eq. 11): E(G(h)) − w·log q(h|G(h)) + r(v)·(SSE + KL(q(h|v) ‖ N(0, I))), v data. Offset
        (Eq. 13), the second term's gradient goes to G alone.
        upper level (Eq. 14): E(v) − E(G(h)), v data. Not offset (Eq. 12 as in section 4.4), also
        w·KL(q(h|v) ‖ N(0, I)) on v = G(h), whose gradient goes to q.
        ratio (Eq. 15): r(v) = r', or with the bias r'·sigmoid(mean E(data) − E(v)) (section 5.4).

    Algorithm 1, one iteration:
        2. Take a batch of data v.
        3. N times, with the energy fixed:
        4. update G and q by the lower level.
        7. Update the energy (and q, where not offset) by the upper level.

    Where we differ from the paper: the log-variance of q is bounded smoothly. From the released code:
    Algorithm 1's order (the code takes the upper level first); each level draws its own h; in the lower level
    the energy is frozen, in eval mode, and so is q where it is offset; log q has its variance (``latent: mse``
    is the code's ‖mean − h‖²/latent_dim).

    Args:
        image_shape: shape of one example.
        encoder: makes the inference network q from (image_shape, latent_dim).
        decoder: makes the generator G from (image_shape, latent_dim).
        energy: makes the energy from image_shape; the paper's has spectral norm.
        latent_dim: size of h; the released code: 100, with residual networks 128.
        ratio: r'; the paper: 0.05 at 32 px, 0.1 at 64 px.
        ratio_bias: whether r(v) has the bias.
        latent: the second term of the lower level: "likelihood" as above, "mse" in the released code's form,
            "none" without it (Table 6, "w/o").
        latent_weight: w; the paper: 1.
        offset: whether Eq. 13 replaces Eq. 11, and Eq. 14 Eq. 12.
        upper: "likelihood" as above, or "hinge", max(0, 1 + E(v)) + max(0, 1 − E(G(h))), which the released
            code takes with residual networks.
        lower_steps: N; the paper: 1.
        log_variance_bound: b > 0; q's log-variance is b·tanh(l/b), l what the inference network says.
        energy_optimizer: makes the energy's optimiser; the released code: Adam (0, 0.9) at 1e-4.
        variational_optimizer: makes that of G with q; the released code: Adam (0, 0.9) at 3e-4, weight decay 1e-4.
        energy_schedule: makes the energy's learning-rate schedule, stepped every iteration; the released code:
            exponential, 0.998 an epoch.
        variational_schedule: makes that of G with q; the released code: the same.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no such ``latent`` or ``upper``, ``lower_steps`` is below 1, or the term that
            is not to be offset is left out.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> energy = spec(MLPEnergy, spectral_norm=True)
        >>> BiDVL((1, 8, 8), MLPEncoder, MLPDecoder, energy, latent_dim=4).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        image_shape: ImageShape,
        encoder: EncoderFactory,
        decoder: DecoderFactory,
        energy: EnergyFactory,
        latent_dim: int = 100,
        ratio: float = 0.05,
        ratio_bias: bool = False,
        latent: Latent = "likelihood",
        latent_weight: float = 1.0,
        offset: bool = True,
        upper: Upper = "likelihood",
        lower_steps: int = 1,
        log_variance_bound: float = 5.0,
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        variational_optimizer: OptimizerFactory = spec(Adam, lr=3e-4, betas=[0.0, 0.9], weight_decay=1e-4),
        energy_schedule: ScheduleFactory | None = None,
        variational_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        for name, value, known in (("latent", latent, get_args(Latent)), ("upper", upper, get_args(Upper))):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        if lower_steps < 1:
            raise ValueError(f"lower_steps must be at least 1, not {lower_steps}")
        if latent == "none" and not offset:
            raise ValueError("offset: false needs the latent term: set latent to likelihood or mse")
        self.encoder = build(encoder, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.energy_network = build(energy, self.image_shape)
        self.latent_dim, self.log_variance_bound = latent_dim, log_variance_bound
        self.ratio, self.ratio_bias = ratio, ratio_bias
        self.latent, self.latent_weight, self.offset = latent, latent_weight, offset
        self.upper, self.lower_steps = upper, lower_steps
        self._variational = variational_optimizer, variational_schedule
        self._energy = energy_optimizer, energy_schedule

    def players(self) -> dict[str, Any]:
        return {
            "variational": ([self.decoder, self.encoder], *self._variational),
            "energy": ([self.energy_network], *self._energy),
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        v = self.data(batch)
        self.initialise_energy(v)
        # 3, 4: the lower level.
        for _ in range(self.lower_steps):
            self._update_variational(v)
        # 7: the upper level, on samples of the generator that the lower level left.
        with torch.no_grad():
            generated = self.decode(self._draw(v)).to(v.dtype)
        if not self.offset:
            self._update_inference(generated)
        self.update_energy(v, generated, loss=hinge if self.upper == "hinge" else contrastive_gap, clock=True)

    def _draw(self, v: Tensor) -> Tensor:
        """One h ~ N(0, I) for each example."""
        return self.noise.normal((len(v), self.latent_dim), like=v)

    def _update_variational(self, v: Tensor) -> None:
        mean, log_variance = self.encode(v)
        inferred = mean + (0.5 * log_variance).exp() * self._draw(v)
        h = self._draw(v)
        # One forward for both, so that BatchNorm keeps one set of statistics.
        reconstruction, generated = self.decode(torch.cat([inferred, h])).to(v.dtype).chunk(2)
        error, kl = squared_error(reconstruction, v), gaussian_kl(mean, log_variance)
        with frozen(self.energy_network):
            energy = self.energy(generated)
            ratio = self._ratio(v)
        loss = energy + ratio * (error + kl)
        reported = {"train/sse": error, "train/kl": kl}
        if self.latent != "none":
            latent = self._latent_term(h, generated)
            loss = loss + self.latent_weight * latent
            reported["train/latent"] = latent
        self.update("variational", loss.mean())
        self.report({**reported, "train/loss_variational": loss}, show=["train/loss_variational"])

    def _ratio(self, v: Tensor) -> Tensor | float:
        """r(v), Eq. 15: a number that no gradient sees."""
        if not self.ratio_bias:
            return self.ratio
        energy = self.energy(v)
        average = self.trainer.strategy.reduce(energy.mean(), reduce_op="mean")
        return self.ratio * torch.sigmoid(average - energy)

    def _latent_term(self, h: Tensor, generated: Tensor) -> Tensor:
        """−log q(h|v) of v = G(h), or the released code's form of it."""
        with frozen(self.encoder) if self.offset else nullcontext():
            mean, log_variance = self.encode(generated)
        if self.latent == "mse":
            return squared_error(mean, h) / self.latent_dim
        return -gaussian_log_prob(h, mean, 0.5 * log_variance)

    def _update_inference(self, generated: Tensor) -> None:
        kl = gaussian_kl(*self.encode(generated))
        self.update("variational", self.latent_weight * kl.mean())
        self.report({"train/kl_model": kl})

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Reconstruction error and energy on held-out data."""
        v = self.data(batch)
        self.log("val/mse", squared_error(self.reconstruct(v), v).mean() / v[0].numel(), sync_dist=True)
        self.log("val/energy_data", self.energy(v).mean(), sync_dist=True)

    def log_density(self, x: Tensor) -> Tensor:
        """−E(x), log p(x) up to log Z, ``(B,)`` nats."""
        return -self.energy(x)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and bounded log-variance of q(h|x), both ``(B, latent_dim)``."""
        mean, log_variance = (value.to(x.dtype) for value in self.encoder(x))
        return mean, self.log_variance_bound * torch.tanh(log_variance / self.log_variance_bound)

    def decode(self, z: Tensor) -> Tensor:
        """G(z), ``(B, *image_shape)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """G of the posterior's mean, ``(B, *image_shape)``, not clamped either."""
        return self.decode(self.encode(x)[0])

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """G of ``n`` prior draws, ``(n, *image_shape)``; BiDVL has no chain to step or to watch."""
        if steps:
            raise ValueError("BiDVL samples in one step: it has no chain, so --steps cannot be given")
        return self.decode(self.draw_latents(n, as_noise(noise, self.device), self.like))
