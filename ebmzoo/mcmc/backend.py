"""Ways to evaluate a potential and its gradient: by autograd, or by a trace, which may be compiled or captured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .reads import Reads, Untraceable
from .tally import counting, recording, replayed
from .trace import Trace

Backend = Literal["auto", "eager", "trace", "compile", "cudagraph"]
Potential = Callable[..., Tensor]
Program = Callable[..., tuple[Tensor, ...]]

PAYS_AFTER = 50
"""Steps of chains with one potential after which ``auto`` traces it: a trace costs about as much as so many."""

_KEPT = 64
_traces: OrderedDict[Hashable, Any] = OrderedDict()
"""By key: a trace, why there is none, or the number of steps until now. The newest; none holds a parameter alive."""


class Evaluation(Protocol):
    """What a sampler calls at every step."""

    def __call__(
        self, leaves: Sequence[Tensor], drawn: Sequence[Tensor], *, energy: bool, gradient: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The energies ``(B,)`` and the gradient of each leaf, as far as they are asked for.

        All are new tensors, contiguous, without a graph.
        """


def evaluation(
    backend: Backend,
    potential: Potential,
    leaves: Sequence[Tensor],
    given: Sequence[Tensor],
    draws: Sequence[tuple[int, ...]],
    networks: Iterable[nn.Module],
    steps: int,
) -> Evaluation:
    """The evaluation of a potential for one call of a sampler, by the backend that was chosen.

    Raises:
        ValueError: the backend cannot evaluate this potential (``auto`` always can).
    """
    eager = Eager(potential, given)
    if backend == "eager":
        return eager
    device = leaves[0].device
    if backend == "cudagraph" and device.type != "cuda":
        raise ValueError(f"backend cudagraph captures CUDA graphs, but the state is on {device}: take trace or auto")
    try:
        if draws:
            raise Untraceable("it takes fresh noise at every step")
        trace = _trace(potential, leaves, given, networks, steps if backend == "auto" else PAYS_AFTER)
    except Exception as error:
        # Whatever a trace cannot do, autograd may; if the potential itself is wrong, it will say so there.
        if backend == "auto":
            return eager
        if isinstance(error, Untraceable):
            raise ValueError(f"backend {backend} cannot run this potential: {error}; take auto or eager") from error
        raise
    return Traced(trace, leaves, given, backend) if trace else eager


def _trace(
    potential: Potential, leaves: Sequence[Tensor], given: Sequence[Tensor], networks: Iterable[nn.Module], steps: int
) -> Trace | None:
    """The trace of a potential, kept from an earlier call or new; None before it pays."""
    reads = Reads(potential, networks)
    device = leaves[0].device.type
    tensors = tuple((t.shape, t.dtype, t.device, t.stride()) for t in (*leaves, *given))
    settings = (
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
    )
    key = (reads.key, len(leaves), tensors, settings)
    found = _traces.pop(key, 0)
    if isinstance(found, Trace) and not found.alive:
        found = 0
    if isinstance(found, Trace) and counting() and found.evaluations is None:
        found = PAYS_AFTER  # recorded when nobody counted
    if isinstance(found, int):
        found += steps
        if found >= PAYS_AFTER:
            try:
                with recording() as evaluations:
                    found = Trace(lambda *args: checked(potential(*args), args[0]), leaves, given, reads.tensors)
                found.evaluations = evaluations if counting() else None
            except Untraceable as error:
                found = error.with_traceback(None)
    _traces[key] = found
    while len(_traces) > _KEPT:
        _traces.popitem(last=False)
    if isinstance(found, Untraceable):
        raise found
    return found if isinstance(found, Trace) else None


class Eager:
    """Evaluation by autograd; differentiates with respect to the leaves alone."""

    def __init__(self, potential: Potential, given: Sequence[Tensor]):
        self.potential, self.given = potential, given

    def __call__(
        self, leaves: Sequence[Tensor], drawn: Sequence[Tensor], *, energy: bool, gradient: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        if not gradient:
            return _owned([checked(self.potential(*leaves, *self.given, *drawn), leaves[0]).detach()])[0], []
        with torch.enable_grad():
            inputs = [leaf.detach().requires_grad_(True) for leaf in leaves]
            value = checked(self.potential(*inputs, *self.given, *drawn), leaves[0])
            grads = torch.autograd.grad(value.sum(), inputs)
        if not energy:
            return None, _owned(grads)
        return _owned([value.detach()])[0], _owned(grads)


class Traced:
    """Evaluation by a trace, with all that does not depend on the state computed once."""

    def __init__(self, trace: Trace, leaves: Sequence[Tensor], given: Sequence[Tensor], backend: Backend):
        self.trace, self.backend = trace, backend
        self.device = leaves[0].device.type
        # The casts of autocast are operations of the trace.
        self.autocast = torch.is_autocast_enabled(self.device)
        with self._plain():
            self.baked = trace.bake(given)
        self._programs: dict[tuple[bool, bool], Program] = {}

    def __call__(
        self, leaves: Sequence[Tensor], drawn: Sequence[Tensor], *, energy: bool, gradient: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        program = self._programs.get((energy, gradient))
        if program is None:
            program = self._programs[energy, gradient] = self._program(energy, gradient, leaves)
        if counting():
            replayed(self.trace.evaluations or {}, gradient)
        if self.autocast:
            with self._plain():
                results = program(*leaves, *self.baked)
        else:
            results = program(*leaves, *self.baked)
        return (results[0], list(results[1:])) if energy else (None, list(results))

    def _program(self, energy: bool, gradient: bool, leaves: Sequence[Tensor]) -> Program:
        main = self.trace.main(energy, gradient)
        kept = self.trace.programs
        name = (self.backend, energy, gradient)
        if self.backend == "compile":
            if name not in kept:
                kept[name] = torch.compile(main, dynamic=False)
            return kept[name]
        if self.backend == "cudagraph":
            if name not in kept:
                kept[name] = Captured(main, [*leaves, *self.baked], len(leaves))
            kept[name].bake(self.baked)
            return kept[name]
        return main

    def _plain(self) -> Any:
        return torch.autocast(self.device, enabled=False) if self.autocast else nullcontext()


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
        program: Program,
        inputs: Sequence[Tensor],
        moving: int,
        capture: Callable[[Program], tuple[Callable[[], None], tuple[Tensor, ...]]] | None = None,
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


def capture_graph(run: Program) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
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


def checked(energy: Tensor, leaf: Tensor) -> Tensor:
    """A potential's result, ``(B,)`` or ``(B, 1)`` as of a linear layer, as ``(B,)``, at least fp32.

    Raises:
        ValueError: it is not one energy per example.
    """
    if energy.shape == (len(leaf), 1):
        energy = energy.squeeze(1)
    if energy.shape != leaf.shape[:1]:
        raise ValueError(
            f"a potential returns one energy per example, shape ({leaf.shape[0]},), not {tuple(energy.shape)}"
        )
    return energy if energy.dtype == torch.float64 else energy.float()


def _owned(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous tensors that may be written to: copies of views and of those that come twice."""
    found: list[Tensor] = []
    for tensor in tensors:
        if tensor._is_view() or not tensor.is_contiguous() or any(tensor is other for other in found):
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        found.append(tensor)
    return found
