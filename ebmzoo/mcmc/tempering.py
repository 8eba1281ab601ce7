"""Replica exchange: chains at higher temperatures, which find other modes, hand them down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .backend import Walked
from .metropolis import HMC
from .noise import Noise
from .potential import per_example
from .sampler import State


@dataclass(frozen=True)
class ReplicaExchange(HMC):
    """Replica exchange, or parallel tempering: each chain has replicas at higher temperatures, and swaps with them.

    Paper: Swendsen and Wang, "Replica Monte Carlo simulation of spin glasses", 1986; Geyer, "Markov chain Monte Carlo
    maximum likelihood", 1991. A step is one of Hamiltonian Monte Carlo at each of T = T₀ < T₁ < … < T_R, all from one
    step size (in the normal form noise grows with T by itself), and then, from the hottest pair down, states of
    neighbours swap with probability

        min(1, exp((1/T_k − 1/T_{k+1}) (U(x_k) − U(x_{k+1})))).

    So each chain at T_k has exp(−U/T_k) as its stationary density, and those at T are returned: B chains for B starts,
    with the swap rates as ``swap_rate``. Rates far below 0.2 ask for more temperatures between. A step costs what R + 1
    of `HMC` do; replicas are stepped one after another, so that what a potential is conditioned on keeps its batch.

    Args:
        steps: number of steps K of a call that names none.
        step_size: the square of the leapfrog step.
        temperature: T, that of the chains that are returned.
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        warmup: steps of each call that find the step size by dual averaging on the chains at T, see `Metropolis`.
        target_acceptance: that they aim at.
        leapfrogs: leapfrog steps a proposal; one is `MALA`.
        jitter: of their size, see `HMC`.
        ladder: T_k/T of the hotter replicas, rising from above 1; a geometric one gives Gaussians equal swap rates.

    Example:
        >>> import torch
        >>> wells = lambda x: 8 * (x.square() - 1).square().sum(1)  # a barrier of 8 T between two modes
        >>> chain = ReplicaExchange(steps=300, step_size=0.05)(wells, torch.ones(200, 1), noise=0)
        >>> abs(float((chain.x < 0).float().mean()) - 0.5) < 0.15, chain.swap_rate.shape
        (True, torch.Size([200, 3]))
    """

    leapfrogs: int = 1
    ladder: tuple[float, ...] = (2.0, 4.0, 8.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        rungs = (1.0, *self.ladder)
        if not self.ladder or any(not low < high for low, high in zip(rungs, rungs[1:], strict=False)):
            raise ValueError(f"a ladder of temperatures rises from above 1, not {list(self.ladder)}")

    @property
    def temperatures(self) -> list[float]:
        """T₀ … T_R."""
        return [self.temperature * rung for rung in (1.0, *self.ladder)]

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        state = super().start(potential, x, noise)
        swapped = state.energy.new_zeros(len(x), len(self.ladder))
        return state._replace(hotter=(state,) * len(self.ladder), swapped=swapped)

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        temperatures = self.temperatures
        assert state.swapped is not None
        replicas = [
            HMC(1, self.step_size, temperature, leapfrogs=self.leapfrogs, jitter=self.jitter).step(
                potential, replica, noise
            )
            for temperature, replica in zip(temperatures, (state, *state.hotter), strict=True)
        ]
        swapped = torch.zeros_like(state.swapped)
        for k in reversed(range(len(self.ladder))):
            cold, hot = replicas[k : k + 2]
            log_ratio = (1 / temperatures[k] - 1 / temperatures[k + 1]) * (cold.energy - hot.energy)
            swaps = noise.uniform(log_ratio.shape, log_ratio).log() < log_ratio
            replicas[k : k + 2] = _chosen(swaps, hot, cold), _chosen(swaps, cold, hot)
            swapped[:, k] = swaps
        return replicas[0]._replace(hotter=tuple(replicas[1:]), swapped=state.swapped + swapped)


def _chosen(swaps: Tensor, other: State, own: State) -> State:
    """The other's place where they swap; how its own proposals fared stays with a temperature."""
    there = per_example(swaps, own.x)
    return own._replace(
        x=torch.where(there, other.x, own.x),
        energy=torch.where(swaps, other.energy, own.energy),
        grad=torch.where(there, other.grad, own.grad),
    )
