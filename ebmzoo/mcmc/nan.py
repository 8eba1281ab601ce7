"""Chains that meet an energy that is not a number say at which step, without waiting for the device on their way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["NaNCheck", "refuses_nan", "unguarded"]

_guarded: ContextVar[bool] = ContextVar("guarded", default=True)


def refuses_nan() -> bool:
    """Whether chains refuse an energy that is NaN."""
    return _guarded.get()


@contextmanager
def unguarded() -> Iterator[None]:
    """Within, chains hand on an energy that is NaN unseen: a training has a guard for it, and waits for no device."""
    token = _guarded.set(False)
    try:
        yield
    finally:
        _guarded.reset(token)


class NaNCheck:
    """Counts the steps of a chain that saw a NaN: it stays in the state, so they are the last ones.

    Args:
        like: a tensor on the chain's device.
    """

    def __init__(self, like: Tensor):
        self.steps = 0
        self._sick = torch.zeros((), dtype=torch.int64, device=like.device)

    def look(self, values: Tensor) -> None:
        """Note energies or a gradient of a step."""
        self.steps += 1
        self._sick.add_(values.sum().isnan())

    def looked(self, steps: int, sick: Tensor) -> None:
        """Add so many steps, of which so many saw a NaN."""
        self.steps += steps
        self._sick.add_(sick)

    def refuse_nan(self, energy: Tensor, from_start: bool = False) -> None:
        """Look at the last energy, and speak if it is NaN.

        Args:
            energy: ``(B,)``.
            from_start: it was so from the start, since nothing that is NaN is accepted.

        Raises:
            ValueError: it is; the words say from which step on.
        """
        if count := int(energy.isnan().sum()):
            first = 0 if from_start else self.steps - max(int(self._sick), 1)
            raise ValueError(
                f"the energy is NaN from step {first} on, at the end in {count} of {len(energy)} chains: the potential "
                f"is not defined there, or the chain diverged (a smaller step_size, bounds or max_drift prevent that)"
            )
