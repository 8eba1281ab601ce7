"""The normalising flow: the baseline of EC-Flow."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import FlowFactory, ImageShape, OptimizerFactory, ScheduleFactory, spec
from ebmzoo.mcmc import Noise, SharedNoise, as_noise
from ebmzoo.parts import ImageFlow

from .base import Method, Updates


class Flow(Method):
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

    shows = ("train/bits_per_dim",)

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
        self.flow = ImageFlow(self.image_shape, flow, levels)
        self.trains(flow=(self.flow, optimizer, schedule))

    def algorithm(self, x: Tensor) -> Updates:
        """The algorithm above."""
        log_density = self.flow.log_prob(self.flow.dequantise(x, self.noise))
        loss = -log_density.mean()
        yield "flow", loss, {"train/loss_flow": loss, "train/bits_per_dim": self.flow.bits_per_dim(log_density)}

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Draws of the flow."""
        return self.flow.generate(n, noise, self.like)

    def emit(self, state: Tensor, steps: int) -> Tensor:
        """At the data's levels."""
        return self.flow.quantise(state)

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), ``(B,)`` nats, of dequantised images ``(B, *image_shape)``."""
        return self.flow.log_prob(x).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        """The bound of the log-density, ``(B,)`` nats, with one fixed draw for all: high means in-distribution."""
        return self.log_likelihood_bound(x, noise=SharedNoise.of_seed(0, x.device))

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """See `ImageFlow.log_likelihood_bound`, ``(B,)`` nats."""
        return self.flow.log_likelihood_bound(x, samples, as_noise(noise, x.device))
