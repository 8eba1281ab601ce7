"""Losses as CUDA graphs: a player's loss and its gradient are one launch, instead of a thousand operations."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Noise
from ebmzoo.mcmc.capture import CaptureBy, GivenNoise, agree, captures, copy_into
from ebmzoo.mcmc.program import calls_of, tell
from ebmzoo.mcmc.reading import key_of_tensor, observes
from ebmzoo.mcmc.trace import Untraceable

Loss = TypeVar("Loss", bound=Callable[..., tuple[Tensor, dict[str, Tensor]]])

CAPTURED_AFTER = 2
"""Calls of a shape that are run as they are written: what a network does once in its life is done by then."""

_KEPT = 8
_graphs: WeakKeyDictionary[nn.Module, dict[Hashable, CapturedLoss | int | None]] = WeakKeyDictionary()
"""Of each module by key: a graph, the number of calls until now, or None where there can be none."""


def captured_loss(loss: Loss) -> Loss:
    """Let a method of a module that returns (a scalar loss, what is logged of it) be one graph on CUDA.

    The loss is a function of the module's parameters and buffers, of its arguments (tensors without a graph, sources of
    noise, plain values) and of settings that stay as they are. From the third call of a shape on it is replayed, with
    its gradient by all parameters, and the noise is drawn beforehand. What is logged holds until the next call. Where
    nothing is captured, or a gradient does not come out as it was, it is what it is.
    """

    @functools.wraps(loss)
    def called(module: nn.Module, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(a.device for a in arguments if isinstance(a, Tensor))
        capture = captures(device) if torch.is_grad_enabled() else None
        key = None if capture is None else _key(loss.__name__, module, arguments, device)
        if capture is None or key is None:
            return loss(module, *arguments)
        graphs = _graphs.setdefault(module, {})
        found = graphs.pop(key, 0)
        if found == CAPTURED_AFTER:
            try:
                found = CapturedLoss(loss, module, arguments, device, capture)
            except (RuntimeError, Untraceable) as error:
                found = None  # as it is written from now on
                warnings.warn(f"{type(module).__name__}.{loss.__name__} cannot be captured: {error}", stacklevel=2)
        elif isinstance(found, int):
            found += 1
        graphs[key] = found
        while len(graphs) > _KEPT:
            del graphs[next(iter(graphs))]
        return found(module, *arguments) if isinstance(found, CapturedLoss) else loss(module, *arguments)

    return cast("Loss", called)


class CapturedLoss:
    """A loss and its gradient, captured.

    Args:
        loss: of the module and the arguments.
        module: whose parameters learn; it is not held.
        arguments: like all to come; tensors and noise among them are not held.
        device: where all is.
        capture: see `captures`.

    Raises:
        RuntimeError: it cannot be captured, or a replay gives another gradient.
    """

    def __init__(
        self,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        module: nn.Module,
        arguments: Sequence[Any],
        device: torch.device,
        capture: CaptureBy,
    ):
        self._inputs = [a.detach().clone() for a in arguments if isinstance(a, Tensor)]
        self._noise, self.replays = GivenNoise(), 0
        inputs = iter(self._inputs)
        own = [next(inputs) if isinstance(a, Tensor) else self._noise if isinstance(a, Noise) else a for a in arguments]
        reference, kind = weakref.ref(module), device.type
        # A cast that autocast has kept for others would not be done again by a replay.
        casts: dict[str, Any] = {"enabled": torch.is_autocast_enabled(kind), "cache_enabled": False}
        casts["dtype"] = torch.get_autocast_dtype(kind)

        def found(parameters: Sequence[Tensor]) -> tuple[dict[str, Tensor], Sequence[Tensor | None]]:
            self._noise.rewind()
            where = cast("nn.Module", reference())
            with torch.autocast(kind, **casts), calls_of(list(where.modules())) as self._calls:
                value, seen = loss(where, *own)
                slopes = torch.autograd.grad(value, list(parameters), allow_unused=True)
            return {"": value.detach(), **{name: one.detach() for name, one in seen.items()}}, slopes

        def run() -> None:
            outputs, slopes = found(self.parameters)
            copy_into(list(self._outputs.values()), list(outputs.values()))
            copy_into(self._slopes, [slope for slope in slopes if slope is not None])

        # What networks keep while they train, who counts their calls, and random numbers are as if nothing were run.
        buffers = list(module.buffers())
        before = [buffer.clone() for buffer in buffers]
        with torch.random.fork_rng([device] if kind == "cuda" else []):
            every = [parameter for parameter in module.parameters() if parameter.requires_grad]
            outputs, slopes = found(every)
            self._outputs = {name: one.clone() for name, one in outputs.items()}
            self.parameters = [one for one, slope in zip(every, slopes, strict=True) if slope is not None]
            self._slopes = [slope.clone() for slope in slopes if slope is not None]
            expected = [slope.clone() for slope in self._slopes]
            try:
                copy_into(buffers, before)
                self._replay = capture(run)
                copy_into(buffers, before)
                torch._foreach_zero_(self._slopes)
                self._noise.clear()
                self._replay()
            finally:
                copy_into(buffers, before)
        if not agree(self._slopes, expected):
            raise RuntimeError(f"a replay of {loss.__name__} gives another gradient")

    def __call__(self, module: nn.Module, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, whose graph has the gradient, and what is logged of it."""
        copy_into(self._inputs, [a for a in arguments if isinstance(a, Tensor)])
        for noise in (a for a in arguments if isinstance(a, Noise)):
            self._noise.fill(noise)
        self._replay()
        self.replays += 1
        tell(list(module.modules()), self._calls, 1)
        value: Tensor = _Replayed.apply(self, *self.parameters)
        return value, {name: one for name, one in self._outputs.items() if name}

    @property
    def value(self) -> Tensor:
        """The loss, where the next replay overwrites it."""
        return self._outputs[""]

    def slopes(self, times: Tensor) -> list[Tensor]:
        """The gradient of a multiple of the loss."""
        return list(torch._foreach_mul(self._slopes, times))


class _Replayed(torch.autograd.Function):
    """The loss of a replay as a function of the parameters."""

    @staticmethod
    def forward(ctx: Any, captured: CapturedLoss, *parameters: Tensor) -> Tensor:
        ctx.captured, ctx.replays = captured, captured.replays
        return captured.value.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        if ctx.replays != ctx.captured.replays:
            raise RuntimeError("the loss was taken again before this gradient: go backward first")
        return None, *ctx.captured.slopes(slopes[0])


def _key(name: str, module: nn.Module, arguments: Sequence[Any], device: torch.device) -> Hashable | None:
    """All that a graph of the loss has written out; None where there can be none."""
    casts = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    if casts == torch.float16 or any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
        return None  # gradients are scaled before they are rounded to fp16
    modules = list(module.modules())
    hooks = (hook for m in modules for own in (m._forward_hooks, m._forward_pre_hooks) for hook in own.values())
    if not all(map(observes, hooks)) or any(isinstance(m, nn.SyncBatchNorm) for m in modules):
        return None
    given = tuple(key_of_tensor(a) if isinstance(a, Tensor) else isinstance(a, Noise) or a for a in arguments)
    places = tuple((tensor.data_ptr(), tensor.requires_grad) for tensor in (*module.parameters(), *module.buffers()))
    return name, given, casts, tuple(m.training for m in modules), places
