"""A figure: one thing that is measured of a model, with its settings, its numbers and its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from ebmzoo.methods.capabilities import LACKS
from ebmzoo.metrics import Protocol

from .look import Look


class Number(NamedTuple):
    """A number, and how it was measured."""

    name: str
    value: float
    protocol: Protocol


class Picture(NamedTuple):
    """A picture, uint8 ``(3, H, W)``."""

    name: str
    pixels: Tensor


class Array(NamedTuple):
    """What the report draws itself."""

    name: str
    values: Tensor


class Left(NamedTuple):
    """A part of a figure that is left out, and why."""

    name: str
    reason: str


Found = Number | Picture | Array | Left
Findings = Iterator[Found]


def numbers(values: Mapping[str, float], protocol: Protocol) -> Iterator[Number]:
    """Several numbers of one protocol."""
    return (Number(name, value, protocol) for name, value in values.items())


class Figure:
    """What is measured of a model: a frozen dataclass of settings, which is called with a `Look`.

    What it yields before it raises a ValueError or a FileNotFoundError is kept; the error becomes the line that says
    why the rest is not there.

    Attributes:
        name: what its lines call it.
        part: of an evaluation, as ``--only`` takes it.
        of: the examples that it is made for, "images" or "points"; of others it is not. None is both.
        takes: what has to be there: the look's "samples" (and data), its "data", or the "model" alone.
        needs: capabilities that the method must have; where it lacks one, the line says so.
        quiet: that it is not said which of them a method lacks.
    """

    # Builtin types alone: the command line reads them in the module of the figure that inherits them.
    name: str
    part: str = "more"
    of: str | None = None
    takes: str = "data"
    needs: tuple[type, ...] = ()
    quiet: bool = False

    def __call__(self, look: Look) -> Findings:
        """Measure it."""
        raise TypeError(f"{type(self).__name__} does not say what it measures")


def reason_against(figure: Figure, look: Look) -> str | None:
    """Why a figure cannot be made of what is looked at: "" where that goes without saying; None if it can."""
    if figure.of not in (None, look.kind) or (look.data is None and figure.takes != "model"):
        return ""
    if figure.takes == "samples" and look.samples is None:
        return ""
    for kind in figure.needs:
        if not isinstance(look.model, kind):
            lacking = LACKS.get(kind, f"is no {kind.__name__}")
            return "" if figure.quiet else f"{type(look.model).__name__} {lacking}"
    return None
