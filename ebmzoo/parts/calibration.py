"""EC-VAE's calibration: what pulls a generator after its revised samples, and the dual variable that weighs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Langevin
from ebmzoo.parts.objectives import squared_error

from .processes import mean_over_processes


class Dual(nn.Module):
    """A dual variable λ, held where a squared distance is a margin of noise floors (EC-VAE, Eq. 2).

    λ ← clip(λ + η·(d/floor − margin)/margin, 0, λ_max), where floor = K·s·T·D is what a chain's noise alone displaces;
    at T = 0 there is none, and d itself is held against the margin.

    Args:
        weight: λ at the start; the released code: 30.
        rate: η; 0 keeps λ. The released code: 0.01 on an absolute margin.
        margin: tolerated d, in noise floors.
        maximum: λ_max; the released code: 100.

    Raises:
        ValueError: the margin is not positive.

    Example:
        >>> dual, sampler = Dual(rate=0.1), Langevin(steps=1, step_size=0.5, temperature=2.0)
        >>> round(dual.ascend(torch.tensor(12.0), sampler, dimensions=2).item(), 2), round(dual.weight.item(), 2)
        (6.0, 1.1)
    """

    weight: Tensor

    def __init__(self, weight: float = 1.0, rate: float = 2e-3, margin: float = 3.0, maximum: float = 100.0):
        super().__init__()
        if margin <= 0:
            raise ValueError(f"the margin of a dual variable must be positive, not {margin}")
        self.rate, self.margin, self.maximum = rate, margin, maximum
        self.register_buffer("weight", torch.tensor(float(weight)))

    def ascend(self, distance: Tensor, sampler: Langevin, dimensions: int) -> Tensor:
        """The dual step; returns d in noise floors, averaged over all processes.

        Args:
            distance: d, the mean of the batch.
            sampler: whose chains moved that far.
            dimensions: D.
        """
        floors = mean_over_processes(distance.detach()) / (sampler.noise_floor(dimensions) or 1.0)
        if self.rate:
            self.weight.add_(self.rate * (floors - self.margin) / self.margin).clamp_(0.0, self.maximum)
        return floors


class Calibration(Dual):
    """λ·d/2σ² with d = ‖x̂ − x̃‖², the pull of generated samples towards revised ones (EC-VAE, Definition 1)."""

    def forward(self, generated: Tensor, revised: Tensor, log_sigma: Tensor) -> Tensor:
        """A scalar, whose gradient reaches ``generated`` alone: a learned σ is the bound's matter."""
        return self.weight * 0.5 * (-2 * log_sigma.detach()).exp() * squared_error(generated, revised).mean()
