"""What of a config its parser does not take: the first such place, found by the parser's own actions."""

from __future__ import annotations

from argparse import Action, ArgumentError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse._common import parser_context
from jsonargparse._typehints import (
    ActionTypeHint,
    get_all_subclass_paths,
    get_import_path,
    get_subclass_or_closed_types,
    import_object,
    resolve_class_path_by_name,
)
from torch import Tensor
from torch.nn import Module

from ebmzoo.cli.configs import ROOMS, SPEC, placed, read_config, shipped
from ebmzoo.cli.errors import UserError, cause_of, nearest, one_line
from ebmzoo.lazy import names


def explained(parser: ArgumentParser, words: Sequence[str], error: ArgumentError) -> UserError:
    """A parser's refusal in one line: the place and what is wrong there.

    Args:
        parser: of a verb.
        words: after the verb.
        error: what the parser said.
    """
    options = {name: action for action in parser._actions for name in action.option_strings}
    said: dict[Action, Any] = {}
    rest = iter(words)
    for word in rest:
        option, joined, value = word.partition("=")
        name, *path = _longest(option, options)
        action = options.get(name)
        if action is None or (path and not isinstance(action, ActionTypeHint)):
            return UserError(_no_option(option, options))
        if action.nargs == 0:
            continue
        if not joined and (value := next(rest, "")) == "":
            return UserError(f"{option} needs a value")
        if not isinstance(action, ActionConfigFile):
            said[action] = placed(said.get(action), path, _plain(value))
            continue
        for key, setting in _flat(read_config(value), options):
            if (action := options.get(f"--{key}")) is None:
                return UserError(_no_option(f"--{key}", options))
            said[action] = _merged(said.get(action), setting)
    settings = ((action, value) for action, value in said.items() if isinstance(action, ActionTypeHint))
    found = (_problem(parser, action, value, action.dest) for action, value in settings)
    if line := next(filter(None, found), None):
        return UserError(line)
    if missing := sorted({"data", "model"} - {action.dest for action in said}):
        parts = " and ".join(f"--{key}" for key in missing)
        words = f"use --config NAME (`ebmzoo list configs`) or FILE, or {parts}"
        return UserError(f"no {' and no '.join(missing)} given: {words}")
    return UserError(one_line(str(cause_of(error))))


def _problem(parser: ArgumentParser, action: ActionTypeHint, value: Any, key: str) -> str | None:
    """What is wrong with a value, in one line; None if its action takes it, or nobody can say.

    Args:
        parser: that the action belongs to.
        action: for a setting.
        value: plain data.
        key: of the setting, in the whole config.
    """
    if _takes(parser, action, value):
        return None
    found = get_subclass_or_closed_types(action._typehint, also_lists=True, callable_return=True) or ()
    bases = tuple(base for base in found if base is not Tensor)  # which no config names
    if bases and isinstance(value, list):
        refused = (one for one in value if not _takes(parser, action, [one]))
        return next(filter(None, (_problem(parser, action, one, key) for one in refused)), None)
    if not bases or not isinstance(value, str | dict):
        return f"{key}: expected {_expected(action._typehint)}, not '{value}'"
    spec = _spec(value, action.default, bases[0])
    settings = spec["init_args"]
    if spec.keys() - SPEC:
        return f"{key}: takes class_path and init_args, and nothing beside them"
    if not isinstance(settings, dict):
        wrong = "is empty" if settings is None else f"is a {type(settings).__name__}"
        return f"{key}: init_args {wrong}: give settings under it, or remove the line"
    if not isinstance(spec["class_path"], str):
        return f"{key}: class_path is the name of a class, not '{spec['class_path']}'"
    try:
        kind = import_object(resolve_class_path_by_name(bases, spec["class_path"]))
    except (ImportError, AttributeError, ValueError):
        kind = None
    if not isinstance(kind, type) or not issubclass(kind, bases):
        return f"{key}: {_no_class(spec['class_path'], bases, action.dest)}"
    inner = _parser_of(parser, action, kind)
    known = {one.dest: one for one in inner._actions if isinstance(one, ActionTypeHint)}
    for name, setting in settings.items():
        if name not in known:
            return f"{key}: {kind.__name__} has no setting {name!r}: {nearest(name, known)}".rstrip(": ")
        if line := _problem(inner, known[name], setting, f"{key}.{name}"):
            return line
    missing = [name for name, one in known.items() if one.required and name not in settings]
    return f"{key}: {kind.__name__} needs {', '.join(missing)}" if missing else None


def _merged(below: Any, above: Any) -> Any:
    """A setting of two configs of which the second wins, as the parser has it."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{name: _merged(below.get(name), value) for name, value in above.items()}}


# -- what was said -----------------------------------------------------------------------------------------------------


def _longest(option: str, options: Mapping[str, Action]) -> list[str]:
    """The longest known beginning of an option, and the keys that follow it."""
    path: list[str] = []
    while option not in options and "." in option:
        option, _, last = option.rpartition(".")
        path.insert(0, last)
    return [option, *path]


def _flat(config: Mapping[str, Any], options: Mapping[str, Action]) -> Iterator[tuple[str, Any]]:
    """A config's settings by the options that they have on the command line."""
    for key, value in config.items():
        if isinstance(options.get(f"--{key}"), ActionTypeHint) or not isinstance(value, dict):
            yield key, value
        else:
            yield from ((f"{key}.{name}", setting) for name, setting in value.items())


def _plain(word: str) -> Any:
    """What a word of a command says: lists and mappings in yaml, all else as it stands."""
    try:
        found = yaml.safe_load(word)
    except yaml.YAMLError:
        return word
    return found if isinstance(found, dict | list) else word


def _spec(value: str | dict[str, Any], default: Any, base: type) -> dict[str, Any]:
    """A class and its settings, both written out; what names no class is of the default's, or what the place takes."""
    if isinstance(value, str):
        return {"class_path": value, "init_args": {}}
    if not value.keys() & SPEC:
        value = {"init_args": value}
    implied = default.get("class_path") if isinstance(default, dict | Namespace) else None
    return {"class_path": implied or get_import_path(base), "init_args": {}, **value}


# -- what a parser takes -----------------------------------------------------------------------------------------------


def _takes(parser: ArgumentParser, action: ActionTypeHint, value: Any) -> bool:
    try:
        with parser_context(parent_parser=parser):
            action._check_type(value)
    except (TypeError, ValueError, ArgumentError):
        return False
    return True


def _parser_of(parser: ArgumentParser, action: Any, kind: type) -> ArgumentParser:
    """The parser of a class's settings, without those that its maker is called with."""
    hints = [one for one in (action._typehint, *get_args(action._typehint)) if get_origin(one) is Callable]
    skipped = {len(get_args(hints[0])[0])} if hints else None
    with parser_context(parent_parser=parser):
        return ActionTypeHint.get_class_parser(kind, action.sub_add_kwargs, skip_args=skipped)


def _expected(hint: Any) -> str:
    """The types of an annotation in words; None and tensors, which no config is meant to give, are left out."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is Callable:
        return _expected(get_args(hint)[-1])
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_expected(one) for one in get_args(hint) if one not in (type(None), Tensor))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


# -- what was meant ----------------------------------------------------------------------------------------------------


def _no_option(option: str, options: Iterable[str]) -> str:
    if not option.startswith("-"):
        meant = f": did you mean --config {option}?" if option in shipped() or option.endswith(".yaml") else ""
        return f"{option!r} belongs to no option{meant}"
    group, _, name = option.lstrip("-").partition(".")
    if inside := [one.removeprefix(f"--{group}.") for one in options if one.startswith(f"--{group}.")]:
        return f"{group} has no setting {name!r}: {nearest(name, inside)}".rstrip(": ")
    return f"no option {option}: {nearest(group, {one.lstrip('-').partition('.')[0] for one in options})}"


def _no_class(name: str, bases: Sequence[type], slot: str) -> str:
    top, short = name.partition(".")[0], name.rpartition(".")[2]
    if short != name and top.isidentifier() and find_spec(top) is None:
        return f"no module {top!r} on Python's path, where {name} is looked for: see PYTHONPATH"
    ours = {one for room in ROOMS for one in names(room)}
    known = {path.rpartition(".")[2] for base in bases for path in get_all_subclass_paths(base)}
    if any(base is Module or base.__module__.startswith("ebmzoo.") for base in bases):
        known = known & ours - {"DataModule", "Method"} or known
    if short == name and name in ours:
        hint = nearest(name, [one for one in known if slot in one.lower()] or known)
        return f"{name} is a class of this package, but none that {slot} takes: {hint}".rstrip(": ")
    return f"no class {short!r} here: {nearest(short, known)}".rstrip(": ")
