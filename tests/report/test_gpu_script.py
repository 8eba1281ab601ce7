"""The script that measures on a GPU runs where there is none, in tiny sizes, and prints all of its table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_table_in_tiny_sizes():
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu.sh"), "--tiny"], capture_output=True, text=True, env=environment, check=True
    )
    assert "bf16" in done.stdout and "GB/s" in done.stdout and "precision of all: bf16-mixed" in done.stdout
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows] == [
        "ecvae_cifar",
        "vaebm_cifar",
        "dual_mcmc_cifar",
        "denoising_ebm_cifar",
        "ebm_cifar",
        "bidvl_cifar",
        "Table 7, c=128, b512: a step",
    ]
    assert all(float(row[2]) > 0 for row in rows), done.stdout
