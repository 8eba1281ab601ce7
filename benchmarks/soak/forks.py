"""Commands in forks of this process, which has everything imported, and what they have in common."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

import ebmzoo.cli.lightning_cli  # noqa: F401 - imported before the forks

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OFFLINE = {"Digits", "Gaussians25", "StackedDigits", "Glyphs", "Toy2D"}
SHORT = ["--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def small_configs() -> list[Path]:
    """The configs whose data need no download."""
    return [
        path
        for path in sorted(CONFIGS.glob("*.yaml"))
        if yaml.safe_load(path.read_text())["data"]["class_path"] in OFFLINE
    ]


class Ended(NamedTuple):
    """How a command ended: its exit code (minus the signal that killed it), what it printed, how long it took."""

    code: int
    text: str
    seconds: float


def in_fork(
    work: Callable[[], int],
    seconds: float,
    memory: int | None = None,
    kill_when: Callable[[], bool] | None = None,
    kill_after: float = 0.0,
) -> Ended:
    """Run ``work`` in a fork of this process, in a session of its own.

    Args:
        work: returns the exit code.
        seconds: after which it is killed and the code is -SIGALRM.
        memory: most bytes of its own.
        kill_when: from when on the seconds of ``kill_after`` are counted, at whose end comes kill -9.
        kill_after: see there.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if memory:
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
            try:
                code = work()
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        ready = None
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            now = time.monotonic()
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            if ready is None and kill_when is not None and kill_when():
                ready = now
            late = now - began > seconds
            if late or (ready is not None and now - ready > kill_after):
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                code = -signal.SIGALRM if late else -signal.SIGKILL
                break
            time.sleep(0.002)
        output.seek(0)
        return Ended(code, output.read(), time.monotonic() - began)
