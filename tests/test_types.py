"""The types that a user's mypy sees."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """
from functools import partial

import lightning
import torch

import ebmzoo
from ebmzoo import ECVAE, Digits, Langevin
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy

x = torch.zeros(2, 1, 8, 8)
again = ebmzoo.load("ecvae.ckpt", map_location="cpu")
reveal_type(again.energy(x))
reveal_type(again.sample(4, steps=3, noise=0))
reveal_type(again.reconstruct(x))
reveal_type(again.score(x))
reveal_type(again.encode(x))
reveal_type(again.log_likelihood_bound(x, samples=2))
again.eval().to("cpu").freeze()
wrong: str = again.energy(x)
again.sample("four")

energy = partial(MLPEnergy, width=32)
model = ECVAE((1, 8, 8), MLPEncoder, MLPDecoder, energy, latent_dim=4, sampler=Langevin(steps=2, step_size=0.1))
reveal_type(model.energy(x))
reveal_type(model.sample(3))
trainer = lightning.Trainer(max_steps=1)
trainer.fit(model, Digits())
trainer.fit(again, datamodule=Digits())
trainer.test(again, Digits())
"""


@pytest.mark.timeout(600)  # without mypy's cache, which `make lint` leaves, a minute
def test_what_a_method_is_asked_has_its_type(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = complaints(script)
    tensor, pair = "torch._tensor.Tensor", "tuple[torch._tensor.Tensor, torch._tensor.Tensor]"
    assert [re.search('"(.*)"', words)[1] for _, words in found if "Revealed" in words] == [
        *[tensor] * 4,
        pair,
        *[tensor] * 3,
    ]
    lines = SCRIPT.splitlines()
    wrong = [lines[number - 1] for number, words in found if words.startswith("error")]
    assert wrong == ["wrong: str = again.energy(x)", 'again.sample("four")']


def complaints(script):
    """What mypy says of a script as (line, words); of the package it says nothing, as where it is installed."""
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = re.findall(rf"^{re.escape(str(script))}:(\d+): (.*)$", done.stdout, re.MULTILINE)
    assert said, done.stdout + done.stderr
    return [(int(number), words) for number, words in said]
