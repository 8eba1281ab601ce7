"""States of a chain on its way, for whoever wants more of it than where it ended."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Trajectory"]


class Trajectory:
    """A sampler's callback that keeps every so-many-th state, before the step, and the energy there.

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
        >>> chain = Langevin(steps=25)(lambda x: x.square().sum(1), torch.zeros(3, 2), noise=0, callback=way)
        >>> way.steps, way.states.shape, way.energies.shape
        ([0, 10, 20], torch.Size([3, 3, 2]), torch.Size([3, 3]))
    """

    def __init__(self, every: int = 1):
        if every < 1:
            raise ValueError(f"a trajectory keeps every state or fewer: every is at least 1, not {every}")
        self.every = every
        self.steps: list[int] = []
        self._states: list[tuple[Tensor, ...]] = []
        self._energies: list[Tensor] = []
        self._single = True

    def __call__(self, step: int, state: Tensor | tuple[Tensor, ...], energy: Tensor) -> None:
        """Keep a copy of this state, if it is its turn: the chain goes on writing into the given one."""
        if step % self.every:
            return
        self._single = isinstance(state, Tensor)
        leaves = (state,) if isinstance(state, Tensor) else state
        self.steps.append(step)
        self._states.append(tuple(leaf.detach().clone() for leaf in leaves))
        self._energies.append(energy.detach().clone())

    @property
    def states(self) -> Tensor | tuple[Tensor, ...]:
        """``(kept, B, …)``, or a tuple of such where the chain's state is one."""
        leaves = tuple(torch.stack(kept) for kept in zip(*self._states, strict=True))
        return leaves[0] if self._single and leaves else leaves

    @property
    def energies(self) -> Tensor:
        """U of the kept states, ``(kept, B)``."""
        return torch.stack(self._energies)
