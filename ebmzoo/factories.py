"""Networks, samplers and optimisers as arguments: classes, callables or plain data, and plain data again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ImageShape = tuple[int, ...]
EncoderFactory = Callable[[ImageShape, int], nn.Module]
DecoderFactory = Callable[[ImageShape, int], nn.Module]
EnergyFactory = Callable[[ImageShape], nn.Module]
FlowFactory = Callable[[ImageShape], nn.Module]
PriorFactory = Callable[[int], nn.Module]
DistanceFactory = Callable[[ImageShape], nn.Module]
OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
ScheduleFactory = Callable[[Optimizer], torch.optim.lr_scheduler.LRScheduler]


def build(factory: Any, *arguments: Any) -> Any:
    """Call a factory that is a class, a callable, or a ``{class_path, init_args}`` dict; a network is taken as it is.

    Example:
        >>> build({"class_path": "torch.nn.Linear", "init_args": {"bias": False}}, 2, 3)
        Linear(in_features=2, out_features=3, bias=False)
    """
    if isinstance(factory, nn.Module):
        return factory
    if isinstance(factory, Mapping):
        if name := factory.get("callable"):
            raise ValueError(f"{name} was given as a function or an instance, which no file holds: pass it again")
        module, _, name = factory["class_path"].rpartition(".")
        return getattr(importlib.import_module(module), name)(*arguments, **factory.get("init_args", {}))
    return factory(*arguments)


def spec(kind: type, **init_args: Any) -> Any:
    """A class and its settings as the plain data that `build` calls: the defaults of factory arguments.

    Command lines can override such a default key by key, and a checkpoint can hold it.
    """
    return {"class_path": class_path(kind), "init_args": init_args}


def plain(value: Any) -> Any:
    """Hyper-parameters as plain data, which a checkpoint can hold and `ebmzoo.load` can rebuild.

    Classes, partials of classes and dataclasses (samplers, penalties) become ``{class_path, init_args}``. Any other
    callable, and a network itself, becomes ``{"callable": its name}``: such a model trains, and `ebmzoo.load` asks for
    what is missing.

    Example:
        >>> from ebmzoo.mcmc import MALA
        >>> plain(MALA(steps=3))["init_args"]["steps"]
        3
        >>> plain(partial(nn.Linear, bias=False))
        {'class_path': 'torch.nn.modules.linear.Linear', 'init_args': {'bias': False}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, type):
        return {"class_path": class_path(value)}
    if isinstance(value, partial):
        # A partial of a class, or a command line's factory: a partial whose first argument is the class.
        kinds = [value.func, *value.args]
        kind = next((item for item in kinds if isinstance(item, type)), None)
        if kind is not None and len(value.args) == (0 if kind is value.func else 1):
            return {"class_path": class_path(kind), "init_args": plain(value.keywords)}
    elif is_dataclass(value):
        init_args = {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"class_path": class_path(type(value)), "init_args": init_args}
    return {"callable": getattr(value, "__qualname__", type(value).__qualname__)}


def class_path(kind: type) -> str:
    """Where a class is imported from."""
    return f"{kind.__module__}.{kind.__qualname__}"


def parameters_of(networks: Iterable[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    """All parameters of modules and bare parameters, in order."""
    found: list[nn.Parameter] = []
    for network in networks:
        found.extend([network] if isinstance(network, nn.Parameter) else network.parameters())
    return found
