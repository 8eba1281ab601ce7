"""Chains that somebody else runs, watched: a method's own, from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from .potential import Potential

if TYPE_CHECKING:
    from .sampler import Chain, Sampler, State, Watch

__all__ = ["Observer", "Observes", "both", "observed", "observer_of"]


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
