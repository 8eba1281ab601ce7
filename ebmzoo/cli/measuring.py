"""What the command line tells the callback that measures."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ebmzoo.callbacks import Evaluate
from ebmzoo.callbacks.evaluation import PARTS, SWITCHES
from ebmzoo.cli.errors import UserError, nearest
from ebmzoo.cli.runs import say


def add_options(parser: LightningArgumentParser) -> None:
    """Add what ``ebmzoo test`` can be told."""
    parser.add_argument("--only", type=str | None, help=f"Parts, by comma: {', '.join(PARTS)}.")
    for name, words in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=words)


def tell_evaluate(options: Any, trainer: Trainer, trained_steps: int | None) -> None:
    """Hand the options of ``ebmzoo test`` on.

    Args:
        options: ``only`` and the switches.
        trainer: of the test.
        trained_steps: of the weights.

    Raises:
        UserError: a part that there is not, or options where nothing measures.
    """
    only = options.only.replace(",", " ").split() if options.only else None
    if unknown := [name for name in only or () if name not in PARTS]:
        raise UserError(f"--only {unknown[0]}: {nearest(unknown[0], PARTS)}")
    given: list[Any] = getattr(trainer, "callbacks", [])
    measuring = [one for one in given if isinstance(one, Evaluate)]
    switches = [name for name in SWITCHES if options[name]]
    if not measuring and (only or switches):
        raise UserError(f"--only, --{', --'.join(SWITCHES)} tell Evaluate: add it to trainer.callbacks")
    if not measuring:
        say("nothing is measured: the config has no Evaluate; --trainer.callbacks+=Evaluate adds one")
    for evaluate in measuring:
        evaluate.trained_steps = trained_steps
        evaluate.only = only or evaluate.only
        for name in switches:
            setattr(evaluate, name, True)
