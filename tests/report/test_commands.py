"""Commands, each in a fork of a process that has imported everything."""

import os
import subprocess
import sys
import time

import pytest

import ebmzoo
from ebmzoo.report.commands import Commands


@pytest.mark.thorough
def test_commands_are_forks_of_one_process_timed_in_cpu_seconds_of_their_own(tmp_path, monkeypatch, capfd):
    """The third is killed as the kernel kills what takes all memory, and ends no other."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "fork, made = os.fork, []\n"
        "def killed_third():\n"
        "    made.append(fork())\n"
        "    if made[-1] == 0 and len(made) == 3: os.kill(os.getpid(), 9)\n"
        "    return made[-1]\n"
        "os.fork = killed_third\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    log = tmp_path / "log"
    with Commands(jobs=1) as commands:
        done = [commands(["ebmzoo", word], log) for word in ("--help", "tset", "--version", "--version")]
        (process,) = commands._all
        process.kill()
        process.wait()
        assert commands(["ebmzoo", "--version"], log) == (-9, {})
    assert [code for code, _ in done] == [0, 2, -9, 0]
    assert 0 < done[0][1]["cpu_s"] < 1 and done[0][1]["threads"] == 1  # the imports take longer
    said = log.read_text()
    assert "ebmzoo fit" in said and "no verb 'tset'" in said and said.count(f"ebmzoo {ebmzoo.__version__}") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.thorough
def test_nothing_goes_on_when_the_caller_is_terminated(tmp_path):
    """A benchmark that a scheduler ends must not leave trainings that the next one would meet in their folders."""
    (tmp_path / "caller.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from ebmzoo.report.commands import Commands\n"
        "with Commands(jobs=1) as commands:\n"
        "    commands._idle.append(commands._started())\n"
        "    print(commands._all[0].pid, flush=True)\n"
        "    commands(sys.argv[1:], Path('log'))\n"
    )
    words = ["ebmzoo", "fit", "--config", "vae_digits", "--run_dir", "run", "--trainer.log_every_n_steps", "1"]
    command, pipe = [sys.executable, "caller.py", *words], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as caller:
        worker = int(caller.stdout.readline())
        end = time.monotonic() + 200
        while "\nstep 1" not in (tmp_path / "log").read_text() if (tmp_path / "log").exists() else True:
            assert time.monotonic() < end and caller.poll() is None
            time.sleep(0.1)
        caller.terminate()
        assert caller.wait(60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert "terminated at step" in (tmp_path / "log").read_text()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
