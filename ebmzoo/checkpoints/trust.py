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

import yaml
from lightning import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ebmzoo.mcmc import Sampler
from ebmzoo.parts.objectives import Penalty

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
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # jsonargparse's own choice: what it can read, we must
_DEEPEST, _MOST = 100, 100_000
_LONGEST = 2**20  # bytes of a text file that a string may name


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

    Parsers import whatever a string names where a class is expected, read strings as yaml, and open the files that they
    name: strings that could be import paths count too, and so do those inside yaml, here or in a file.

    Raises:
        ValueError: one line: a class that is not trusted, a URL, or data nested so that parsers would not end.
    """
    for key, value in _strings(values, path):
        if URL.match(value):
            raise ValueError(f"{path} names the URL {value}: refused")
        if (key == "class_path" and "." in value) or _importable(value):
            trusted(value, path)


def modules_to_trust(values: Any) -> set[str]:
    """The modules of the classes that plain data names under ``class_path`` which only trust lets a file name.

    Example:
        >>> modules_to_trust({"class_path": "spots.Spots", "init_args": {"by": {"class_path": "torch.optim.Adam"}}})
        {'spots'}
    """
    paths = {value for key, value in _strings(values, "") if key == "class_path" and "." in value}
    return {path.rpartition(".")[0] for path in paths if not path.startswith((*_OWN, "lightning.", "torch."))}


def _strings(values: Any, path: str | Path) -> Iterator[tuple[str, str]]:
    """Every string with the key that it stands under: keys, values, and the scalars of strings that are yaml.

    What contains itself is endlessly deep, and what holds one list many times over is large: both end here.
    """
    waiting: list[tuple[str, Any, int]] = [("", values, 0)]
    seen = 0
    while waiting:
        key, value, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise _nested(path)
        inside: list[tuple[str, Any]] = []
        if isinstance(value, str):
            yield key, value
            inside = [("", text) for text in _scalars(value, path) if text != value]
            inside += [("", text) for text in _scalars(_file(value, path), path)]
        elif isinstance(value, Mapping):
            inside = [("", name) for name in value] + [(str(name), item) for name, item in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            inside = [("", item) for item in value]
        waiting += [(name, item, depth + 1) for name, item in inside]


def _file(name: str, path: str | Path) -> str:
    """What lies in a text file of this name; nothing where there is none."""
    try:
        if not Path(name).is_file():
            return ""
        with Path(name).open("rb") as file:
            content = file.read(_LONGEST + 1)
        if b"\0" in content:  # weights, pictures: no yaml
            return ""
        text = content[:_LONGEST].decode()
    except (OSError, ValueError):  # no name that a file could have, or no text
        return ""
    if len(content) > _LONGEST:
        raise ValueError(f"{path} names the text file {name}, which is too large to be looked through: refused")
    return text


def _scalars(text: str, path: str | Path) -> list[str]:
    """The scalars of yaml; none where a string is not yaml, which is then plain text to parsers too."""
    try:
        events = list(yaml.parse(text, Loader=_YAML))  # events: nothing is built, so nothing can grow or recurse
    except (yaml.YAMLError, ValueError):  # ValueError: characters that no file could hold
        return []
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _nested(path)
        if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent) and event.anchor:
            raise ValueError(f"{path} has yaml with the anchor &{event.anchor} in a string: refused")
    return [event.value for event in events if isinstance(event, yaml.ScalarEvent)]


def _nested(path: str | Path) -> ValueError:
    return ValueError(f"{path} has settings nested more than {_DEEPEST} deep, or more than {_MOST:,} of them: refused")


def _importable(name: str) -> bool:
    top, *rest = name.split(".")
    if not rest or not all(part.isidentifier() for part in (top, *rest)):
        return False
    return top in sys.modules or find_spec(top) is not None
