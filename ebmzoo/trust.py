"""Which classes a file may name: it may come from anybody, and naming a class runs its module's code.

Trusted are the classes of this package and of ``torch.optim``, and the networks, optimisers, samplers and the like of
modules that the program has imported already (on the command line: with ``--trust MODULE``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ebmzoo.mcmc import Sampler
from ebmzoo.objectives import Penalty

_OWN = ("ebmzoo.", "torch.optim.")
_KINDS = (
    nn.Module,
    Optimizer,
    LRScheduler,
    Sampler,
    Penalty,
    LightningDataModule,
    Callback,
    Logger,
    Profiler,
    Strategy,
)
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def trusted(class_path: str, path: str | Path) -> type:
    """Import a class that a file names, if it may be named.

    Raises:
        ValueError: a class outside what the module docstring lists, or none at all.
    """
    module, _, name = class_path.rpartition(".")
    if f"{module}.".startswith(_OWN):
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(f"{path} names {class_path}, which this version does not have") from error
    if module not in sys.modules:
        raise ValueError(
            f"{path} names {class_path}, which is not trusted: import {module or 'it'} first if you trust it "
            f"(--trust {module or 'MODULE'} on the command line)"
        )
    kind = getattr(sys.modules[module], name, None)
    if not isinstance(kind, type):
        raise ValueError(f"{path} names {class_path}, which is not a class that can be made again")
    if not f"{kind.__module__}.".startswith(_OWN) and not issubclass(kind, _KINDS):
        raise ValueError(f"{path} names {class_path}, which is not trusted: it is no network, optimiser or the like")
    return kind


def check_trusted(values: Any, path: str | Path) -> None:
    """Check every class that plain data (hyper-parameters, a stored config) names.

    Parsers import whatever a string names where a class is expected, so strings that could be import paths
    count too.
    """
    for key, value in _strings(values):
        if URL.match(value):
            raise ValueError(f"{path} names the URL {value}: refused")
        if key == "class_path":
            if "." in value:
                trusted(value, path)
        elif _DOTTED.fullmatch(value) and _importable(value.partition(".")[0]):
            trusted(value, path)


def _strings(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _strings(value, str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _strings(value)


def _importable(top: str) -> bool:
    return top in sys.modules or find_spec(top) is not None
