"""How a run ended: what it left, and the commands that go on from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ebmzoo.callbacks.preemption import Terminated
from ebmzoo.cli.runs import CHECKPOINTS, say


def say_what_next(trainer: Trainer, folder: Path, trusted: Sequence[str] = ()) -> None:
    """After a training: its last figures, the best that was kept, and what may be done with it.

    Args:
        trainer: that has ended.
        folder: the run's.
        trusted: modules whose classes the run names and other verbs must be told to trust.
    """
    last = folder / CHECKPOINTS / "last.ckpt"
    say(f"run folder: {folder}")
    for saver in trainer.checkpoint_callbacks:
        if isinstance(saver, ModelCheckpoint) and saver.monitor and saver.best_model_score is not None:
            name = os.path.relpath(saver.best_model_path)
            say(f"best {saver.monitor}: {float(saver.best_model_score):.4g}, in {name}")
    if not last.is_file():
        return
    trust = "".join(f" --trust {module}" for module in trusted)
    say(f"next: ebmzoo test --ckpt_path {last}{trust}")
    say(f"      ebmzoo sample --ckpt_path {last}{trust} --n 64 --out samples.png")
    say(f"      ebmzoo compare {folder} OTHER_RUN ...          (of runs that were tested)")


def say_ending(error: BaseException, folder: Path, trusted: Sequence[str] = ()) -> None:
    """Say what a signal left, and give the exit the code that shells know the signal by; nothing for other errors.

    Args:
        error: what a run ended by.
        folder: the run's.
        trusted: the modules of ``--trust``, which going on needs again.
    """
    if isinstance(error, Terminated):
        trust = "".join(f" --trust {module}" for module in trusted)
        last = folder / CHECKPOINTS / "last.ckpt"
        say(f"{error}\ngo on with: ebmzoo fit --ckpt_path {last} --run_dir {folder}{trust}")
    elif isinstance(error, SIGTERMException):
        # Lightning leaves it without a code, which would tell a shell that all went well.
        error.code = 128 + signal.SIGTERM
        say("terminated")
    elif isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        error.code = 128 + signal.SIGINT
        say("interrupted")
