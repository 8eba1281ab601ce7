"""``python -m ebmzoo.cli.worker``: a process that imports everything once, and forks for each command it is told.

It reads a line of JSON for each command, its words and the file for what it prints, and answers with a line: exit code,
wall-clock seconds and CPU seconds. It ends with its input, and hands SIGTERM on to the command that runs.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module


def serve() -> int:
    """Do command after command; in a fork, do one and give its exit code."""
    ends = _End()  # before the imports, whose own functions at exit run before it
    main = import_module("ebmzoo.cli.main")
    import_module("ebmzoo.cli.lightning_cli")
    import_module("ebmzoo.cli.configs").load_all()
    gc.freeze()  # what the garbage collector leaves alone stays shared with the forks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, whose end is answered
    running: list[int] = []

    def hand_on(*_: object) -> None:
        for child in running:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, hand_on)
    for line in sys.stdin:
        words, log = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            ends.forked = True
            _prepare([str(main.__file__), *words], log)
            ends.code = main.main(words)
            return ends.code
        running.append(child)
        _, status, usage = os.wait4(child, 0)
        running.clear()
        cpu = usage.ru_utime + usage.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began, cpu]), flush=True)
    return 0


def _prepare(argv: Sequence[str], log: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = list(argv)  # what Lightning starts again for further processes
    with open(log, "ab") as out, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)


class _End:
    """The last function at exit: a fork is over then, and taking all modules apart would cost it a second or more."""

    def __init__(self) -> None:
        self.forked, self.code = False, 1  # 1: of a command that raised
        atexit.register(self)

    def __call__(self) -> None:
        if self.forked:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


if __name__ == "__main__":
    sys.exit(serve())
