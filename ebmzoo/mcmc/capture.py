"""Chains as CUDA graphs: what holds for a chain is one graph, a whole step another, replayed K times.

A launch costs the host more than many of a step's kernels cost the card; a graph is one launch. All that a graph reads
and writes stays where it is in memory: the state, the noise that the one source fills before each replay, the tensors
and the step size that change with a noise level, and the tensors of the networks, copied in at the start of each chain.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .noise import Noise
from .observing import NaNCheck
from .program import Program, Recorded, Run
from .trace import Untraceable

if TYPE_CHECKING:
    from .sampler import Sampler, State

CaptureBy = Callable[[Callable[[], Any]], Callable[[], None]]
"""Makes of a function without arguments one that replays it: tensors that it writes in place are written again."""

TOLERANCE = 1e-2
"""Largest error of a graph's first replay, as a share of its length: more than rounding in bf16 does."""

_stand_in: ContextVar[CaptureBy | None] = ContextVar("stand_in", default=None)


@contextmanager
def captured_by(capture: CaptureBy) -> Iterator[None]:
    """Within, chains on every device go the ways of CUDA, with another function in the place of `capture_graph`.

    What needs no GPU to be known can so be tested and counted without one.
    """
    token = _stand_in.set(capture)
    try:
        yield
    finally:
        _stand_in.reset(token)


def captures(device: torch.device) -> CaptureBy | None:
    """What captures graphs on a device; None where there are none."""
    return _stand_in.get() or (capture_graph if device.type == "cuda" else None)


_pool: list[Any] = []


def capture_graph(run: Callable[[], Any]) -> Callable[[], None]:
    """Capture a function without arguments in a CUDA graph and return its replay.

    All graphs share one pool of memory: they are replayed one after the other, and what must outlive a replay lies
    outside it, or is held. Other threads, a loader's that pins memory, go on meanwhile.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose their algorithms and workspaces before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    if not _pool:
        _pool.append(torch.cuda.graph_pool_handle())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool[0], capture_error_mode="thread_local"):
        run()
    return graph.replay


class Captured:
    """A function of tensors, captured: inputs and outputs stay where they are.

    Args:
        run: of tensors, returns a tuple of new tensors.
        inputs: what it is called with first, in shape, dtype and layout like all to come.
        capture: see `captures`.
    """

    def __init__(self, run: Run, inputs: Sequence[Tensor], capture: CaptureBy):
        self._inputs = [tensor.detach().clone() for tensor in inputs]
        self.outputs = tuple(output.clone() for output in run(*self._inputs))
        expected = [output.clone() for output in self.outputs]
        self._replay = capture(lambda: copy_into(self.outputs, run(*self._inputs)))
        for output in self.outputs:
            output.zero_()
        self._replay()
        if not agree(self.outputs, expected):
            raise RuntimeError("a replay gives something else")

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Bring ``outputs`` up to date with new inputs, and return them: the next call overwrites them."""
        copy_into(self._inputs, inputs)
        self._replay()
        return self.outputs


class Capture:
    """What a program's chains have captured: its prologue, and a step of each sampler that walked on it.

    Args:
        program: of a potential.
        capture: see `captures`.
    """

    def __init__(self, program: Program, capture: CaptureBy):
        self._program, self._capture = program, capture
        self._prologue: Captured | str | None = None
        self._steps: dict[Hashable, Step | str] = {}

    def bake(self, still: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Trace.bake`; in tensors that the next chain overwrites."""
        if self._prologue is None:
            try:
                self._prologue = Captured(lambda *still: self._program.bake(still), still, self._capture)
            except Exception as error:
                self._prologue = f"its prologue cannot be captured: {error}"
                warnings.warn(self._prologue, stacklevel=2)
        return self._program.bake(still) if isinstance(self._prologue, str) else self._prologue(*still)

    def step(self, sampler: Sampler, recorded: Recorded, state: State) -> Step:
        """The captured step of a sampler, kept or new.

        Raises:
            Untraceable: it cannot be captured.
        """
        key = type(sampler), repr(sorted(vars(sampler).items()))
        if key not in self._steps:
            try:
                self._steps[key] = Step(sampler, recorded, state, self._capture)
            except Exception as error:
                self._steps[key] = words = f"a step of {type(sampler).__name__} cannot be captured: {error}"
                warnings.warn(words, stacklevel=2)
        for found in (self._prologue, self._steps[key]):
            if isinstance(found, str):
                raise Untraceable(found)
        assert isinstance(found, Step)
        return found


class Step:
    """A step of a sampler as one graph.

    Args:
        sampler: whose `step` it is, and whose `kernels` differ from it in their step size alone.
        recorded: what it walks on.
        state: one like those to come.
        capture: see `captures`.

    Attributes:
        state: where the graph has it.
        evaluations: of the potential, a step.
        sick: number of steps whose gradient was not a number, since it was set to zero.
    """

    def __init__(self, sampler: Sampler, recorded: Recorded, state: State, capture: CaptureBy):
        kernel, self._size = sampler, None
        kernels = [one for one, _ in sampler.kernels(max(sampler.steps, 1))]
        if any(one is not sampler for one in kernels):  # a step size that follows a noise level
            if any(replace(one, step_size=sampler.step_size) != sampler for one in kernels):
                raise Untraceable("its kernels differ in more than their step size")
            self._size = state.x.new_full((), sampler.step_size)
            kernel = copy.copy(sampler)
            object.__setattr__(kernel, "step_size", self._size)
        self.state = _like(state)
        self._moving = [tensor.clone() for tensor in recorded.moving]
        self._noise, self._still = GivenNoise(), _Still(recorded.program.value_and_grad, self._moving, recorded.baked)
        self.sick = torch.zeros((), dtype=torch.int64, device=state.x.device)

        def run() -> None:
            self._noise.rewind()
            new = kernel.step(self._still, self.state, self._noise)
            self.sick.add_(new.grad.sum().isnan())
            copy_into(_tensors(self.state), _tensors(new))

        with recorded.plain():
            run()  # finds out what noise it takes
            self.evaluations, expected = self._still.calls, self.state.grad.clone()
            self._replay = capture(run)
        copy_into(_tensors(self.state), _tensors(state))
        self._noise.clear()
        self._replay()  # what it leaves in the state is overwritten before the next one
        if not agree([self.state.grad], [expected]):
            raise RuntimeError("a replay gives another gradient")

    def __call__(self, kernel: Sampler, moving: Sequence[Tensor], state: State, noise: Noise) -> State:
        """The state after a step of a kernel, in tensors that the next step overwrites."""
        if state.x is not self.state.x:
            copy_into(_tensors(self.state), _tensors(state))
        if self._size is not None:
            self._size.fill_(kernel.step_size)
        copy_into(self._moving, moving)
        self._noise.fill(noise)
        self._replay()
        return self.state


class Walk:
    """A captured step as one chain takes it.

    Args:
        step: the step.
        recorded: what the chain walks on.
    """

    def __init__(self, step: Step, recorded: Recorded):
        self._step, self._recorded, self._steps = step, recorded, 0
        step.sick.zero_()

    def __call__(self, kernel: Sampler, state: State, noise: Noise) -> State:
        """The state after a step, in tensors that the next one overwrites."""
        if not self._recorded.holds:  # a number changed, which the graph has written out
            return kernel.step(self._recorded, _like(state), noise)
        self._steps += 1
        self._recorded.steps += self._step.evaluations
        return self._step(kernel, self._recorded.moving, state, noise)

    def end(self, state: State, check: NaNCheck | None) -> State:
        """The state in tensors of its own; and the check is told what it has not seen."""
        if check is not None:
            check.looked(self._steps, self._step.sick)
        return _like(state)


class GivenNoise(Noise):
    """Noise that lies in buffers, which are made when they are first asked for."""

    def __init__(self) -> None:
        self._buffers: list[tuple[str, Tensor]] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def clear(self) -> None:
        """As they were made: who asks may write in them."""
        for _, buffer in self._buffers:
            buffer.zero_()

    def fill(self, noise: Noise) -> None:
        """Draw anew, in the order in which a step asks."""
        for kind, buffer in self._buffers:
            (noise.normal_ if kind == "normal" else noise.uniform_)(buffer)

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        return self._buffer("normal", shape, like)

    def uniform(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        return self._buffer("uniform", shape, like)

    def integers(self, high: int, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        raise Untraceable("it draws integers")

    def normal_(self, out: Tensor) -> Tensor:
        return out.copy_(self.normal(out.shape, out))

    def uniform_(self, out: Tensor) -> Tensor:
        return out.copy_(self.uniform(out.shape, out))

    def _buffer(self, kind: str, shape: Sequence[int], like: Tensor | None) -> Tensor:
        if self._next == len(self._buffers):
            new = torch.zeros(tuple(shape)) if like is None else like.new_zeros(tuple(shape))
            self._buffers.append((kind, new))
        self._next += 1
        return self._buffers[self._next - 1][1]


class _Still:
    """A program with the tensors that it takes besides x where they are; nothing refreshes it."""

    def __init__(self, run: Run, moving: Sequence[Tensor], baked: Sequence[Tensor]):
        self._run, self._rest, self.calls = run, (*moving, *baked), 0

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        raise Untraceable("its step refreshes the potential")

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""
        self.calls += 1
        energy, grad = self._run(x, *self._rest)
        return energy, grad


def _like(state: State) -> State:
    """A copy, of what the next step needs."""
    own: dict[str, Any] = {name: tensor.clone() for name, tensor in _own(state).items()}
    return state._replace(log_ratio=None, hotter=tuple(map(_like, state.hotter)), **own)


def _tensors(state: State) -> list[Tensor]:
    return [*_own(state).values(), *(tensor for one in state.hotter for tensor in _tensors(one))]


def _own(state: State) -> dict[str, Tensor]:
    own = {name: value for name, value in state._asdict().items() if isinstance(value, Tensor)}
    own.pop("log_ratio", None)  # of the last step, which a warm-up alone looks at
    return own


def agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether a replay gave what the function itself gave: all together, to `TOLERANCE` of its length.

    A graph that was captured wrongly gives no error but numbers.
    """
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b.is_floating_point() and b.numel()]
    if not pairs:
        return True
    error = nn.utils.get_total_norm([a - b for a, b in pairs])
    length = nn.utils.get_total_norm([b for _, b in pairs])
    return bool((error <= TOLERANCE * length) | ~length.isfinite())


def copy_into(to: Sequence[Tensor], of: Sequence[Tensor]) -> None:
    """Copy tensors into others, all in one operation."""
    if to:
        torch._foreach_copy_(list(to), list(of))
