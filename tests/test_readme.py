"""The README's code: Python blocks run as they stand, commands run shortened, make targets exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ebmzoo.cli.main import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
# A block after a line <!-- not run: why --> is left out.
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(kind, body) for skip, kind, body in BLOCK.findall(TEXT) if not skip]
# What keeps a training command short; it does not change what the command means.
SHORT = [
    "--trainer.max_epochs=1",
    "--trainer.max_steps=-1",
    "--trainer.limit_train_batches=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that knows the configs, to run the README's commands in."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    assert len(BLOCKS) >= 4


def test_python_blocks_run_one_after_another(elsewhere):
    names = {}
    for kind, body in BLOCKS:
        if kind == "python":
            exec(compile(body, "README.md", "exec"), names)
    assert names["samples"].shape == (16, 1, 8, 8)
    for name, value in names["model"].state_dict().items():
        assert value.equal(names["again"].state_dict()[name])


def commands():
    return [shlex.split(line) for kind, body in BLOCKS if kind == "sh" for line in body.splitlines() if line]


def test_make_targets_exist():
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, check=True, capture_output=True)


@pytest.mark.timeout(600)  # whole commands: seconds on an idle machine, minutes on a crowded one
@pytest.mark.parametrize("only", ["likelihood", pytest.param(None, marks=pytest.mark.slow)])
def test_commands_run(elsewhere, only):
    ran = [words for words in commands() if words[0] == "ebmzoo"]
    assert {words[1] for words in ran} >= {"fit", "test", "sample", "predict"}
    for words in ran:
        short = {"fit": SHORT, "test": ["--only", only] if only else []}.get(words[1], [])
        assert main([*words[1:], *short]) == 0, words
    run = elsewhere / "runs" / "ecvae_digits" / "version_0"
    left = ("config.yaml", "metrics.csv", "samples.png", "results.json", "predictions.npz")
    assert all((run / name).is_file() for name in left)
    assert (elsewhere / "grid.png").is_file()


def test_all_commands_are_known():
    assert {words[0] for words in commands()} == {"make", "ebmzoo"}
