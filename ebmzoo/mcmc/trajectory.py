"""States of a chain on its way, for whoever wants more of it than where it ended."""

from __future__ import annotations

import torch
from torch import Tensor

from .sampler import State


class Trajectory:
    """A sampler's ``watch`` that keeps every so-many-th state, before the step, and the energy there.

    Args:
        every: steps from one kept state to the next; the first one kept is where the chain begins.

    Attributes:
        steps: the number of each kept state's step.

    Raises:
        ValueError: ``every`` is less than one.

    Example:
        >>> import torch
        >>> from ebmzoo.mcmc import Langevin
        >>> way = Trajectory(every=10)
        >>> chain = Langevin(steps=25)(lambda x: x.square().sum(1), torch.zeros(3, 2), noise=0, watch=way)
        >>> way.steps, way.states.shape, way.energies.shape
        ([0, 10, 20], torch.Size([3, 3, 2]), torch.Size([3, 3]))
    """

    def __init__(self, every: int = 1):
        if every < 1:
            raise ValueError(f"a trajectory keeps every state or fewer: every is at least 1, not {every}")
        self.every = every
        self.steps: list[int] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, step: int, state: State) -> None:
        """Keep this state, if it is its turn."""
        if step % self.every == 0:
            self.steps.append(step)
            self._kept.append((state.x, state.energy))

    @property
    def states(self) -> Tensor:
        """``(kept, B, …)``."""
        return torch.stack([x for x, _ in self._kept])

    @property
    def energies(self) -> Tensor:
        """U of the kept states, ``(kept, B)``."""
        return torch.stack([energy for _, energy in self._kept])
