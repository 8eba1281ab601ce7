"""What the command line tells the callback that measures."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ebmzoo.callbacks import Evaluate
from ebmzoo.cli.errors import UserError, nearest
from ebmzoo.cli.runs import say
from ebmzoo.figures import PARTS, SWITCHES


def add_options(parser: LightningArgumentParser) -> None:
    """Add what ``ebmzoo test`` can be told."""
    parser.add_argument("--only", type=str | None, help=f"Parts, by comma: {', '.join(PARTS)}.")
    for name, figure in SWITCHES.items():
        words = str(type(figure).__doc__).partition("\n")[0].replace("``", "")
        parser.add_argument(f"--{name}", action="store_true", help=f"Also: {words}")


def tell_evaluate(options: Any, trainer: Trainer, trained_steps: int | None) -> None:
    """Hand the options of ``ebmzoo test`` on.

    Args:
        options: ``only`` and the switches.
        trainer: of the test.
        trained_steps: of the weights.

    Raises:
        UserError: a part that there is not, or options where nothing measures.
    """
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    measuring = [one for one in callbacks if isinstance(one, Evaluate)]
    only = options.only.replace(",", " ").split() if options.only else None
    parts = {*PARTS, *(figure.part for one in measuring for figure in one.figures)}
    if unknown := [name for name in only or () if name not in parts]:
        raise UserError(f"--only {unknown[0]}: {nearest(unknown[0], parts)}")
    switched = [figure for name, figure in SWITCHES.items() if options[name]]
    if not measuring and (only or switched):
        raise UserError(f"--only, --{', --'.join(SWITCHES)} tell Evaluate: add it to trainer.callbacks")
    if not measuring:
        say("nothing is measured: the config has no Evaluate; --trainer.callbacks+=Evaluate adds one")
    for evaluate in measuring:
        evaluate.trained_steps = trained_steps
        evaluate.only = only or evaluate.only
        made = {type(one) for one in evaluate.figures}  # one that has settings keeps them
        evaluate.figures = [*evaluate.figures, *(one for one in switched if type(one) not in made)]
