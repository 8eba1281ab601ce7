"""What a user can get wrong, in one line: what is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
import re
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from yaml.representer import RepresenterError

TOP_KEYS = ("seed_everything", "trainer", "model", "data", "run_dir", "ckpt_path", "no_ema", "resume", "trust")
HINT = "EBMZOO_TRACEBACK=1 shows where"

# What Lightning and torch say and we can add to, by words of theirs: their own advice is of other loops than ours.
_ADVICE = {
    "No supported gpu backend found": "take --trainer.accelerator auto",
    "Accelerator` can not run on your system": "take --trainer.accelerator auto",
    "does not have a deterministic implementation": "--trainer.deterministic warn goes on",
    "Deterministic behavior was enabled": "--trainer.deterministic warn goes on",
    "`val_check_interval` (": "--trainer.limit_val_batches 0 leaves validation out",
}
_LONG = 240  # of its words, in characters
_LIBRARIES = ("lightning", "lightning_utilities", "torch.optim")  # what they raise is of how they are used
# The amount that could not be had, where torch or numpy says it.
_ASKED = re.compile(r"(tried to allocate|unable to allocate) [\d.,]+ \w+", re.IGNORECASE)
# The end of what a forked process leaves of itself: what a raise statement raised, and nothing after it.
_OF_PROCESS = re.compile(
    r"\n +raise [^\n]*\n(?: +[~^]+\n)?(?:[\w.]+\.)?(?:UserError|ValueError|\w+Exception): ([^\n]+)\s*$"
)


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
        cause = cause_of(error)
        if isinstance(cause, RepresenterError):
            default = cause.args[1]
            plain = getattr(default, "value", default)
            raise UserError(f"a default, {default}, cannot be written to a config: give it as {plain!r}") from error
        said = one_line(str(cause)) or type(cause).__name__
        hint = "" if isinstance(cause, ValueError | OSError) else f" ({HINT})"
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
    if isinstance(error, UserError | ArgumentError):
        return one_line(str(error))
    if isinstance(error, OSError):
        return one_line(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    if line := _of_library(error):
        return line
    if type(error).__name__ == "ProcessRaisedException":
        return said[1] if (said := _OF_PROCESS.search(str(error))) else None
    if isinstance(error, ValueError) and _raised_in(error):
        return one_line(str(error))
    return None


def _of_library(error: BaseException) -> str:
    """What Lightning or an optimiser refuses, if long its first sentence, or with our advice; "" for other errors."""
    words = one_line(str(error))
    first = words.split(". ")[0]
    for part, advice in _ADVICE.items():
        if part in words:
            return f"{first.rstrip('.!')}; {advice}"
    module = _raised_in(error)
    if not module.startswith(_LIBRARIES):
        return ""
    return (words if len(words) <= _LONG else first) or f"{type(error).__name__} in {module}"


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was wanting, here or where the error came from: torch has a type for that of GPUs alone."""
    while error is not None:
        kind = type(error).__name__
        if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def cause_of(error: BaseException) -> BaseException:
    """What a parser wrapped: the first of a chain of errors that is not of the parser's own making, or the last."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def _raised_in(error: BaseException) -> str:
    """The module whose ``raise`` statement made an error; "" if an operation ran into it."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames or not (traceback.extract_tb(error.__traceback__)[-1].line or "").startswith("raise"):
        return ""
    return str(frames[-1][0].f_globals.get("__name__", ""))


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


def one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())
