"""Configs: those that ship, what a file says, and what the words of a command say of them before a parser does."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import ebmzoo
from ebmzoo.cli.errors import TOP_KEYS, UserError, nearest, one_line
from ebmzoo.lazy import load

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

#: whose classes configs may name without their module
ROOMS = ("callbacks", "data", "figures", "mcmc", "methods", "networks", "parts")
#: the keys of a setting that is a class
SPEC = {"class_path", "init_args", "dict_kwargs"}
#: the repository's ``configs/``, by a link; a wheel holds copies
FOLDER = Path(ebmzoo.__file__).parent / "configs"


def shipped() -> dict[str, Path]:
    """The shipped configs by name.

    Example:
        >>> shipped()["ecvae_digits"].name
        'ecvae_digits.yaml'
    """
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def config_path(name: str) -> str:
    """The file that ``--config`` means: one of that path, else the shipped config of that name.

    Raises:
        UserError: there is neither.
    """
    if Path(name).is_file():
        return name
    found = shipped()
    # A path into configs/ means the shipped one too, from whatever folder: so the commands of the docs work anywhere.
    short = name.removesuffix(".yaml").removeprefix("configs/")
    if short in found:
        return str(found[short])
    hint = nearest(short, found) if "/" not in short else ""
    raise UserError(f"no config at {name} (looked from {Path.cwd()}), and none of that name: {hint}".rstrip(": "))


def with_paths(words: Sequence[str]) -> list[str]:
    """Words in which each ``--config`` names a file.

    Example:
        >>> with_paths(["--config=ecvae_digits", "--seed_everything", "1"])[0].endswith("ecvae_digits.yaml")
        True
    """
    found: list[str] = []
    follows = False
    for word in words:
        option, joined, value = word.partition("=")
        if follows:
            word = config_path(word)
        elif option in ("--config", "-c") and joined:
            word = f"{option}={config_path(value)}"
        follows = not follows and option in ("--config", "-c") and not joined
        found.append(word)
    return found


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


def import_trusted(modules: Iterable[str]) -> None:
    """Import the modules of ``--trust``: whose classes a checkpoint may name.

    Raises:
        UserError: one cannot be imported.
    """
    for module in modules:
        try:
            import_module(module)
        except Exception as error:  # a user's module can fail in any way
            said = one_line(str(error))
            raise UserError(f"--trust {module}: cannot import it ({said}); is its folder on PYTHONPATH?") from error


def load_named(*said: Any) -> None:
    """Load the classes of this package that words and configs name: a parser knows short names of what is loaded."""
    load(*ROOMS, among=set(re.findall(r"\w+", repr(said))))


def load_all() -> None:
    """Load all classes of this package that a config may name."""
    load(*ROOMS)


def parsed(parser: ArgumentParser, words: Sequence[str], of_verb: ArgumentParser | None = None) -> Any:
    """What a parser makes of words; one may name a file that names a class which nobody has loaded.

    Args:
        parser: of these words, or of all verbs.
        words: what it takes; of all verbs, a verb and what follows it.
        of_verb: the verb's own parser, which knows what it takes.

    Raises:
        UserError: what the parser does not take, in one line.
    """
    try:
        return parser.parse_args(list(words))
    except ArgumentError:
        load_all()
    try:
        return parser.parse_args(list(words))
    except ArgumentError as error:
        from ebmzoo.cli.config_errors import explained

        raise explained(of_verb or parser, words if of_verb is None else words[1:], error) from error


def placed(below: Any, path: Sequence[str], value: Any) -> Any:
    """A setting in which what stands under a path of keys is another."""
    if not path:
        return value
    first, *rest = path
    below = {"class_path": below} if isinstance(below, str) else dict(below or {})
    if first not in SPEC and ("class_path" in below or "init_args" in below):
        first, rest = "init_args", list(path)
    return {**below, first: placed(below.get(first), rest, value)}


def as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, a list of them, or none."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
