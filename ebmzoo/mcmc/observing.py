"""What is said of chains from outside: who watches those that somebody else runs, and whether they refuse a NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .potential import Potential

if TYPE_CHECKING:
    from .sampler import Chain, Sampler, State, Watch


class Observer(Protocol):
    """What a chain tells somebody who did not call it: its steps, and how it ended."""

    def __call__(self, step: int, state: State) -> None:
        """See `Watch`."""

    def ended(self, chain: Chain) -> None:
        """The chain is over."""


Observes = Callable[["Sampler", Potential], Observer | None]
"""Makes an observer of a chain, given its sampler and its potential; None if this one is not to be watched."""

_observes: ContextVar[Observes | None] = ContextVar("observes", default=None)


@contextmanager
def observed(observes: Observes) -> Iterator[None]:
    """Within, every call of a sampler is told to the observer that is made for it."""
    token = _observes.set(observes)
    try:
        yield
    finally:
        _observes.reset(token)


def observer_of(sampler: Sampler, potential: Potential) -> Observer | None:
    """The observer of a chain that begins now."""
    observes = _observes.get()
    return None if observes is None else observes(sampler, potential)


def both(first: Watch | None, second: Watch | None) -> Watch | None:
    """Two watches as one."""
    if first is None or second is None:
        return first or second

    def watch(step: int, state: State) -> None:
        first(step, state)
        second(step, state)

    return watch


# -- energies that are not a number ------------------------------------------------------------------------------------

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
