"""What the verbs without a Trainer have in common: their words, a checkpoint's model, where they write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ebmzoo.cli.configs import import_trusted
from ebmzoo.cli.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from ebmzoo.methods import Method


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        verb: its name.
        description: what it does, for its help.
    """

    def __init__(self, verb: str, description: str):
        super().__init__(prog=f"ebmzoo {verb}", description=description, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse, and name the nearest option where one is unknown."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name.lstrip("-") for action in self._actions for name in action.option_strings]
            raise UserError(f"no option {unknown[0]}: {nearest(unknown[0].lstrip('-').partition('=')[0], known)}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UserError(f"no {value!r} here: {nearest(value, action.choices)}")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with its choices where an option is missing."""
        word, _, rest = message.partition(": ")
        if word == "the following arguments are required":
            first = next((action for action in self._actions if rest.split(", ")[0] in action.option_strings), None)
            choices = f" (one of {', '.join(map(str, first.choices))})" if first is not None and first.choices else ""
            message += choices
        raise UserError(message)


class Parser(OneLineParser):
    """A parser with the options of the verbs that use a checkpoint.

    Args:
        verb: its name.
        description: what it does, for its help.
        at_once: what ``--batch_size`` counts, for its help; None for a verb that makes no model.
    """

    def __init__(self, verb: str, description: str, at_once: str | None = None):
        super().__init__(verb, description)
        add = self.add_argument
        add("--ckpt_path", required=True, help="checkpoint of a training run")
        add("--no_ema", action="store_true", help="raw weights, not averaged ones")
        if at_once is not None:
            add("--trust", action="append", default=[], help="a module whose classes the checkpoint may name")
            add("--seed", type=int, default=0, help="seed of all random numbers (0); each image has its own")
            add("--batch_size", type=int, default=256, help=f"{at_once} at a time (256)")
            add("--device", help="cpu, cuda, cuda:1, ... (the GPU if there is one)")


def load_model(options: argparse.Namespace) -> Method:
    """The model of ``--ckpt_path`` on ``--device``, with averaged weights unless ``--no_ema``."""
    import_trusted(options.trust)
    from ebmzoo.checkpoints import load

    return load(options.ckpt_path, ema=not options.no_ema, map_location=device_of(options))


def device_of(options: argparse.Namespace) -> str:
    """``--device``, or the GPU if there is one."""
    import torch

    device: str = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: there is none here") from error
    return device


def weights_of(model: Method) -> str:
    """Which weights a model has, in words."""
    return "averaged (EMA)" if model.ema_active else "raw"


def check_writable(out: Path) -> None:
    """Refuse before the work what could not be written after it."""
    place = out
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK) or (place != out and not place.is_dir()):
        raise UserError(f"cannot write {out}: {place} is {'not writable' if place.is_dir() else 'a file'}")


def methods_with(*names: str) -> str:
    """Names of the methods on the shelf that have, or are given, all of these, for an error line."""
    from ebmzoo import lazy, methods

    found = [
        name
        for name in lazy.names("methods")
        if isinstance(kind := getattr(methods, name), type)
        and issubclass(kind, methods.Method)
        and kind is not methods.Method
        and all(hasattr(kind, one) or one in signature(kind).parameters for one in names)
    ]
    return ", ".join(sorted(found))


def need_decoder(model: Method, what: str) -> None:
    """Refuse, for what is asked for, a model that generates no images from latent codes."""
    from ebmzoo.methods import Decodes

    if not isinstance(model, Decodes):
        able = methods_with("decode", "draw_latents", "log_prior")
        lacks = f"which {type(model).__name__} does not have: {able} do"
        raise UserError(f"{what} needs a generator from latent codes with a prior, {lacks}")
    if len(model.image_shape) != 3:
        raise UserError(f"{what} is of images: this model was trained on points {tuple(model.image_shape)}")


def read_images(paths: Sequence[Path], shape: tuple[int, ...]) -> Tensor:
    """Images of one shape ``(C, H, W)``: floats ``(n, C, H, W)`` in [-1, 1]."""
    import torch

    from ebmzoo.data.files import read_image_of
    from ebmzoo.images import from_uint8

    for path in paths:
        if not path.is_file():
            raise UserError(f"there is no image {path} (looked from {Path.cwd()})")
    return torch.stack([from_uint8(read_image_of(str(path), shape)) for path in paths])
