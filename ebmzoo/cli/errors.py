"""What a user can get wrong, in one line: what is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
import dis
import inspect
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, get_args, get_origin, get_type_hints

from ebmzoo.lazy import names

TOP_KEYS = ("seed_everything", "trainer", "model", "data", "run_dir", "ckpt_path", "no_ema", "resume", "trust")
HINT = "EBMZOO_TRACEBACK=1 shows where"

# jsonargparse explains itself in a tree; these lines of it are its scaffolding.
_SCAFFOLD = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a path but", "Type ")
_KEY = re.compile(r'Parser key "([^"]+)"[^:]*:\s*')
_OWNER = re.compile(r"Problem with given class_path '([^']+)'")
_CALLABLE = re.compile(r"Type \S.* expects a function or a callable class: ")
_EXPECTED = re.compile(r"Expected an? (?:<class '([^']+)'>|(.+?))(?:\. Got value: (.*))?$")
_NO_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|module '\S+' has no attribute '(\w+)'"
    r"|No module named '([\w.]+)'"
)
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|[Uu]nable to allocate|std::bad_alloc")
_ASKED = re.compile(r"(tried to allocate|Tried to allocate|[Uu]nable to allocate) [\d.,]+ \w+")
# What Lightning and torch say and we can add to; its own advice is of other loops than ours.
_ADVICE = {
    r"No supported gpu backend found|Accelerator` can not run on your system": "take --trainer.accelerator auto",
    r"parameters that were not used in producing the loss": "take --trainer.strategy ddp_find_unused_parameters_true",
    r"does not have a deterministic implementation|^Deterministic behavior was enabled": (
        "--trainer.deterministic warn goes on"
    ),
    r"^`val_check_interval` \(": "--trainer.limit_val_batches 0 leaves validation out",
}
_LONG = 240  # of its words, in characters
_LIBRARIES = ("lightning", "lightning_utilities", "torch.optim")  # what they raise is of how they are used
# The end of what a forked process leaves of itself: what a raise statement raised, and nothing after it.
_OF_PROCESS = re.compile(
    r"\n +raise [^\n]*\n(?: +[~^]+\n)?(?:[\w.]+\.)?(?:UserError|ValueError|\w+Exception): ([^\n]+)\s*$"
)
_NO_OPTION = re.compile(r"Option '([^']+)' is not accepted")


class UserError(ValueError):
    """Bad input, said in one line."""


class Stopped(RuntimeError):
    """A run that ended early for a reason of its own, said in one line."""


@contextmanager
def instantiating() -> Iterator[None]:
    """Where objects are made of a config, whatever their constructors object to is that config's matter."""
    try:
        yield
    except (UserError, ArgumentError):
        raise
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if _out_of_memory(error) or _of_library(error):
            raise
        said = condense(str(error)) or type(error).__name__
        hint = "" if isinstance(error, ValueError | OSError) else f" ({HINT})"
        raise UserError(f"{said}{hint}") from error


def line_of(error: BaseException) -> str | None:
    """The line for an exception of bad input; None for a programming error, which keeps its traceback.

    An error is the user's if a parser raised it, if the operating system refused a file, if it is a ValueError that
    some ``raise`` statement made with intent, or if a ``raise`` statement of Lightning or of an optimiser made it: one
    that an operation ran into is ours.
    """
    if _out_of_memory(error):
        asked = _ASKED.search(str(error))
        return (
            f"out of memory{f' ({asked[0]})' if asked else ''}: lower --data.batch_size or a network's width, let a "
            f"buffer keep less, or try --trainer.precision bf16-mixed; `ebmzoo doctor` says what a config needs"
        )
    if isinstance(error, ArgumentError):
        return condense(error.message)
    if isinstance(error, UserError):
        return _one_line(str(error))
    if isinstance(error, OSError):
        return _one_line(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    if line := _of_library(error):
        return line
    if type(error).__name__ == "ProcessRaisedException":
        return said[1] if (said := _OF_PROCESS.search(str(error))) else None
    if isinstance(error, ValueError) and _raised_in(error.__traceback__):
        return _one_line(str(error))
    return None


def _of_library(error: BaseException) -> str:
    """What Lightning or an optimiser refuses, if long its first sentence, or with our advice; "" for other errors."""
    words = _one_line(str(error))
    first = words.split(". ")[0]
    for pattern, advice in _ADVICE.items():
        if re.search(pattern, words):
            return f"{first.rstrip('.!')}; {advice}"
    module = _raised_in(error.__traceback__)
    if not module.startswith(_LIBRARIES):
        return ""
    return (words if len(words) <= _LONG else first) or f"{type(error).__name__} in {module}"


def _out_of_memory(error: BaseException) -> bool:
    # torch has a class of its own for GPUs alone, and a parser may have wrapped it.
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def condense(message: str) -> str:
    r"""The line that matters of a parser's explanation, with the key it belongs to and nearby known names.

    Example:
        >>> condense('Parser key "data":\n  Errors:\n  - Parser key "size":\n  Expected an int. Got value: x')
        "data.size: expected int, not 'x'"
    """
    keys: list[str] = []
    owner = ""
    lines = message.splitlines()
    for number, line in enumerate(lines):
        text = line.strip().removeprefix("- ")
        while match := _KEY.match(text) or _CALLABLE.match(text):
            if match.re is _KEY:
                keys.append(match[1])
            text = text[match.end() :]
        if match := _OWNER.match(text):
            owner = match[1]
        elif text and not text.startswith(_SCAFFOLD) and text != "Expected a <class 'NoneType'>":
            said = _leaf(text, lines[number + 1 :], keys, owner)
            return f"{'.'.join(keys)}: {said}" if keys else said
    return _one_line(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what was meant: the nearest known names, or all of them where they are few.

    Example:
        >>> nearest("Langevi", ["Langevin", "MALA", "HMC"])
        'did you mean Langevin?'
        >>> nearest("xyz", ["Langevin", "MALA", "HMC"])
        'there are HMC, Langevin, MALA'
    """
    names = sorted(set(known))
    found = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"there are {', '.join(names)}" if 0 < len(names) <= 24 else ""


def _leaf(text: str, after: Sequence[str], keys: Sequence[str], owner: str) -> str:
    if match := _NO_OPTION.match(text):
        inner = re.search(r"Got value: Namespace\(class_path='([^']+)'", text)
        return _no_setting(match[1], inner[1] if inner else owner)
    if match := _NO_CLASS.match(text):
        name = next(part for part in match.groups() if part)
        return _no_class(owner if match[3] else name, keys, owner)
    if match := _EXPECTED.match(text):
        given = match[3] or next((line.split(":", 1)[1].strip() for line in after if "Given value:" in line), "")
        wanted = [_type_name(match)]
        for line in after:
            if "Given value" in line or not (other := _EXPECTED.match(line.strip().removeprefix("- "))):
                break
            if other[1] != "NoneType" and not _NO_CLASS.match(other[0]):
                wanted.append(_type_name(other))
        return f"expected {' or '.join(dict.fromkeys(wanted))}, not {given.split('. Got value:')[0]!r}"
    if match := re.match(r"the following arguments are required: (.*)", text):
        if missing := re.findall(r"\w+\.(data|model)\b", match[1]):
            options = " and ".join(f"--{key}" for key in missing)
            return (
                f"no {' and no '.join(missing)} given: use --config NAME (`ebmzoo list configs`) or FILE, or {options}"
            )
        return f"{owner.rpartition('.')[2] or 'it'} needs {match[1]}"
    if match := re.search(r"'(\w+)' object has no attribute 'keys'", text):
        wrong = "is empty" if match[1] == "NoneType" else f"is a {match[1]}"
        return f"init_args {wrong}: give settings under it, or remove the line"
    if match := re.match(r"\('cannot represent an object', <([\w.]+): (.+)>\)", text):
        return f"a default, {match[1]}, cannot be written to a config: give this setting as {match[2]}"
    if match := re.match(r"unrecognized arguments: (\S+)", text):
        inside = keys and owner and match[1].startswith("--")
        return _no_setting(re.split("[.=]", match[1][2:])[0], owner) if inside else _no_argument(match[1])
    return text.split(" Got value: Namespace")[0]


def _type_name(match: re.Match[str]) -> str:
    return re.sub(r"(typing|collections\.abc)\.", "", match[1] or match[2]).replace("Literal", "one of ")


def _no_setting(name: str, class_path: str) -> str:
    if name == "class_path":
        return "takes class_path and init_args, and nothing beside them"
    module, _, kind = class_path.rpartition(".")
    try:
        known = settings_of(getattr(import_module(module), kind)) if module else []
    except (ImportError, AttributeError, ValueError):
        known = []
    return f"{kind or 'it'} has no setting {name!r}: {nearest(name, known)}".rstrip(": ")


def settings_of(kind: type) -> list[str]:
    """Names that a class's constructor takes, and its bases' where it passes on ``**kwargs``."""
    own = inspect.signature(kind).parameters
    names = [name for name, parameter in own.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(names) < len(own):
        names += [name for base in kind.__mro__[1:2] if base is not object for name in settings_of(base)]
    return names


def _no_class(name: str, keys: Sequence[str], owner: str) -> str:
    from ebmzoo.cli.given import load_all

    load_all()  # to know what there is
    name = name.rstrip(".")
    short, slot = name.rpartition(".")[2], keys[-1] if keys else ""
    top = name.partition(".")[0]
    if short != name and top.isidentifier() and find_spec(top) is None:
        return f"no module {top!r} on Python's path, where {name} is looked for: see PYTHONPATH"
    known = _taken_by(owner, slot) or _known_classes(".".join(keys))
    if short == name and short in set(_ours()) - known:
        taken = sorted(one for one in known if slot.lower() in one.lower()) or known
        hint = nearest(short, taken)
        return f"{name} is a class of this package, but none that {slot or 'this place'} takes: {hint}".rstrip(": ")
    return f"no class {name!r} here: {nearest(short, known)}".rstrip(": ")


def _ours() -> list[str]:
    from ebmzoo.cli.given import ROOMS

    return [name for room in ROOMS for name in names(room)]


def _taken_by(owner: str, slot: str) -> set[str]:
    """Names of our classes that a class's argument is annotated to take; none where that says no more than Module."""
    module, _, kind = owner.rpartition(".")
    try:
        hints = get_type_hints(getattr(import_module(module), kind).__init__) if module else {}
    except (ImportError, AttributeError, NameError):
        return set()
    bases = [base for base in _classes_in(hints.get(slot)) if base.__module__.startswith("ebmzoo.")]
    return {kind.__name__ for base in bases for kind in (base, *_subclasses(base)) if kind.__name__ in _ours()}


def _classes_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names: of a union each, of a callable what it gives."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation)[-1:] if _is_callable(annotation) else get_args(annotation):
        yield from _classes_in(inner)


def _is_callable(annotation: Any) -> bool:
    return get_origin(annotation) is Callable


def _known_classes(key: str) -> set[str]:
    """Names of the classes that can stand under a key of the config."""
    from lightning import Callback
    from lightning.pytorch.loggers import Logger
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ebmzoo import networks, parts
    from ebmzoo.data.base import DataModule
    from ebmzoo.mcmc import Sampler
    from ebmzoo.methods.base import Method
    from ebmzoo.objectives import Penalty

    roles = {
        "callbacks": Callback,
        "logger": Logger,
        "optimizer": Optimizer,
        "schedule": LRScheduler,
        "sampler": Sampler,
        "refine": Sampler,
        "penalties": Penalty,
        "model": Method,
        "data": DataModule,
    }
    last = key.rpartition(".")[2]
    base = next((base for role, base in roles.items() if last.endswith(role)), None)
    if base is None:
        rooms = {"networks": networks, "parts": parts}
        return {one for room in rooms for one in names(room) if isinstance(getattr(rooms[room], one), type)}
    return {kind.__name__ for kind in _subclasses(base) if not kind.__name__.startswith("_")}


def _subclasses(base: type) -> Iterator[type]:
    below: list[type] = type.__subclasses__(base)
    for kind in below:
        yield kind
        yield from _subclasses(kind)


def _no_argument(option: str) -> str:
    if not option.startswith("-"):
        from ebmzoo.cli.shipped import shipped

        meant = f": did you mean --config {option}?" if option in shipped() or option.endswith(".yaml") else ""
        return f"{option!r} belongs to no option{meant}"
    name = option.lstrip("-").partition("=")[0]
    if name.startswith("trainer."):
        from lightning import Trainer

        hint = nearest(name[8:], inspect.signature(Trainer).parameters)
        return f"trainer has no setting {name[8:]!r}: {hint}".rstrip(": ")
    return f"no option {option}: {nearest(name, (*TOP_KEYS, 'config'))}"


def _raised_in(traceback: TracebackType | None) -> str:
    """The module whose ``raise`` statement made an error; "" if an operation ran into it."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame, code = traceback.tb_frame, traceback.tb_frame.f_code.co_code
    raised = dis.opname[code[traceback.tb_lasti]] == "RAISE_VARARGS"
    return str(frame.f_globals.get("__name__", "")) if raised else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
