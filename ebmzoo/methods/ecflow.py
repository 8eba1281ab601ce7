"""Energy-Calibrated normalising flow."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, FlowFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Langevin, Noise, Sampler, Tethered, as_noise
from ebmzoo.parts import Calibration, Energy, ImageFlow
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.objectives import squared_error

from .answers import AnswersByChains
from .base import Method, Updates


class ECFlow(AnswersByChains, Method):
    """Energy-Calibrated normalising flow (EC-Flow): EC-VAE's calibration of a flow in place of a decoder.

    Paper: Luo et al., "Energy-Calibrated VAE with Test Time Free Lunch", section 4.2.
    Idea: a flow is trained on data alone, in the direction from data to noise. Here an energy revises its samples by a
    few Langevin steps, and the flow, run from noise to data, is pulled towards what became of them.

    Equations, in the paper's numbers:
        chain (Eq. 1): U(x̃) = E(x̃) + T·w·½‖x̃ − x̂‖², from x̂.
        energy (section 3): ∇[E(x) − E(x̃)].
        flow (section 4.2): λ·d/2σ² − log p(x), d = ‖x̂ − x̃‖² per image.
        dual (Eq. 2): as in `ECVAE`.

    Algorithm 1, one iteration:
        1. Take a batch of data and dequantise it to x.
        2. Generate x̂ from the flow.
        3. Revise: x̃ = K Langevin steps from x̂.
        4. Update the energy.
        5. Update the flow: likelihood of x, calibration towards x̃.
        6. Update λ.

    Where we differ from the paper: nothing of EC-Flow's code is public; σ, by which λ means the same as in `ECVAE`, is
    ours, and so are the warm start and that data are dequantised for the energy too.

    Args:
        image_shape: shape of one example, ``(C, H, W)``.
        flow: makes the flow from image_shape; the paper: Glow.
        energy: makes the energy from image_shape: an `Energy`, or a bare network.
        calibration: makes λ, its rate η and its margin.
        levels: grey levels of the data, evenly spaced in [−1, 1]: 256 for images of 8 bits, 17 for digits at 8 px.
        sampler: the training chain; the paper: 30 steps for CIFAR-10.
        refine: the test-time chain, from the flow's samples; None is one-step generation. The paper: better with it.
        condition_weight: w above; it acts only when w ≳ 0.1/(s·T).
        sigma: standard deviation, in the data's units, of the Gaussian around x̂ whose likelihood of x̃ is the
            calibration.
        flow_steps: iterations of the flow alone before the calibration begins.
        flow_optimizer: makes the flow's optimiser.
        energy_optimizer: makes the energy's.
        flow_schedule: makes the flow's learning-rate schedule, which counts the flow's iterations.
        energy_schedule: makes the energy's, which counts the energy's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: fewer than two levels.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import Glow, MLPEnergy
        >>> model = ECFlow((1, 8, 8), partial(Glow, levels=2, steps=1, width=8), MLPEnergy, levels=17)
        >>> model.sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    log_sigma: Tensor
    shows = ("train/energy_gap", "train/bits_per_dim", "train/lambda")

    def __init__(
        self,
        image_shape: ImageShape,
        flow: FlowFactory,
        energy: EnergyFactory,
        calibration: Callable[[], Calibration] = spec(Calibration),
        levels: int = 256,
        sampler: Langevin = Langevin(steps=30, step_size=0.1, temperature=1e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        condition_weight: float = 1.0,
        sigma: float = math.sqrt(0.5),
        flow_steps: int = 0,
        flow_optimizer: OptimizerFactory = spec(Adam, lr=2e-4),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        flow_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.flow = ImageFlow(self.image_shape, flow, levels)
        self.ebm, self.calibration = energy_of(energy, self.image_shape), build(calibration)
        self.sampler, self.refine, self.condition_weight = sampler, refine, condition_weight
        self.flow_steps = flow_steps
        self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
        self.trains(
            flow=(self.flow, flow_optimizer, flow_schedule),
            energy=(self.ebm, energy_optimizer, energy_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        x = self.flow.dequantise(x, self.noise)  # 1
        if self.iteration < self.flow_steps:
            yield from self.update_flow(x)
            return
        if not self.flow_steps and self.iteration == 0:
            with torch.no_grad():
                self.flow.log_prob(x)  # a new flow takes its scales from data, not from its own samples
        generated = self.flow.generate(len(x), self.noise, like=x)  # 2
        chain = self.sampler(self.potential(generated.detach(), self.sampler), generated, self.noise)  # 3
        yield "energy", *self.ebm.loss(x, chain.x, self.noise)  # 4
        yield from self.update_flow(x, self.calibration(generated, chain.x, self.log_sigma))  # 5
        distance = squared_error(generated.detach(), chain.x).mean()
        in_floors = self.calibration.ascend(distance, self.sampler, x[0].numel())  # 6
        self.report({"train/lambda": self.calibration.weight, "train/distance_in_floors": in_floors})
        if self.logs_now():
            self.report(health(generated.detach(), chain.x, chain))

    def update_flow(self, x: Tensor, pull: Tensor | float = 0.0) -> Updates:
        """The likelihood of x and the pull towards revised samples."""
        log_density = self.flow.log_prob(x)
        loss = pull - log_density.mean()
        yield "flow", loss, {"train/loss_flow": loss, "train/bits_per_dim": self.flow.bits_per_dim(log_density)}

    def potential(self, state: Tensor, sampler: Sampler) -> Energy | Tethered:
        """Eq. 1."""
        weight = sampler.temperature * self.condition_weight
        return Tethered(self.ebm, state, weight) if weight else self.ebm

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Draws of the flow."""
        return self.flow.generate(n, noise, self.like)

    def emit(self, state: Tensor, steps: int) -> Tensor:
        """At the data's levels."""
        return self.flow.quantise(state)

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """That of the flow, see `ImageFlow.log_likelihood_bound`, ``(B,)`` nats."""
        return self.flow.log_likelihood_bound(x, samples, as_noise(noise, x.device))

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Bits per dimension, and the energy of dequantised data, which it learns from."""
        return {**self.flow.validate(x, noise), **self.ebm.validate(self.flow.dequantise(x, noise), noise)}
