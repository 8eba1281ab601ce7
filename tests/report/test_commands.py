"""Commands, each in a fork of a process that has imported everything."""

import os

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
