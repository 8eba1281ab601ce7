"""The scripts that say why EC-VAE's figures were what they were run, and give what they print."""

import math
from pathlib import Path

import pytest

CAUSES = Path(__file__).parents[2] / "benchmarks" / "causes"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(CAUSES)


@pytest.mark.thorough
def test_statistics_of_batchnorm(capsys):
    import batchnorm

    rows = batchnorm.main(["--quick"])
    assert [row[:3] for row in rows[:2]] == [["VAE", 20, "raw"], ["VAE", 20, "averaged"]]
    assert all(math.isfinite(value) for row in rows for value in row[3:])
    # After two iterations running statistics are still near their start: nothing like those of the decoder's draws.
    assert all(refitted < left for _, _, _, left, refitted, *_ in rows)
    assert capsys.readouterr().out.count("\n") == 2 + len(rows)


def test_a_chain_needs_steps_that_reach_a_mode():
    import teacher

    table, rows = teacher.main(["--quick"])
    assert rows == []
    for step_size, (left, outside, _, outside_flat, _) in table.items():
        assert left == pytest.approx(1 - step_size * 0.0375 / (2 * 0.0839**2))
        # From half way between two modes: within 4 s after 15 steps, or not even on the true energy.
        assert (outside < 0.05) == (left**15 < 4 * 0.0839)
        assert outside_flat > outside


@pytest.mark.thorough
def test_a_path_of_settings_reaches_them():
    from made import trained

    changes = {"sampler__step_size": 0.5, "vae__decoder__width": 8, "data__std": 0.1}
    trainer, model, data = trained("ecvae_gaussians25", 3, 1, **changes)
    assert (model.sampler.step_size, data.density.std, trainer.global_step) == (0.5, 0.1, 1)
    assert model.vae.decoder.net[0].out_features == 8
