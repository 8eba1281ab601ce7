"""How a run ended that was told to: what was saved, and the command that goes on from it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException

from ebmzoo.callbacks.preemption import Terminated
from ebmzoo.cli.runs import CHECKPOINTS, say


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
