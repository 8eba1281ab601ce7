"""Ways to evaluate a potential in a chain: by autograd, or by a recorded program, which may be compiled or captured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

from .noise import Noise
from .potential import Potential
from .program import GradientOnly, Program, Recorded, Run
from .reading import Reading, key_of_tensor
from .trace import Untraceable

__all__ = ["PAYS_AFTER", "Backend", "Walked", "engine"]

Backend = Literal["auto", "eager", "trace", "compile", "cudagraph"]

PAYS_AFTER = 50
"""Steps of chains with one potential after which ``auto`` records it: that costs about as much as so many."""

_KEPT = 64
_programs: OrderedDict[Hashable, Program | str | int] = OrderedDict()
"""By key: a program, why there is none, or the number of steps until now. The newest; none holds a model alive."""


class Walked(Protocol):
    """What a step sees of a potential."""

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        """See `Potential`."""

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""


@contextmanager
def engine(backend: Backend, potential: Potential, x: Tensor, steps: int) -> Iterator[tuple[Walked, Walked]]:
    """The potential as one chain evaluates it: as it is, and for steps whose energies nobody looks at.

    Args:
        backend: see `Sampler`.
        potential: at rest, and refreshed for the first step.
        x: where the chain begins.
        steps: how many there will be.

    Raises:
        ValueError: the backend cannot evaluate this potential (``auto`` always can).
    """
    recorded = None if backend == "eager" else _recorded(backend, potential, x, steps)
    if recorded is None:
        yield potential, potential
        return
    yield recorded, GradientOnly(recorded, x)
    recorded.tell_observers()


def _recorded(backend: Backend, potential: Potential, x: Tensor, steps: int) -> Recorded | None:
    """None where autograd is to do it."""
    if backend == "cudagraph" and x.device.type != "cuda":
        raise ValueError(f"backend cudagraph captures CUDA graphs, but the state is on {x.device}: take trace or auto")
    try:
        reading = Reading(potential)
        program = _program(potential, x, reading, steps if backend == "auto" else PAYS_AFTER)
    except Exception as error:
        # Whatever a program cannot do, autograd may; if the potential itself is wrong, it will say so there.
        if backend == "auto":
            return None
        if isinstance(error, Untraceable):
            raise ValueError(f"backend {backend} cannot run this potential: {error}; take auto or eager") from error
        raise
    if program is None:
        return None
    if backend == "compile":
        runs = _made(program, backend, lambda run: torch.compile(run, dynamic=False))
    elif backend == "cudagraph":
        baked = program.bake([standing.now for standing in reading.still])
        inputs = [x, *(standing.now for standing in reading.moving), *baked]
        runs = _made(program, backend, lambda run: Captured(run, inputs, len(inputs) - len(baked)))
    else:
        runs = program.value_and_grad, program.gradient
    recorded = Recorded(potential, reading, program, runs, x.device.type, strict=backend != "auto")
    for run in runs:
        if isinstance(run, Captured):
            run.bake(recorded.baked)
    return recorded


def _program(potential: Potential, x: Tensor, reading: Reading, steps: int) -> Program | None:
    """The program of a potential, kept from an earlier chain or new; None before it pays."""
    device = x.device.type
    settings = (
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
    )
    key = reading.key, key_of_tensor(x), settings
    found = _programs.pop(key, 0)
    if isinstance(found, int):
        found += steps
        if found >= PAYS_AFTER:
            try:
                found = Program(potential, x, reading)
            except Untraceable as error:
                found = str(error)  # the error itself would hold the frames in which it was raised
    _programs[key] = found
    while len(_programs) > _KEPT:
        _programs.popitem(last=False)
    if isinstance(found, str):
        raise Untraceable(found)
    return found if isinstance(found, Program) else None


def _made(program: Program, backend: Backend, make: Callable[[Run], Run]) -> tuple[Run, Run]:
    """What a backend makes of a program's two functions, once."""
    if backend not in program.made:
        program.made[backend] = make(program.value_and_grad), make(program.gradient)
    found: tuple[Run, Run] = program.made[backend]
    return found


class Captured:
    """A program captured in a CUDA graph, with inputs and outputs that stay where they are in memory.

    Args:
        program: a function of tensors that returns a tuple of tensors.
        inputs: what it is to be called with, in shape and layout.
        moving: how many of the inputs, the first, change at every call; the others are set by `bake`.
        capture: makes of a function without arguments another that replays it, and its outputs.
    """

    def __init__(
        self,
        program: Run,
        inputs: Sequence[Tensor],
        moving: int,
        capture: Callable[[Run], tuple[Callable[[], None], tuple[Tensor, ...]]] | None = None,
    ):
        self.inputs, self.moving = [tensor.clone() for tensor in inputs], moving
        self._replay, self.outputs = (capture or capture_graph)(lambda: program(*self.inputs))

    def bake(self, tensors: Sequence[Tensor]) -> None:
        """Set the inputs that hold for many calls."""
        for buffer, tensor in zip(self.inputs[self.moving :], tensors, strict=True):
            buffer.copy_(tensor)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for new ``inputs``, of which only the moving ones are looked at; all copies."""
        for buffer, tensor in zip(self.inputs[: self.moving], inputs[: self.moving], strict=True):
            buffer.copy_(tensor)
        self._replay()
        return tuple(output.clone() for output in self.outputs)


def capture_graph(run: Run) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Capture a function without arguments in a CUDA graph: its replay, and where its outputs lie."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose their algorithms and workspaces before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    return graph.replay, outputs
