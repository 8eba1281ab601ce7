"""What a potential is besides its tensors, as a key, and the tensors, with the places where they stand.

Two potentials of equal keys are the same function of ``(x, *tensors)``: no id and no version is part of a key, so
weights may be updated in place or exchanged, and copies of one architecture share a program. Code, and the globals and
class attributes that it reads, are taken as fixed.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .potential import Function, Potential
from .trace import Untraceable

_ATOMS = (type(None), bool, int, str, bytes, torch.dtype, torch.device, torch.memory_format, torch.Size)
_MACHINERY = frozenset(nn.Module().__dict__) - {"training"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
Place = tuple[Any, Any]  # a dict or a list, and where in it


class Standing:
    """The places where a tensor stands; another may stand there later.

    Args:
        tensor: the one that was read.
        number: of the tensor among all.
    """

    def __init__(self, tensor: Tensor, number: int):
        self.tensor, self.number, self.places = tensor, number, list[Place]()

    @property
    def now(self) -> Tensor:
        """What stands there now."""
        owner, name = self.places[0]
        found: Tensor = owner[name]
        return found

    def put(self, tensor: Tensor) -> None:
        """Put another tensor in all places."""
        for owner, name in self.places:
            owner[name] = tensor


class Reading:
    """A potential read: types and plain data are its key, tensors stand apart.

    Args:
        potential: with all its modules.

    Attributes:
        key: equal for the same function of x and the tensors.
        still: the tensors of its networks, and what it is conditioned on.
        moving: where it `redraws`, its own tensors, not those of its modules: ``refresh`` replaces them at each step.
        modules: all modules, in the order in which they were read.

    Raises:
        Untraceable: a module has hooks that may change something, or something is neither a tensor, a module nor plain
            data, so that nobody could tell whether it has changed.

    Example:
        >>> from ebmzoo.mcmc.potential import Tethered
        >>> def key(weight):
        ...     return Reading(Tethered(nn.Linear(2, 1), torch.zeros(3, 2), weight)).key
        >>> key(2.0) == key(2.0), key(2.0) == key(3.0)
        (True, False)
    """

    def __init__(self, potential: Potential):
        self.modules: list[nn.Module] = []
        self._tensors: dict[int, Standing] = {}
        self._met: dict[int, int] = {}
        self._own: int | None = None  # the number of tensors that are the potential's own: they are read first
        key = self._module(potential)
        found, own = list(self._tensors.values()), self._own if potential.redraws else 0
        self.moving, self.still = found[:own], found[own:]
        self.key: Hashable = (key, own)

    @contextmanager
    def put(self, tensors: tuple[Tensor, ...]) -> Iterator[None]:
        """Others in the places of the tensors that move and those that are still, in this order."""
        standing = [*self.moving, *self.still]
        before = [one.now for one in standing]
        try:
            for one, tensor in zip(standing, tensors, strict=True):
                one.put(tensor)
            yield
        finally:
            for one, tensor in zip(standing, before, strict=True):
                one.put(tensor)

    def holds(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether these, once put, are still in their places."""
        standing = zip([*self.moving, *self.still], tensors, strict=True)
        return all(owner[name] is tensor for one, tensor in standing for owner, name in one.places)

    def _module(self, module: nn.Module) -> Hashable:
        if id(module) in self._met:
            return "met", self._met[id(module)]
        self._met[id(module)] = len(self._met)
        if isinstance(module, Function):
            raise Untraceable("what a plain function reads cannot be compared: make it a Potential")
        own = module.__dict__
        if not all(observes(hook) for hooks in _HOOKS for hook in own.get(hooks, {}).values()):
            raise Untraceable(f"{type(module).__name__} has hooks")
        self.modules.append(module)
        plain = tuple((name, self._value(value, own, name)) for name, value in own.items() if name not in _MACHINERY)
        parameters, buffers = (self._items(own[place]) for place in ("_parameters", "_buffers"))
        if self._own is None:
            self._own = len(self._tensors)
        kind = parametrize.type_before_parametrizations(module)
        return kind, plain, parameters, buffers, self._items(own["_modules"])

    def _items(self, owner: dict[str, Any]) -> Hashable:
        return tuple((name, self._value(value, owner, name)) for name, value in owner.items())

    def _value(self, value: Any, owner: Any, name: Any) -> Hashable:
        kind = type(value)
        if isinstance(value, Tensor):
            if owner is None:
                raise Untraceable("it holds a tensor where no other can be put in its place")
            standing = self._tensors.setdefault(id(value), Standing(value, len(self._tensors)))
            standing.places.append((owner, name))
            return "tensor", standing.number, key_of_tensor(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if kind in _ATOMS:
            return kind, value
        if kind is float:
            return kind, value.hex()  # by bits: nan is nan, 0.0 is not -0.0
        if kind is list:
            return kind, tuple(self._value(item, value, at) for at, item in enumerate(value))
        if kind is dict:
            return kind, tuple((self._value(k, None, None), self._value(v, value, k)) for k, v in value.items())
        if kind is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
            return kind, tuple(self._value(item, None, None) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return kind, tuple(self._value(item, vars(value), key) for key, item in sorted(vars(value).items()))
        if isinstance(value, type):
            return value
        if kind is types.BuiltinFunctionType and isinstance(value.__self__, type | types.ModuleType | None):
            return value
        if kind is types.FunctionType and value.__closure__ is None:
            defaults = (value.__defaults__, value.__kwdefaults__)
            return value.__module__, value.__code__, self._value(defaults, None, None)
        if isinstance(value, partial):
            return kind, tuple(self._value(part, None, None) for part in (value.func, value.args, value.keywords))
        raise Untraceable(f"it holds a {kind.__name__} ({name}), whose contents cannot be compared")


def key_of_tensor(tensor: Tensor) -> Hashable:
    """All of a tensor but its values."""
    return tensor.shape, tensor.dtype, tensor.device, tensor.stride(), type(tensor)


def observes(hook: Any) -> bool:
    """Whether a hook only looks: at which module is called, and at its output's length and whether it has a graph.

    Such a hook says so itself (an attribute ``observes``) and takes ``times``: a replayed program calls it once for so
    many steps, with outputs that are empty.
    """
    return bool(getattr(getattr(hook, "func", hook), "observes", False))
