"""A potential and its gradient recorded as a program, and the potential that a program stands for in one chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .noise import Noise
from .potential import Potential, one_per_example
from .reading import Reading, observes
from .trace import Trace, Untraceable

if TYPE_CHECKING:
    from .capture import Capture

Run = Callable[..., tuple[Tensor, ...]]
Call = tuple[int, Tensor | None]  # a module's number; None on entering it, an empty output like its own on leaving


class Program:
    """A potential and its gradient as functions of x, of what moves with the steps, and of the rest, baked.

    It holds no module and no tensor of the potential that it was recorded from.

    Args:
        potential: at rest.
        x: a state like those to come.
        reading: of the potential.
        compiled: whether `torch.compile` makes of its two functions what runs.

    Raises:
        Untraceable: it computes with something that is none of its tensors, or see `Trace`.
    """

    def __init__(self, potential: Potential, x: Tensor, reading: Reading, compiled: bool = False):
        moving, still = ([standing.now for standing in part] for part in (reading.moving, reading.still))

        def function(x: Tensor, *tensors: Tensor) -> Tensor:
            with reading.put(tensors), _uncached():
                energy = one_per_example(potential(x), x)
                if not reading.holds(tensors):
                    raise Untraceable("its forward replaces a tensor that it holds")
                return energy

        with calls_of(reading.modules) as self.calls:
            trace = Trace(function, x, moving, still)
        if Reading(potential).key != reading.key:
            raise Untraceable("its forward changes what it holds")
        self.bake = trace.bake
        runs: list[Run] = [trace.main(energy=True), trace.main(energy=False)]
        self.value_and_grad, self.gradient = (torch.compile(r, dynamic=False) for r in runs) if compiled else runs
        self.captured: Capture | None = None


class Recorded:
    """A potential as its program computes it, for one chain: its networks stand still meanwhile.

    Args:
        potential: what `refresh` is asked of.
        reading: of it.
        program: of an equal key.
        capture: its graphs, where the chain's steps are replayed.
        device: the type of the chain's.
        strict: a number that ``refresh`` changes is refused; else autograd goes on from there.
    """

    def __init__(
        self,
        potential: Potential,
        reading: Reading,
        program: Program,
        capture: Capture | None,
        device: str,
        strict: bool = True,
    ):
        self._potential, self._reading, self.program, self.capture = potential, reading, program, capture
        # The casts of autocast are operations of the program.
        self._device, self._autocast = device, torch.is_autocast_enabled(device)
        self._strict, self.holds = strict, True
        self.steps = 0
        still = [standing.now for standing in reading.still]
        with self.plain():
            self.baked = program.bake(still) if capture is None else capture.bake(still)
        self._numbers = _numbers(potential)

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        """See `Potential`."""
        self._potential.refresh(x, noise, level)
        self.holds = not self._potential.redraws or _numbers(self._potential) == self._numbers
        if self._strict and not self.holds:
            raise ValueError(f"{type(self._potential).__name__}.refresh changes a number: make it a tensor")

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""
        if not self.holds:
            return self._potential.value_and_grad(x)
        energy, grad = self._run(self.program.value_and_grad, x)
        return energy, grad

    def gradient(self, x: Tensor) -> Tensor:
        """∇U alone."""
        if not self.holds:
            return self._potential.value_and_grad(x)[1]
        (grad,) = self._run(self.program.gradient, x)
        return grad

    @property
    def moving(self) -> list[Tensor]:
        """The tensors that ``refresh`` replaces, as they are now."""
        return [standing.now for standing in self._reading.moving]

    def _run(self, run: Run, x: Tensor) -> tuple[Tensor, ...]:
        self.steps += 1
        if not self._autocast:
            return run(x, *self.moving, *self.baked)
        with self.plain():
            return run(x, *self.moving, *self.baked)

    def tell_observers(self) -> None:
        """Let hooks that only look have the modules' calls of all steps."""
        if self.steps:
            tell(self._reading.modules, self.program.calls, self.steps)

    def plain(self) -> Any:
        """A context without autocast: its casts are operations of the program."""
        return torch.autocast(self._device, enabled=False) if self._autocast else nullcontext()


class GradientOnly:
    """A recorded potential where nobody looks at energies: they are NaN, and what only they need is left out."""

    def __init__(self, recorded: Recorded, like: Tensor):
        self._recorded, self.refresh = recorded, recorded.refresh
        self._energy = like.new_full((len(like),), torch.nan)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""
        return self._energy, self._recorded.gradient(x)


def _numbers(potential: Potential) -> list[Any]:
    return [value for value in potential.__dict__.values() if type(value) in (bool, int, float, str)]


def tell(modules: Sequence[nn.Module], calls: Sequence[Call], times: int) -> None:
    """Let hooks that only look have calls of modules that a replay made, see `observes`."""
    for number, output in calls:
        module = modules[number]
        for hook in list((module._forward_pre_hooks if output is None else module._forward_hooks).values()):
            if observes(hook):
                hook(module, (), *(() if output is None else (output,)), times=times)


@contextmanager
def calls_of(modules: Sequence[nn.Module]) -> Iterator[list[Call]]:
    """The calls of modules in their order, which no hook hears of: a recording is not yet a step."""
    found: list[Call] = []
    numbers = {id(module): number for number, module in enumerate(modules)}
    silent = [(hooks, dict(hooks)) for m in modules for hooks in (m._forward_pre_hooks, m._forward_hooks)]

    def enter(module: nn.Module, inputs: Any) -> None:
        if id(module) in numbers:
            found.append((numbers[id(module)], None))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        if id(module) in numbers and isinstance(first, Tensor):
            like = torch.empty(first.shape, device="meta", requires_grad=first.requires_grad)
            found.append((numbers[id(module)], like))

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        for hooks, _ in silent:
            hooks.clear()
        yield found
    finally:
        for hooks, before in silent:
            hooks.update(before)
        for handle in handles:
            handle.remove()


@contextmanager
def _uncached() -> Iterator[None]:
    """Parametrised weights are made of the tensors of the recording, and not kept for others."""
    enabled, cache = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = enabled, cache
