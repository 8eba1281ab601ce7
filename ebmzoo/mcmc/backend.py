"""Ways to evaluate a potential in a chain: by autograd, or by a recorded program, which may be compiled or captured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .capture import Capture, Walk, captures
from .noise import Noise
from .potential import Potential
from .program import GradientOnly, Program, Recorded
from .reading import Reading, key_of_tensor
from .trace import Untraceable

if TYPE_CHECKING:
    from .sampler import Sampler, State

Backend = Literal["auto", "eager", "trace", "compile", "cudagraph"]

PAYS_AFTER = 50
"""Walks of chains with one potential after which ``auto`` records it: that costs about as much as so many."""

_KEPT = 64
_CAPTURED = 8  # the newest programs, whose graphs are kept: each holds a copy of its networks' tensors
_programs: OrderedDict[Hashable, Program | str | int] = OrderedDict()
"""By key: a program, why there is none, or the number of steps until now. The newest; none holds a model alive."""


class Walked(Protocol):
    """What a step sees of a potential."""

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        """See `Potential`."""

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""


class Engine(NamedTuple):
    """How one chain evaluates its potential.

    Attributes:
        whole: U and ∇U.
        slopes: the same where nobody looks at energies.
        captured: makes of a sampler and a state like those to come its captured steps, if there are any.
    """

    whole: Walked
    slopes: Walked
    captured: Callable[[Sampler, State], Walk | None] = lambda sampler, state: None


@contextmanager
def engine(backend: Backend, potential: Potential, x: Tensor, steps: int, apart: bool = False) -> Iterator[Engine]:
    """The potential as one chain evaluates it.

    Args:
        backend: see `Sampler`.
        potential: at rest, and refreshed for the first step.
        x: where the chain begins.
        steps: how many there will be.
        apart: something looks at every step, or its step size is of this chain alone: none is a graph.

    Raises:
        ValueError: the backend cannot evaluate this potential (``auto`` always can).
    """
    recorded = None if backend == "eager" else _recorded(backend, potential, x, steps, apart)
    if recorded is None:
        yield Engine(potential, potential)
        return

    def captured(sampler: Sampler, state: State) -> Walk | None:
        if recorded.capture is None:
            return None
        try:
            return Walk(recorded.capture.step(sampler, recorded, state), recorded)
        except Untraceable as error:
            if backend == "auto":
                return None
            raise _refusal(backend, error) from error

    yield Engine(recorded, GradientOnly(recorded, x), captured)
    recorded.tell_observers()


def _recorded(backend: Backend, potential: Potential, x: Tensor, steps: int, apart: bool) -> Recorded | None:
    """None where autograd is to do it."""
    capture = captures(x.device) if backend != "trace" else None
    if backend == "cudagraph" and capture is None:
        raise ValueError(f"backend cudagraph captures CUDA graphs, but the state is on {x.device}: take trace or auto")
    if apart:
        capture = None
    # A graph pays in its second chain already: launches are what a GPU waits for.
    counted = steps if capture is None else max(steps, PAYS_AFTER // 2)
    try:
        reading = Reading(potential)
        program = _program(potential, x, reading, counted if backend == "auto" else PAYS_AFTER, backend == "compile")
        if program is None:
            return None
    except Exception as error:
        # Whatever a program cannot do, autograd may; if the potential itself is wrong, it will say so there.
        if backend == "auto":
            return None
        if isinstance(error, Untraceable):
            raise _refusal(backend, error) from error
        raise
    if capture is not None and program.captured is None:
        program.captured = Capture(program, capture)
    graphs = None if capture is None else program.captured
    return Recorded(potential, reading, program, graphs, x.device.type, strict=backend != "auto")


def _refusal(backend: Backend, error: Untraceable) -> ValueError:
    return ValueError(f"backend {backend} cannot run this potential: {error}; take auto or eager")


def _program(potential: Potential, x: Tensor, reading: Reading, steps: int, compiled: bool) -> Program | None:
    """The program of a potential, kept from an earlier chain or new; None before it pays."""
    device = x.device.type
    settings = (
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
    )
    key = reading.key, key_of_tensor(x), settings, compiled
    found = _programs.pop(key, 0)
    if isinstance(found, int):
        found += steps
        if found >= PAYS_AFTER:
            try:
                found = Program(potential, x, reading, compiled)
            except Untraceable as error:
                found = str(error)  # the error itself would hold the frames in which it was raised
    _programs[key] = found
    while len(_programs) > _KEPT:
        _programs.popitem(last=False)
    for old in list(_programs.values())[:-_CAPTURED]:
        if isinstance(old, Program):
            old.captured = None
    if isinstance(found, str):
        raise Untraceable(found)
    return found if isinstance(found, Program) else None
