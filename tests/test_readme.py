"""The README: Python blocks run as they stand, commands run shortened, links, pictures and numbers are there."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from ebmzoo.cli.main import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
# A block after a line <!-- not run: why --> is parsed alone; one after <!-- file: NAME --> is that file.
BLOCK = re.compile(r"(?:<!-- (not run|file): ([^\n]+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
ALL = BLOCK.findall(TEXT)
BLOCKS = [(kind, body) for mark, _, kind, body in ALL if not mark]
NOT_RUN = [body for mark, _, _, body in ALL if mark == "not run"]
FILES = {word: body for mark, word, _, body in ALL if mark == "file"}
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


def commands(bodies=tuple(body for kind, body in BLOCKS if kind == "sh")):
    return [shlex.split(line) for body in bodies for line in body.splitlines() if line]


def test_make_targets_exist():
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, check=True, capture_output=True)


@pytest.mark.timeout(600)  # whole commands: seconds on an idle machine, minutes on a crowded one
@pytest.mark.parametrize(
    "only", [pytest.param("likelihood", marks=pytest.mark.thorough), pytest.param(None, marks=pytest.mark.slow)]
)
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


@pytest.mark.thorough
def test_commands_that_take_days_are_understood(elsewhere, capfd):
    for name, body in FILES.items():
        (elsewhere / name).write_text(body)
    configs = []
    for words in commands(NOT_RUN):
        assert words[0] == "ebmzoo" and words[1] in ("doctor", "fit")
        assert main(["fit", *words[2:], "--print_config"]) == 0, words
        configs.append(yaml.safe_load(capfd.readouterr().out))
    cifar, images = configs[1:]
    assert cifar["data"]["class_path"] == "ebmzoo.CIFAR10" and cifar["data"]["init_args"]["download"] is True
    assert images["data"]["class_path"] == "ebmzoo.ImageFolder" and images["model"] == cifar["model"]
    given = yaml.safe_load(FILES["my_images.yaml"])["data"]["init_args"]
    assert given == {"root": "photos", "size": 32} and given.items() <= images["data"]["init_args"].items()


def test_all_commands_are_known():
    assert {words[0] for words in commands()} == {"make", "ebmzoo"}


def test_links_and_pictures_are_there():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_numbers_are_those_of_the_results():
    """Each row of the table of methods has its numbers from one row of docs/results.md, or several of the same run."""
    results = (ROOT / "docs" / "results.md").read_text().splitlines()
    rows = re.findall(r"^\| \[[^]]+\]\(docs/methods/(\w+)\.md\) \|[^|]*\|(.+)\|$", TEXT, re.MULTILINE)
    assert len(rows) == 6
    for method, cells in rows:
        measured = "\n".join(line for line in results if line.startswith(f"| `{method}_digits` |"))
        for number in cells.split("|"):
            assert re.search(rf"(?<![\d.]){re.escape(number.strip())}(?![\d.])", measured), (method, number)
