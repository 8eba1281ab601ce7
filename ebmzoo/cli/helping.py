"""What ``--help`` says: the verbs in our words, and of classes those that a config is meant to name."""

from __future__ import annotations

import re
from argparse import Action
from typing import Any

from jsonargparse import ActionConfigFile, DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from ebmzoo.lazy import names

_KNOWN = re.compile(r"known subclasses: ([^)]*)")
# Every layer that was ever imported is a subclass of Module; a config may name it, but nobody looks for it here.
_SHOWN = ("ebmzoo.", "torch.optim.", *(f"lightning.pytorch.{room}." for room in ("callbacks", "loggers", "profilers")))


class _Formatter(DefaultHelpFormatter):
    def _expand_help(self, action: Action) -> str:
        also = ["Energy"] if action.dest.endswith(".energy") else []
        return _KNOWN.sub(lambda match: _own(match, also), super()._expand_help(action))


def _own(match: re.Match[str], also: list[str]) -> str:
    found = [name for name in match[1].split(", ") if name.startswith(_SHOWN) and ".swa_utils." not in name]
    shorts = [name.rpartition(".")[2] if name.startswith("ebmzoo.") else name for name in found]
    if set(shorts) & set(names("networks")):  # what takes any Module is a place for networks
        shorts = [*also, *(name for name in shorts if name in names("networks"))]
    elif len(set(shorts) & set(names("methods"))) > 1:
        shorts = [name for name in shorts if name in names("methods")]
    return f"classes: {', '.join(shorts) or 'your own'}"


class Parser(LightningArgumentParser):
    """Lightning's parser, with this help.

    Args:
        settings: Lightning's.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **settings})

    def add_config(self) -> None:
        """Add ``--config``, to a parser that a user writes to."""
        words = "A file, or the name of a shipped config (`ebmzoo list configs`). May be repeated: the later one wins."
        self.add_argument("-c", "--config", action=ActionConfigFile, help=words)


def describe(parser: LightningArgumentParser, verb: str, words: str) -> None:
    """Say what a verb does, in place of what Lightning says of its Trainer's method."""
    parser.description = f"{words[0].upper()}{words[1:]}."
    begin = "--config CONFIG" if verb == "fit" else "--ckpt_path CHECKPOINT"
    parser.usage = f"ebmzoo {verb} {begin} [--SETTING VALUE ...]"  # settings stand below and would fill a page
    checkpoint = {
        "fit": "The checkpoint of a run to go on from: a local file.",
        "validate": "The checkpoint that is validated: a local file. It brings its config, if none is given.",
        "test": "The checkpoint that is measured: a local file. It brings its config, if none is given.",
        "predict": "The checkpoint that scores: a local file. It brings its config, if none is given.",
    }
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.dest == "ckpt_path":
                action.help, group.title = checkpoint[verb], f"Of {verb}"
