"""The scripts that say why EC-VAE's figures were what they were run, and give what they print."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.parts import GaussianVAE

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


@pytest.mark.thorough
def test_a_decoder_that_keeps_up_with_a_fixed_energy_is_a_chain_without_end():
    from made import trained

    from ebmzoo import ECVAE

    least = torch.tensor([3.0, -3.0])

    class Fixed(ECVAE):
        def potential(self, state, sampler):
            return lambda x: 0.5 * (x - least).square().sum(1)

    # A chain goes 1 − 0.99¹⁵ = 14% of its way to the minimum, a corner of the data; the decoder all of it.
    changes = {"sampler__step_size": 0.02, "sampler__temperature": 1e-6, "sampler__max_drift": None, "vae_steps": 0}
    changes |= {"calibration__weight": 100.0, "calibration__rate": 0.0, "vae__decoder__width": 64}
    changes |= {"pairs__memory": 256, "pairs__updates": 3}
    _, model, _ = trained("ecvae_gaussians25", 3, 250, Fixed, **changes)
    x = model.sample(1000, steps=0, noise=1)
    one_chain = model.sampler(model.potential(x, model.sampler), torch.zeros(1, 2), as_noise(1)).x
    assert torch.allclose(one_chain, (1 - 0.99**15) * least, atol=0.01)
    assert (x - least).norm(dim=1).mean() < 0.3


class Told(nn.Module):
    """An encoder that says one Gaussian of every image."""

    def __init__(self, mean, log_sigma):
        super().__init__()
        self.said = nn.Parameter(torch.tensor([[mean, 2 * log_sigma]]))

    def forward(self, x):
        return self.said[:, :1].expand(len(x), 1), self.said[:, 1:].expand(len(x), 1)


class Line(nn.Module):
    """A decoder: 0.2 z in one pixel, whose σ is 0.2 too."""

    def forward(self, z):
        return torch.nn.functional.pad(0.2 * z, (0, 63)).unflatten(1, (1, 8, 8))


@pytest.mark.parametrize(("by_likelihood", "weight", "narrowing"), [(False, 10.0, 10 / 3), (True, 1.0, -1 / 39)])
def test_what_the_ends_of_a_far_chain_teach_an_encoder_that_is_right(by_likelihood, weight, narrowing):
    # x = 0.4 in that pixel: the posterior is N(1, 1/2), and q is it. By distance log σ has the slope λ₂/(1/v + w) all
    # the same, where the chain's tie to its start has w = 1; by likelihood only that of what steps of s = 0.05 add to
    # the variance of their ends, v/(1 - s/4v) in place of v.
    import posterior

    model = posterior.Pulled(8, 1, 1.0, (Langevin(100, 0.05), weight, by_likelihood), 8)
    model.vae = GaussianVAE((1, 8, 8), lambda *_: Told(1.0, 0.5 * math.log(0.5)), lambda *_: Line(), 1, sigma=0.2)
    torch.manual_seed(0)
    x = torch.zeros(20_000, 1, 8, 8)
    x[:, 0, 0, 0] = 0.4
    bound = model.vae.bound(x, as_noise(0))
    of_mean, of_log_variance = torch.autograd.grad(model.pull(x, bound), model.vae.encoder.said)[0][0].tolist()
    assert of_mean == pytest.approx(0.0, abs=0.02 * weight)
    assert 2 * of_log_variance == pytest.approx(narrowing, abs=0.04 * weight)


@pytest.mark.thorough
def test_the_table_of_the_calibrated_posterior(capsys):
    import posterior

    found = posterior.main(["--quick"])
    assert len(found) == len(posterior.PLACES) * len(posterior.PULLS) == 16
    assert all(math.isnan(row["cosine"]) == (name == "none") for (_, name, _), row in found.items())
    # Bounds of more draws are tighter, and images that may have a Gaussian of their own lose nothing by it.
    assert all(row["test, 3 draws"] > row["test bound"] for row in found.values())
    assert all(row["test, own q"] > row["test bound"] - 0.1 for row in found.values())
    assert capsys.readouterr().out.count("\n") == 2 + 16
