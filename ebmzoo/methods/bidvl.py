"""Bi-level doubly variational learning of an energy-based latent variable model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal, get_args

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
    spec,
)
from ebmzoo.mcmc import Noise, frozen
from ebmzoo.parts import GaussianVAE
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.objectives import squared_error
from ebmzoo.parts.processes import mean_over_processes

from .answers import AnswersByCode, AnswersByEnergy
from .base import Method, Updates

Latent = Literal["likelihood", "mse", "none"]


class BiDVL(AnswersByCode, AnswersByEnergy, Method):
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
        energy: makes the energy from image_shape: an `Energy`, or a bare network; the paper's has spectral norm, and
            with residual networks the released code takes ``contrast: hinge``.
        latent_dim: size of h; the released code: 100, with residual networks 128.
        ratio: r'; the paper: 0.05 at 32 px, 0.1 at 64 px.
        ratio_bias: whether r(v) has the bias.
        latent: the second term of the lower level: "likelihood" as above, "mse" in the released code's form,
            "none" without it (Table 6, "w/o").
        latent_weight: w; the paper: 1.
        offset: whether Eq. 13 replaces Eq. 11, and Eq. 14 Eq. 12.
        lower_steps: N; the paper: 1.
        log_variance_bound: b > 0; q's log-variance is b·tanh(l/b), l what the inference network says.
        energy_optimizer: makes the energy's optimiser; the released code: Adam (0, 0.9) at 1e-4.
        variational_optimizer: makes that of G with q; the released code: Adam (0, 0.9) at 3e-4, weight decay 1e-4.
        energy_schedule: makes the energy's learning-rate schedule; the released code:
            exponential, 0.998 an epoch.
        variational_schedule: makes that of G with q; the released code: the same.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if there is no such ``latent``, ``lower_steps`` is below 1, or the term that is not to be
            offset is left out.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> energy = spec(MLPEnergy, spectral_norm=True)
        >>> BiDVL((1, 8, 8), MLPEncoder, MLPDecoder, energy, latent_dim=4).sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap", "train/loss_variational")

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
        lower_steps: int = 1,
        log_variance_bound: float = 5.0,
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        variational_optimizer: OptimizerFactory = spec(Adam, lr=3e-4, betas=[0.0, 0.9], weight_decay=1e-4),
        energy_schedule: ScheduleFactory | None = None,
        variational_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if latent not in get_args(Latent):
            raise ValueError(f"unknown latent {latent!r}: choose one of {', '.join(get_args(Latent))}")
        if lower_steps < 1:
            raise ValueError(f"lower_steps must be at least 1, not {lower_steps}")
        if latent == "none" and not offset:
            raise ValueError("offset: false needs the latent term: set latent to likelihood or mse")
        # G and q as a VAE has them; its likelihood has no part here.
        bound = log_variance_bound
        self.vae: GaussianVAE = GaussianVAE(
            self.image_shape, encoder, decoder, latent_dim, sigma=1.0, log_variance_bound=bound
        )
        self.ebm = energy_of(energy, self.image_shape)
        self.ratio, self.ratio_bias = ratio, ratio_bias
        self.latent, self.latent_weight, self.offset, self.lower_steps = latent, latent_weight, offset, lower_steps
        self.trains(
            variational=([self.vae.decoder, self.vae.encoder], variational_optimizer, variational_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        for _ in range(self.lower_steps):  # 3
            loss, seen = self.lower_level(x)
            yield "variational", loss, seen  # 4
        with torch.no_grad():
            generated = self.vae.decode(self.draw_latents(len(x), self.noise, x))
        if not self.offset:
            kl = self.vae.posterior(generated).kl()
            yield "variational", self.latent_weight * kl.mean(), {"train/kl_model": kl}
        yield "energy", *self.ebm.loss(x, generated, self.noise)  # 7

    def lower_level(self, v: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 11 or 13, a scalar; and what is logged of it."""
        posterior = self.vae.posterior(v)
        inferred = posterior.draw(self.draw_latents(len(v), self.noise, v))
        h = self.draw_latents(len(v), self.noise, v)
        # One forward for both, so that BatchNorm keeps one set of statistics.
        reconstruction, generated = self.vae.decode(torch.cat([inferred, h])).chunk(2)
        error, kl = squared_error(reconstruction, v), posterior.kl()
        with frozen(self.ebm):
            energy, ratio = self.ebm(generated), self.ratio_of(v)
        loss = energy + ratio * (error + kl)
        seen = {"train/sse": error, "train/kl": kl}
        if self.latent != "none":
            seen["train/latent"] = self.latent_term(h, generated)
            loss = loss + self.latent_weight * seen["train/latent"]
        return loss.mean(), {**seen, "train/loss_variational": loss}

    def ratio_of(self, v: Tensor) -> Tensor | float:
        """r(v), Eq. 15: a number that no gradient sees."""
        if not self.ratio_bias:
            return self.ratio
        energy = self.ebm(v)
        return self.ratio * torch.sigmoid(mean_over_processes(energy.mean()) - energy)

    def latent_term(self, h: Tensor, generated: Tensor) -> Tensor:
        """−log q(h|v) of v = G(h), or the released code's form of it."""
        with frozen(self.vae.encoder) if self.offset else nullcontext():
            posterior = self.vae.posterior(generated)
        if self.latent == "mse":
            return squared_error(posterior.mean, h) / h.shape[1]
        return -posterior.log_prob(h)

    def begin(self, n: int, noise: Noise) -> Tensor:
        """G of ``n`` prior draws."""
        return self.decode(self.draw_latents(n, noise, self.like))

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Reconstruction error and energy: its posterior is of no VAE, so there is no bound."""
        return {"mse": squared_error(self.reconstruct(x), x) / x[0].numel(), **self.ebm.validate(x, noise)}

    def log_density(self, x: Tensor) -> Tensor:
        """−E(x), log p(x) up to log Z, ``(B,)`` nats."""
        return -self.energy(x)
