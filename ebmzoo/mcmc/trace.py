"""A potential and its gradient, recorded once as a flat list of tensor operations and replayed without autograd."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

_SAME = (aten.detach.default, aten.alias.default)
_LIKE = {aten.ones_like.default: aten.ones.default, aten.zeros_like.default: aten.zeros.default}
_CONVOLUTIONS = {aten.convolution.default: (0, 1), aten.convolution_backward.default: (1, 2)}  # input, weight
_WRITTEN_OUT = (bool, int, type(None))


class Untraceable(ValueError):
    """Why a potential cannot be traced."""


class Variable(int):
    """The number of a tensor in a program."""


class Operation(NamedTuple):
    """One call of a tensor operation; `Variable` s stand for the tensors among its arguments and results."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    results: tuple[Variable | None, ...]

    @property
    def reads(self) -> Iterator[Variable]:
        """The variables among the arguments."""
        return _variables((self.arguments, self.keywords.values()))


class Trace:
    """U and its gradient for one shape of state, as straight lines of code.

    What depends on the state, or on what else moves from step to step, is one program; what depends on parameters,
    buffers and what is given alone (normalised weights, folded kernels, transposes, casts) is another, the prologue,
    run once a chain. Where only the gradient is asked for, what only the energy needs is left out.

    The operations are those that autograd would call, in its order and with its arguments, so the results are the
    same bit for bit.

    Args:
        function: U, a pure function of ``(x, *moving, *still)``.
        x: a state like those to come, contiguous.
        moving: what else it takes anew at every step.
        still: and what is the same for a whole chain.

    Raises:
        Untraceable: the function draws random numbers, writes in place, takes a branch on a tensor's value, or reads a
            tensor that is none of its arguments.
    """

    def __init__(self, function: Callable[..., Tensor], x: Tensor, moving: Sequence[Tensor], still: Sequence[Tensor]):
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)
            moving, still = ([t.detach().view_as(t) for t in tensors] for tensors in (moving, still))
            recorder = _Recorder()
            self._steps, self._given = recorder.enter([x, *moving]), recorder.enter(still)
            with recorder:
                energy = function(x, *moving, *still)
                (grad,) = torch.autograd.grad(energy.sum(), x)
                self._energy = recorder.owned(energy, [])
                self._grad = recorder.owned(grad, [self._energy])
        wanted = [self._energy, self._grad]
        self._constants = recorder.constants
        self._program = _live(recorder.program, wanted)
        self._moving = _reached(self._program, self._steps) | set(wanted)  # new tensors at every step in any case
        apart = [op for op in self._program if not self._moves(op)]
        read = {v for op in self._program if self._moves(op) for v in op.reads}
        self._baked = sorted(v for v in read if v not in self._moving)
        self._prologue = write(_live(apart, self._baked), [*self._constants, *self._given], self._baked)

    def bake(self, still: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the prologue: all that holds for a chain, from the tensors as they are now."""
        return self._prologue(*self._constants.values(), *still)

    def main(self, *, energy: bool) -> Callable[..., tuple[Tensor, ...]]:
        """The program of ``(x, *moving, *baked)`` that returns the gradient, or the energy and the gradient."""
        wanted = [self._energy] * energy + [self._grad]
        program = [op for op in _live(self._program, wanted) if self._moves(op)]
        return write(program, [*self._steps, *self._baked], wanted)

    def _moves(self, op: Operation) -> bool:
        return any(result in self._moving for result in op.results)


class _Recorder(TorchDispatchMode):
    """Notes every tensor operation that is run beneath it, autograd's own among them."""

    def __init__(self) -> None:
        super().__init__()
        self.program: list[Operation] = []
        self.constants: dict[Variable, Tensor] = {}  # numbers written in the code
        self._count = 0
        # A tensor's id holds only as long as the tensor; without keeping any alive, a dead reference tells.
        self._seen: dict[int, tuple[weakref.ref[Tensor], Variable]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to exempt a mode from torch.compile, torch would import all of it, seconds and 150 MB

    def enter(self, tensors: Iterable[Tensor]) -> list[Variable]:
        return [self._name(tensor) for tensor in tensors]

    def variable(self, tensor: Tensor) -> Variable:
        """The variable that stands for a tensor."""
        reference, variable = self._seen.get(id(tensor), (None, None))
        if reference is None or variable is None or reference() is not tensor:
            if type(tensor) not in (Tensor, nn.Parameter):
                raise Untraceable(f"it computes with a {type(tensor).__name__}")
            raise Untraceable(f"it reads a tensor of shape {tuple(tensor.shape)} that it does not hold")
        return variable

    def owned(self, tensor: Tensor, taken: Collection[Variable]) -> Variable:
        """The variable of a result: of a copy where it is a view, is not contiguous or has been taken already."""
        variable = self.variable(tensor)
        makers = [op.function for op in self.program if variable in op.results]
        views = any(returned.alias_info for maker in makers for returned in maker._schema.returns)
        if not makers or views or variable in taken or not tensor.is_contiguous():
            return self.variable(tensor.clone(memory_format=torch.contiguous_format))
        return variable

    def fresh(self) -> Variable:
        self._count += 1
        return Variable(self._count)

    def _name(self, tensor: Tensor, variable: Variable | None = None) -> Variable:
        variable = self.fresh() if variable is None else variable
        self._seen[id(tensor)] = weakref.ref(tensor), variable
        return variable

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is aten.lift_fresh.default:  # a number written in the code
            self.constants[self._name(args[0])] = args[0].clone()
            return function(*args)
        for tag, what in (
            (torch.Tag.nondeterministic_seeded, "draws random numbers"),
            (torch.Tag.data_dependent_output, "takes a Python value from a tensor"),
            (torch.Tag.dynamic_output_shape, "makes shapes of a tensor's values"),
        ):
            if tag in function.tags:
                raise Untraceable(f"it {what} ({function})")
        if function._schema.is_mutable:
            raise Untraceable(f"it writes in place ({function})")
        arguments, keywords = self._recorded(args), self._recorded(kwargs)
        result = function(*args, **kwargs)
        if function in _SAME:
            self._name(result, arguments[0])
        else:
            if function in _LIKE and result.is_contiguous():
                # Autograd's first gradient: taken from the energy, it would keep the energy's last layers alive.
                function, arguments = _LIKE[function], (list(result.shape),)
                keywords = {"dtype": result.dtype, "device": result.device}
            arguments = self._reordered(function, args, arguments)
            results = result if isinstance(result, tuple | list) else (result,)
            names = tuple(self._name(one) if isinstance(one, Tensor) else None for one in results)
            self.program.append(Operation(function, arguments, keywords, names))
        return result

    def _recorded(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.variable(value)
        if isinstance(value, list | tuple):
            return type(value)(self._recorded(item) for item in value)
        if isinstance(value, dict):
            return {key: self._recorded(item) for key, item in value.items()}
        return value

    def _reordered(self, function: Any, args: Any, arguments: Any) -> Any:
        """A channels-last convolution brings its kernel into that order at every call: as an operation of its own.

        Where the kernel is a constant, that operation falls to the prologue.
        """
        if function not in _CONVOLUTIONS:
            return arguments
        image, kernel = (args[index] for index in _CONVOLUTIONS[function])
        last = torch.channels_last
        if image.dim() != 4 or image.is_contiguous() or not image.is_contiguous(memory_format=last):
            return arguments
        if kernel.is_contiguous(memory_format=last):
            return arguments
        position = _CONVOLUTIONS[function][1]
        reordered = self.fresh()
        self.program.append(
            Operation(aten.clone.default, (arguments[position],), {"memory_format": last}, (reordered,))
        )
        return (*arguments[:position], reordered, *arguments[position + 1 :])


def write(
    program: Sequence[Operation], inputs: Sequence[Variable], outputs: Sequence[Variable]
) -> Callable[..., tuple[Tensor, ...]]:
    """A Python function of ``inputs`` that runs a program and returns ``outputs``, dropping tensors after their use."""
    names: dict[str, Any] = {}

    def text(value: Any) -> str:
        if isinstance(value, Variable):
            return f"v{int(value)}"
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(text, value))}]"
        if type(value) in _WRITTEN_OUT:
            return repr(value)
        name = f"c{len(names)}"
        names[name] = value
        return name

    last: dict[Variable, int] = {v: at for at, op in enumerate(program) for v in (*op.results, *op.reads) if v}
    lines = [f"def run({', '.join(map(text, inputs))}):"]
    for at, op in enumerate(program):
        results = ", ".join("_" if v is None else text(v) for v in op.results)
        comma = "," if len(op.results) > 1 or isinstance(op.function._schema.returns[0].type, torch.ListType) else ""
        words = [*map(text, op.arguments), *(f"{key}={text(value)}" for key, value in op.keywords.items())]
        lines.append(f"    {results}{comma} = {text(op.function)}({', '.join(words)})")
        done = [text(v) for v in sorted({v for v in (*op.results, *op.reads) if v}) if last[v] == at]
        done = [name for name in done if name not in set(map(text, outputs))]
        if done:
            lines.append(f"    {' = '.join(done)} = None")
    lines.append(f"    return ({''.join(text(v) + ', ' for v in outputs)})")
    exec("\n".join(lines), names)
    return names["run"]


def _variables(value: Any) -> Iterator[Variable]:
    if isinstance(value, Variable):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _variables(item)


def _live(program: Sequence[Operation], wanted: Collection[Variable]) -> list[Operation]:
    """The operations on which the wanted variables depend, in order."""
    needed, kept = set(wanted), []
    for op in reversed(program):
        if needed.intersection(op.results):
            needed.update(op.reads)
            kept.append(op)
    return kept[::-1]


def _reached(program: Sequence[Operation], start: Collection[Variable]) -> set[Variable | None]:
    """The variables that depend on those of ``start``, and these."""
    found: set[Variable | None] = set(start)
    for op in program:
        if found.intersection(op.reads):
            found.update(op.results)
    return found - {None}
