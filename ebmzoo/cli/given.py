"""What was given on the command line, looked at before the parser sees it."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ebmzoo.cli.errors import TOP_KEYS, UserError, condense, nearest
from ebmzoo.lazy import load

ROOMS = (
    "callbacks",
    "data",
    "figures",
    "mcmc",
    "methods",
    "networks",
    "parts",
)  # whose classes configs may name without their module


def options(words: Sequence[str], *names: str) -> list[str]:
    """The values given to an option, as ``--name value`` or ``--name=value``, in order."""
    found: list[str] = []
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name in names:
            found += [value] if joined else words[place + 1 : place + 2]
    return found


class _GivenTwice(yaml.constructor.ConstructorError):
    pass


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, where yaml silently takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in [pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode)]:
            if key.value in first and key.tag != "tag:yaml.org,2002:merge":
                problem = f"{key.value} is given twice, first in line {first[key.value]}"
                raise _GivenTwice(problem=problem, problem_mark=key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_config(path: str) -> dict[str, Any]:
    """The content of a config; what is none is refused before the parser, whose words would not name the file."""
    try:
        content = yaml.load(Path(path).read_text(), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = "" if isinstance(error, _GivenTwice) else "not yaml: "
        raise UserError(f"{path}{where}: {what}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a config: it has no keys (trainer, model, data)")
    for key in content:
        if key not in TOP_KEYS and key not in _of_test():
            raise UserError(f"{path} has the unknown key {key!r}: {nearest(str(key), TOP_KEYS)}")
    return content


def _of_test() -> set[str]:
    """The keys that only ``ebmzoo test --print_config`` writes."""
    from ebmzoo.figures import SWITCHES  # slow to import

    return {"only", *SWITCHES}


def import_trusted(module: str) -> None:
    """Import a module whose classes the user trusts.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import_module(module)
    except Exception as error:  # a user's module can fail in any way
        raise UserError(
            f"--trust {module}: cannot import it ({condense(str(error))}); is its folder on PYTHONPATH?"
        ) from (error)


def load_named(*said: Any) -> None:
    """Load the classes of this package that words and configs name: a parser knows short names of what is loaded."""
    load(*ROOMS, among=set(re.findall(r"\w+", repr(said))))


def load_all() -> None:
    """Load all classes of this package that a config may name."""
    load(*ROOMS)


def parsed(parser: ArgumentParser, words: Sequence[str]) -> Any:
    """What a parser makes of words; one of them may name a file that names a class which nobody has loaded."""
    try:
        return parser.parse_args(list(words))
    except ArgumentError:
        load_all()
        return parser.parse_args(list(words))


def as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, a list of them, or none."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
