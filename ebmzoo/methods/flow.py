"""The normalising flow: the baseline of EC-Flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Noise, SharedNoise, Watch, as_noise

from .base import FlowFactory, ImageShape, Method, OptimizerFactory, ScheduleFactory, build, spec
from .mixins import FlowBased


class Flow(FlowBased, Method):
    """Normalising flow on dequantised images, by maximum likelihood.

    Paper: Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018; Table 1 of EC-VAE.
    Idea: an invertible network from images to white noise gives their exact density by the change of variables.

    Equation: log p(x + u) = log N(f(x + u); 0, I) + log|det ∂f/∂x|, u uniform in ±half a grey level; its mean over u
    bounds the log-likelihood of the discrete images (Theis et al., 2016).

    Algorithm, one iteration:
        1. Dequantise a batch of data.
        2. Ascend the log-density.

    Args:
        image_shape: shape of one example, ``(C, H, W)``.
        flow: makes the flow from image_shape.
        levels: grey levels of the data, evenly spaced in [−1, 1]: 256 for images of 8 bits, 17 for digits at 8 px.
        optimizer: makes the optimiser.
        schedule: makes its learning-rate schedule, stepped every iteration.
        grad_clip: largest norm of the gradient.

    Raises:
        ValueError: fewer than two levels.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import Glow
        >>> flow = Flow((1, 8, 8), partial(Glow, levels=2, steps=1, width=8), levels=17)
        >>> flow.sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        image_shape: ImageShape,
        flow: FlowFactory,
        levels: int = 256,
        optimizer: OptimizerFactory = spec(Adam, lr=1e-3),
        schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.check_levels(levels)
        self.flow = build(flow, self.image_shape)
        self.levels = levels
        self._flow = optimizer, schedule

    def players(self) -> dict[str, Any]:
        return {"flow": ([self.flow], *self._flow)}

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of the algorithm above."""
        x = self.dequantise(self.data(batch), self.noise)
        log_density = self.flow.log_prob(x)
        loss = -log_density.mean()
        self.update("flow", loss, clock=True)
        self.report(
            {"train/loss_flow": loss, "train/bits_per_dim": self.bits_per_dim(log_density)},
            show=["train/bits_per_dim"],
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Bits per dimension on held-out data."""
        bound = self.log_likelihood_bound(self.data(batch), noise=self.validation_noise(batch_idx))
        self.log("val/bits_per_dim", self.bits_per_dim(bound).mean(), sync_dist=True)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), ``(B,)`` nats, of dequantised images ``(B, *image_shape)``."""
        return self.flow.log_prob(x).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        """The bound of the log-density, ``(B,)`` nats, with one fixed draw for all: high means in-distribution."""
        return self.log_likelihood_bound(x, noise=SharedNoise.of_seed(0, x.device))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draws of the flow, ``(n, *image_shape)``, at the data's levels; a flow has no chain to step or to watch."""
        if steps:
            raise ValueError("a flow samples in one step: it has no chain, so --steps cannot be given")
        return self.quantise(self.generate(n, as_noise(noise, self.device), self.like))
