"""Seconds of an iteration, by a clock of our own."""

import pytest
import torch

from ebmzoo.cli import timing
from ebmzoo.cli.timing import duration, seconds_an_iteration
from ebmzoo.factories import spec
from ebmzoo.methods import ECVAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE


def test_a_duration_stands_in_the_unit_that_suits_it():
    assert [duration(seconds) for seconds in (0.5, 1, 59.4, 60, 5400, 86_400 * 432, 2e-6)] == [
        "500 ms",
        "1 s",
        "59 s",
        "1 min",
        "1.5 h",
        "430 days",
        "0.002 ms",
    ]


def test_the_main_stages_iterations_are_timed_after_one_that_warms_up(monkeypatch):
    code = {"encoder": spec(MLPEncoder, width=4), "decoder": spec(MLPDecoder, width=4), "latent_dim": 2}
    model = ECVAE((1, 4, 4), spec(GaussianVAE, **code), spec(MLPEnergy, width=4), vae_steps=5)
    seen = []

    def clock(module):
        seen.append(module.iteration)
        return [0.0, 100.0, 100.0, 103.0, 103.0, 108.0][len(seen) - 1]  # 100, 3 and 5 seconds

    monkeypatch.setattr(timing, "_now", clock)
    before = {name: value.clone() for name, value in model.ebm.state_dict().items()}
    assert seconds_an_iteration(model, 3, accelerator="cpu") == pytest.approx(4.0)
    assert model.vae_steps == 0 and len(seen) == 6
    # The energy learns in the main stage alone.
    assert not all(torch.equal(value, before[name]) for name, value in model.ebm.state_dict().items())
