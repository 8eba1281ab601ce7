"""Any setting of any callback by its name on the command line, whatever its place in the config's list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import lightning.pytorch.callbacks as lightnings
from jsonargparse import ArgumentParser, get_loader

from ebmzoo import callbacks as ours
from ebmzoo.cli.configs import placed
from ebmzoo.cli.errors import UserError, nearest

OPTION = "--trainer.callbacks"


def with_callbacks(words: Sequence[str], config: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """Words in which all that is said of callbacks has become one list, that of the config with it.

    ``--trainer.callbacks.NAME.KEY VALUE`` sets a setting, ``--trainer.callbacks.KEY VALUE`` where one callback alone
    has it, ``--trainer.callbacks.NAME null`` leaves a callback out, and ``--trainer.callbacks+=NAME`` appends one, to
    which keys that follow without a name belong. Of several of one name, ``NAME.1`` is the first.

    Args:
        words: what was given after the verb.
        config: that lies under it, plain data.

    Raises:
        UserError: a name or key that no callback, or more than one, has.

    Example:
        >>> config = {"trainer": {"callbacks": [{"class_path": "EMA"}, {"class_path": "Evaluate"}]}}
        >>> with_callbacks(["--trainer.callbacks.EMA", "null", "--trainer.callbacks.n_val=0"], config)
        ['--trainer.callbacks=[{"class_path": "Evaluate", "init_args": {"n_val": 0}}]']
    """
    others, said = _apart(words)
    if not said:
        return others
    found = [_entry(one) for one in _as_list((config.get("trainer") or {}).get("callbacks"))]
    begun = len(found)
    for name, value in said:
        if name == "":
            found = [_entry(one) for one in _as_list(value)]
            begun = len(found)
        elif name == "+":
            found += [_entry(one) for one in _as_list(value)]
        else:
            _set(found, name, value, appended=len(found) > begun)
    return [*others, f"{OPTION}={json.dumps(found)}"]


def _apart(words: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """The words that do not speak of callbacks, and the others as (what stands behind the option, value)."""
    others: list[str] = []
    said: list[tuple[str, Any]] = []
    rest = iter(words)
    for word in rest:
        option, joined, after = word.partition("=")
        if option not in (OPTION, f"{OPTION}+") and not option.startswith(f"{OPTION}."):
            others.append(word)
            continue
        value = after if joined else next(rest, None)
        if value is None:
            raise UserError(f"{option} needs a value")
        said.append((option.removeprefix(OPTION).removeprefix("."), get_loader("yaml")(value)))
    return others, said


def _set(found: list[dict[str, Any]], name: str, value: Any, appended: bool) -> None:
    first, _, key = name.partition(".")
    named = [one for one in found if one["class_path"].rpartition(".")[2] == first]
    number, _, rest = key.partition(".")
    if named and number.isdigit() and 1 <= int(number) <= len(named):
        named, key = [named[int(number) - 1]], rest
    if named and not key:
        if value is not None:
            raise UserError(f"{OPTION}.{name} null leaves it out; to set something of it: {OPTION}.{name}.KEY VALUE")
        found[:] = [one for one in found if all(one is not other for other in named)]
        return
    if len(named) > 1:
        choice = " or ".join(f"{OPTION}.{first}.{k}.{key}" for k in range(1, len(named) + 1))
        raise UserError(f"{OPTION}.{name}: {len(named)} callbacks are {first}: say {choice}")
    if named:
        owner = named[0]
    else:
        key = name.removeprefix("init_args.")
        owner = found[-1] if appended else _owner(found, key)
    owner.update(placed(owner, key.split("."), value))


def _owner(found: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """The one callback that has a setting."""
    first, *more = key.split(".")
    names = [one["class_path"].rpartition(".")[2] for one in found]
    if more and (first[:1].isupper() or first in names):
        raise UserError(f"{OPTION}.{key}: the config has no callback {first!r}: {nearest(first, names)}".rstrip(": "))
    owners = [(name, one) for name, one in zip(names, found, strict=True) if first in _known(one["class_path"])]
    if len(owners) == 1:
        return owners[0][1]
    if not owners:
        known = {setting for one in found for setting in _known(one["class_path"])} | set(names)
        raise UserError(
            f"{OPTION}.{key}: no callback of the config has {first!r}: {nearest(first, known)}".rstrip(": ")
        )
    choice = " or ".join(f"{OPTION}.{name}.{key}" for name, _ in owners)
    raise UserError(f"{OPTION}.{key}: {len(owners)} callbacks have it: say {choice}")


def _known(class_path: str) -> list[str]:
    """The settings of a callback; none where its class cannot be found, which the parser will say."""
    module, _, name = class_path.rpartition(".")
    try:
        room: Any = import_module(module) if module else None
    except ImportError:
        return []
    kind = getattr(room, name, None) if room else getattr(ours, name, None) or getattr(lightnings, name, None)
    if not isinstance(kind, type):
        return []
    return ArgumentParser(exit_on_error=False).add_class_arguments(kind, fail_untyped=False)


def _entry(one: Any) -> dict[str, Any]:
    """A callback of a config, which may be a name alone."""
    if isinstance(one, str):
        return {"class_path": one, "init_args": {}}
    if not isinstance(one, dict) or not isinstance(one.get("class_path"), str):
        raise UserError(f"trainer.callbacks: {one!r} is no callback: give a class, or its class_path and init_args")
    return {**one, "init_args": dict(one.get("init_args") or {})}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
