"""Energy-Calibrated normalising flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Langevin, Noise, Sampler, Watch, as_noise
from ebmzoo.objectives import Penalty, squared_error

from .base import (
    EnergyFactory,
    FlowFactory,
    ImageShape,
    Method,
    OptimizerFactory,
    ScheduleFactory,
    build,
    spec,
)
from .mixins import Calibrated, FlowBased, chain_health


class ECFlow(FlowBased, Calibrated, Method):
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
        energy: makes the energy from image_shape.
        levels: grey levels of the data, evenly spaced in [−1, 1]: 256 for images of 8 bits, 17 for digits at 8 px.
        sampler: the training chain; the paper: 30 steps for CIFAR-10.
        refine: the test-time chain, from the flow's samples; None is one-step generation. The paper: better with it.
        condition_weight: w above; it acts only when w ≳ 0.1/(s·T).
        sigma: standard deviation, in the data's units, of the Gaussian around x̂ whose likelihood of x̃ is the
            calibration.
        calibration_weight: λ at the start.
        dual_rate: η; 0 keeps λ fixed.
        dual_margin: tolerated d, in noise floors.
        dual_max: λ_max.
        flow_steps: iterations of the flow alone before the calibration begins.
        penalties: what is added to the energy's loss.
        flow_optimizer: makes the flow's optimiser.
        energy_optimizer: makes the energy's.
        flow_schedule: makes the flow's learning-rate schedule, stepped every iteration.
        energy_schedule: makes the energy's.
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

    def __init__(
        self,
        image_shape: ImageShape,
        flow: FlowFactory,
        energy: EnergyFactory,
        levels: int = 256,
        sampler: Langevin = Langevin(steps=30, step_size=0.1, temperature=1e-5),  # noqa: B008 - frozen, holds no state
        refine: Sampler | None = None,
        condition_weight: float = 1.0,
        sigma: float = math.sqrt(0.5),
        calibration_weight: float = 1.0,
        dual_rate: float = 2e-3,
        dual_margin: float = 3.0,
        dual_max: float = 100.0,
        flow_steps: int = 0,
        penalties: Sequence[Penalty] = (),
        flow_optimizer: OptimizerFactory = spec(Adam, lr=2e-4),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.9]),
        flow_schedule: ScheduleFactory | None = None,
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.check_levels(levels)
        self.flow = build(flow, self.image_shape)
        self.energy_network = build(energy, self.image_shape)
        self.levels, self.flow_steps, self.condition_weight = levels, flow_steps, condition_weight
        self.sampler, self.refine, self.penalties = sampler, refine, list(penalties)
        self.dual_rate, self.dual_margin, self.dual_max = dual_rate, dual_margin, dual_max
        self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
        self.register_buffer("calibration_weight", torch.tensor(float(calibration_weight)))
        self._flow = flow_optimizer, flow_schedule
        self._energy = energy_optimizer, energy_schedule

    def players(self) -> dict[str, Any]:
        return {"flow": ([self.flow], *self._flow), "energy": ([self.energy_network], *self._energy)}

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of Algorithm 1."""
        x = self.dequantise(self.data(batch), self.noise)
        if self.global_step < self.flow_steps:
            self._update_flow(x, calibration=x.new_zeros(()))
            return
        if not self.flow_steps and self.global_step == 0:
            with torch.no_grad():
                self.flow.log_prob(x)  # a new flow takes its scales from data, not from its own samples
        self.initialise_energy(x)
        # 2, 3: generate and revise.
        generated = self.generate(len(x), self.noise, like=x)
        chain = self.revise(generated.detach(), self.sampler, self.noise)
        # 4: the energy.
        self.update_energy(x, chain.x)
        # 5: the flow.
        distance = squared_error(generated, chain.x).mean()
        self._update_flow(x, distance)
        # 6: the dual variable.
        self.update_dual(distance.detach(), x[0].numel())
        if self.logs_now():
            self.report(chain_health(generated.detach(), chain.x, chain))

    def _update_flow(self, x: Tensor, calibration: Tensor) -> None:
        log_density = self.flow.log_prob(x)
        loss = self.calibration_weight * 0.5 * (-2 * self.log_sigma).exp() * calibration - log_density.mean()
        self.update("flow", loss, clock=True)
        self.report(
            {"train/loss_flow": loss, "train/bits_per_dim": self.bits_per_dim(log_density)},
            show=["train/bits_per_dim"],
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Bits per dimension and energy on held-out data."""
        x, noise = self.data(batch), self.validation_noise(batch_idx)
        bound = self.log_likelihood_bound(x, noise=noise)
        self.log("val/bits_per_dim", self.bits_per_dim(bound).mean(), sync_dist=True)
        self.log("val/energy_data", self.energy(self.dequantise(x, noise)).mean(), sync_dist=True)

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draws of the flow, ``(n, *image_shape)``, revised by a chain where one is asked for, at the data's levels.

        Args:
            n: number of samples.
            steps: chain steps after the flow: 0 is one-step generation; None is what ``refine`` says.
            noise: where the flow's and the chain's noise come from.
            watch: sees the chain.
        """
        source = as_noise(noise, self.device)
        with torch.inference_mode(False), torch.no_grad():
            x = self.generate(n, source, self.like)
            return self.quantise(self.refined(x, steps, source, watch))
