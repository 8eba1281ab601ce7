"""What a potential reads besides its arguments, as a key: two potentials with equal keys are the same function."""

from __future__ import annotations

import dataclasses
import functools
import types
import weakref
from collections.abc import Collection, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .tally import counts

_ATOMS = frozenset(
    (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format, torch.Size)
)
_NAMED = (type, types.BuiltinFunctionType, torch._ops.OpOverloadPacket, torch._ops.OpOverload)
_FIXED = ("torch", "lightning", "numpy", "math", "builtins", "typing", "collections", "functools")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CODED = {"__getattr__", "__getattribute__"}
_MACHINERY = frozenset(nn.Module().__dict__)


class Untraceable(ValueError):
    """Why a potential cannot be traced."""


class Reads:
    """What a potential reads besides its arguments.

    Modules are read wholly: their tensors by identity, shape and layout (their values may change), all other
    attributes by value. Of functions: code, defaults, closure, the globals that the code names, and of the objects in
    these the attributes that the code names, with the functions among them read in turn.

    Args:
        potential: a function, method, partial, module, or an object that can be called.
        networks: the modules that it uses; without any, those found on the way are meant.

    Attributes:
        key: equal for the same function. It holds no tensor and no module alive.
        tensors: what may be read, by ``id``.

    Raises:
        Untraceable: a module is in train mode or has hooks (a `Tally`'s excepted), or the potential reads an object
            whose contents cannot be compared.

    Example:
        >>> def pull(weight):
        ...     return lambda x: weight * x.square().sum(1)
        >>> Reads(pull(2.0)).key == Reads(pull(2.0)).key, Reads(pull(2.0)).key == Reads(pull(3.0)).key
        (True, False)
    """

    def __init__(self, potential: Any, networks: Iterable[nn.Module] = ()):
        self.tensors: dict[int, Tensor] = {}
        self._met: dict[tuple[int, frozenset[str]], int] = {}
        self._kept: list[Any] = []  # ids hold only as long as what they name
        networks = list(networks)
        self._networks = {id(part) for network in networks for part in network.modules()}
        self._open = not networks
        walked = tuple(self._module(network) for network in networks)
        self.key: Hashable = (walked, self._value(potential, frozenset()))

    def _value(self, value: Any, names: frozenset[str]) -> Hashable:
        """The key of a value that code with these names holds."""
        kind = type(value)
        if kind in _ATOMS:
            return kind, value
        if isinstance(value, _NAMED):
            return weakref.ref(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if id(value) in self._networks:
            return id(value)
        mark = (id(value), names)
        if mark in self._met:
            return "met", self._met[mark]
        self._met[mark] = len(self._met)
        self._kept.append(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            function: Any = value.__func__
            owner = self._value(value.__self__, _names(function) if hasattr(function, "__code__") else names)
            return owner, self._value(function, names)
        if isinstance(value, functools.partial):
            return tuple(self._value(part, names) for part in (value.func, value.args, value.keywords))
        if isinstance(value, tuple | list | set | frozenset):
            return kind, tuple(self._value(item, names) for item in value)
        if isinstance(value, dict):
            return kind, tuple((self._value(k, names), self._value(v, names)) for k, v in value.items())
        if isinstance(value, nn.Module) and self._open:
            return self._module(value)
        if isinstance(value, types.ModuleType):
            return value.__name__ if _fixed(value.__name__) else self._attributes(value, names)
        if not hasattr(value, "__dict__") and not dataclasses.is_dataclass(value):
            raise Untraceable(f"it reads a {kind.__name__}, whose contents cannot be compared")
        return self._attributes(value, names)

    def _tensor(self, tensor: Tensor) -> Hashable:
        self.tensors[id(tensor)] = tensor
        return id(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride()

    def _module(self, module: nn.Module) -> Hashable:
        """A module whole."""
        name, own = type(module).__name__, module.__dict__
        if module.training:
            raise Untraceable(f"{name} is in train mode (hand it to the sampler in networks, which freezes it)")
        if not all(counts(hook) for hooks in _HOOKS for hook in own.get(hooks, {}).values()):
            raise Untraceable(f"{name} has hooks")
        tensors = [*own["_parameters"].values(), *own["_buffers"].values()]
        everything = frozenset(("*",))
        return (
            id(module),
            weakref.ref(type(module)),  # a parametrised module's class holds the module
            tuple(self._tensor(tensor) for tensor in tensors if tensor is not None),
            tuple((key, self._value(value, everything)) for key, value in own.items() if key not in _MACHINERY),
            tuple((key, self._module(part)) for key, part in own["_modules"].items() if part is not None),
        )

    def _function(self, function: types.FunctionType) -> Hashable:
        if _fixed(function.__module__):
            return weakref.ref(function)
        names = _names(function)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        held = [*cells, function.__defaults__, function.__kwdefaults__]
        found = function.__globals__
        outside = [(name, found[name]) for name in sorted(names) if name in found]
        return (
            function.__code__,
            tuple(self._value(value, names) for value in held),
            tuple((name, self._value(value, names)) for name, value in outside),
        )

    def _attributes(self, owner: Any, names: Collection[str]) -> Hashable:
        """Of an object, the attributes that code with these names may read."""
        if any(_CODED & vars(kind).keys() for kind in type(owner).__mro__ if not _fixed(kind.__module__)):
            raise Untraceable(f"it reads a {type(owner).__name__}, whose attributes are made by code")
        own = getattr(owner, "__dict__", {})
        places = [own, *(own[place] for place in ("_parameters", "_buffers", "_modules") if place in own)]
        found: list[Hashable] = [weakref.ref(type(owner))]
        for name in sorted(own if "*" in names else {*names, "__call__"}):
            for place in places:
                if name in place:
                    found.append((name, self._value(place[name], frozenset(names))))
                    break
            else:
                found.append((name, self._inherited(owner, name)))
        return tuple(found)

    def _inherited(self, owner: Any, name: str) -> Hashable:
        """What an object's class has under a name, unless that is a library's."""
        for kind in type(owner).__mro__:
            if name in vars(kind):
                value = vars(kind)[name]
                if _fixed(kind.__module__):
                    return None
                value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if isinstance(value, types.FunctionType):
                    return self._value(owner, _names(value)), self._value(value, frozenset())
                return self._value(value, frozenset())
        return None


def _fixed(module: str | None) -> bool:
    """Whether what a module defines is taken as fixed."""
    return module is not None and module.partition(".")[0] in _FIXED


@functools.lru_cache(maxsize=1024)
def _names_of(code: types.CodeType) -> frozenset[str]:
    inner = (_names_of(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*inner)


def _names(function: Any) -> frozenset[str]:
    """All names that a function's code mentions: globals and attributes."""
    return _names_of(function.__code__)
