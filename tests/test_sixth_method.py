"""The method of docs/extending.md, put into the package: everything takes it from there."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ebmzoo.report.runs import RESULTS

from .test_docs import BLOCKS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# What of a run's numbers is a time, and so never the same twice.
TIMES = {"seconds_50_samples", "seconds_64_samples"}


@pytest.fixture
def package(tmp_path):
    """A copy of package, configs and tests, with the page's one file and one config where the page says."""
    for name in ("ebmzoo", "configs", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    bodies = {block.word: block.body for block in BLOCKS if block.mark == "file"}
    (tmp_path / "ebmzoo" / "methods" / "score_matching.py").write_text(bodies["score_matching.py"])
    config = bodies["score_matching_digits.yaml"]
    assert config.count("class_path: score_matching.") == 1
    inside = config.replace("class_path: score_matching.", "class_path: ebmzoo.methods.score_matching.")
    (tmp_path / "configs" / "score_matching_digits.yaml").write_text(inside)
    return tmp_path


def run(package, *words):
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=package, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def numbers(folder):
    """A run's numbers by name, to the last digit, without times."""
    rows = json.loads((folder / RESULTS).read_text())["results"]
    return {row["name"]: row["value"] for row in rows if row["name"] not in TIMES}


def test_the_sixth_method_is_found_by_everything(package):
    assert "2 passed" in run(package, "-m", "pytest", "-q", "tests/test_configs.py", "-k", "score_matching")
    words = ["-m", "ebmzoo.cli.main", "benchmark", "--suite", "digits", "--seeds", "1", "--budget", "iterations"]
    printed = run(package, *words, "--amount", "30", "--methods", "vae", "score_matching", "--out", "bench")
    assert "score_matching_di" in printed
    found = numbers(package / "bench" / "score_matching_digits" / "seed_0")
    # It draws and it scores; there is nothing it could reconstruct.
    assert {"fid_1k", "ood_auroc_uniform_noise"} <= set(found) and "mse_per_pixel" not in found
    every = run(package, "-c", "from ebmzoo.report.suites import find; from pathlib import Path; "
                "print(*find('digits', None, Path('configs')))")  # fmt: skip
    assert "score_matching" in every.split()


@pytest.mark.parametrize("budget", ["iterations", "network-evaluations"])
def test_a_budget_taken_twice_gives_the_same_numbers_to_the_last_digit(tmp_path, budget):
    amount = {"iterations": "40", "network-evaluations": "1500"}[budget]
    words = ["-m", "ebmzoo.cli.main", "benchmark", "--suite", "digits", "--seeds", "1", "--budget", budget]
    words += ["--amount", amount, "--methods", "vae", "ecvae", "--configs", str(ROOT / "configs")]
    (tmp_path / "ebmzoo").symlink_to(ROOT / "ebmzoo")
    for out in ("first", "second"):
        run(tmp_path, *words, "--out", out)
    for row in ("vae_digits", "ecvae_digits"):
        first, second = (numbers(tmp_path / out / row / "seed_0") for out in ("first", "second"))
        assert len(first) > 20 and first == second
