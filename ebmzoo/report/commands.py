"""Commands of the command line, timed, each in a process of its own that has imported everything already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Commands:
    """Runs `ebmzoo` commands, each in a fork of a process that has imported what the verbs need.

    The imports take longer than a short training. A command that crashes, or is killed, ends no other. SIGTERM reaches
    all that run, as Ctrl-C does: trainings save themselves, and none goes on unseen. Where there are several GPUs, each
    process has one of them, in turn.

    Args:
        jobs: commands at a time, which are the caller's threads.
        threads: of each command.
    """

    def __init__(self, jobs: int = 2, threads: int = 1) -> None:
        self.jobs, self.threads = jobs, threads
        self._all: list[subprocess.Popen[str]] = []
        self._idle: list[subprocess.Popen[str]] = []
        self._before: Any = None  # what SIGTERM did

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may say what a signal does
            self._before = signal.signal(signal.SIGTERM, self._terminated)
        return self

    def _terminated(self, *_: object) -> None:
        for worker in self._all:
            worker.terminate()
        raise SystemExit(128 + signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        for worker in self._all:
            worker.communicate()  # closes its input, and waits for its end

    def __call__(self, words: Sequence[str], log: Path) -> tuple[int, dict[str, float]]:
        """Run one; its exit code, and what it took: CPU time is what others on the machine do not change.

        Args:
            words: "ebmzoo", the verb and its arguments.
            log: file to which all that it prints is appended.
        """
        log.touch()
        worker = self._idle.pop() if self._idle else self._started()
        assert worker.stdin is not None and worker.stdout is not None
        with suppress(BrokenPipeError):  # it was killed: then it gives no answer
            worker.stdin.write(json.dumps([words[1:], str(log)]) + "\n")
            worker.stdin.flush()
        if not (answer := worker.stdout.readline()):
            return worker.wait() or 1, {}
        self._idle.append(worker)
        code, wall, cpu = json.loads(answer)
        return code, {"wall_s": wall, "cpu_s": cpu, "threads": self.threads}

    def _started(self) -> subprocess.Popen[str]:
        # The count by CUDA's own runtime would leave forks without a GPU.
        environment = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        if len(devices := _gpus()) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = devices[len(self._all) % len(devices)]
        environment |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "ebmzoo.cli.worker"]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._all.append(worker)
        return worker


def _gpus() -> list[str]:
    """The names of the GPUs that this process sees."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
