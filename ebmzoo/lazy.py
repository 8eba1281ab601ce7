"""Rooms whose names are loaded when they are first used, so that one method does not import ten.

A room lists its names once, as imports that type checkers and editors read and Python does not::

    if TYPE_CHECKING:
        from .base import Method as Method
    else:
        attach(__name__)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Container
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["attach", "load", "names"]


def attach(room: str) -> None:
    """Let a room find the names that its source lists below ``if TYPE_CHECKING``.

    Args:
        room: full name of the package, which is being imported.
    """
    module: Any = sys.modules[room]
    source = ast.parse(module.__spec__.loader.get_source(room))
    imports = [one for block in source.body if isinstance(block, ast.If) for one in block.body]
    places = {
        alias.asname or alias.name: (f"{'.' * one.level}{one.module}", alias.name)
        for one in imports
        if isinstance(one, ast.ImportFrom)
        for alias in one.names
    }
    module.__all__ = sorted(places)
    module._places = places
    module.__class__ = _Room


class _Room(ModuleType):
    _places: dict[str, tuple[str, str]]
    __all__: list[str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        place, inside = self._places[name]
        value = getattr(import_module(place, self.__name__), inside)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Whoever imports a file binds its name here: where it holds what bears the same name, that is meant.
        if isinstance(value, ModuleType) and name in self._places:
            value = getattr(value, self._places[name][1])
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self.__all__})


def names(room: str) -> list[str]:
    """What a room of this package offers."""
    return list(import_module(f"ebmzoo.{room}").__all__)


def load(*rooms: str, among: Container[str] | None = None) -> None:
    """Load names of rooms, which gives the classes among them their short names in configs.

    Args:
        rooms: of this package, such as "methods".
        among: the names that are wanted; all by default.
    """
    for room in rooms:
        for name in names(room):
            if among is None or name in among:
                getattr(import_module(f"ebmzoo.{room}"), name)
