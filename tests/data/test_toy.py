"""The 25 Gaussians against scipy: the mixture on a grid is a product of two one-dimensional mixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ebmzoo.data import GaussianMixture, Gaussians25
from ebmzoo.mcmc.noise import GeneratorNoise


def line(x, spacing: float, std: float):
    """The density of one coordinate."""
    return np.mean([stats.norm.pdf(x, spacing * k, std) for k in range(-2, 3)], axis=0)


@pytest.mark.parametrize(("spacing", "std"), [(2.0, 0.0839), (1.0, 0.4)])
def test_log_density_is_exact(spacing, std):
    density = Gaussians25(spacing=spacing, std=std).density
    x = 5 * torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 2.5
    near = density.means.double() + 0.1
    for points in (x[(x.abs() < 2.3).all(1)], near):
        a, b = points.T.numpy()
        expected = np.log(line(a, spacing, std) * line(b, spacing, std))
        finite = np.isfinite(expected)
        assert finite.sum() > 20
        assert np.allclose(density.log_prob(points).numpy()[finite], expected[finite], rtol=1e-10, atol=1e-8)


def test_log_density_far_away_does_not_underflow():
    density = Gaussians25().density
    far = torch.tensor([[1004.0, 4.0]], dtype=torch.float64)
    std = density.std
    expected = -0.5 * (1000 / std) ** 2 - np.log(25 * 2 * np.pi * std**2)
    assert density.log_prob(far).item() == pytest.approx(expected, rel=1e-12)


def test_the_truth_scores_minus_1_10_nats():
    points = [2.0 * k + d for k in range(-2, 3) for d in (-0.5, 0.0, 0.5)]

    def integrand(x: float) -> float:
        q = line(x, 2.0, 0.0839)
        return 0.0 if q == 0 else q * np.log(q)

    exact = 2 * integrate.quad(integrand, -6, 6, points=points, limit=400)[0]
    assert exact == pytest.approx(-1.10, abs=5e-3)
    data = Gaussians25()
    for split, n in (("train", 50_000), ("test", 10_000)):
        scores = data.density.log_prob(data.reference(split).data.double())
        assert len(scores) == n
        # Within a mode the log-density has variance 1: four standard errors.
        assert scores.mean().item() == pytest.approx(exact, abs=4 / n**0.5)


@pytest.mark.parametrize("source", ["generator", "noise"])
def test_samples_have_the_means_widths_and_shares_of_the_modes(source):
    density = Gaussians25(spacing=3.0, std=0.2).density
    generator = torch.Generator().manual_seed(1)
    n = 20_000
    x = density.sample(n, generator if source == "generator" else GeneratorNoise(generator))
    distance, mode = torch.cdist(x, density.means).min(1)
    counts = torch.bincount(mode, minlength=25)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert torch.equal(density.means.unique(), 3.0 * torch.arange(-2.0, 3.0))
    assert distance.square().mean().item() == pytest.approx(2 * 0.2**2, rel=4 / n**0.5)
    residual = x - density.means[mode]
    assert residual.mean(0).abs().max().item() < 4 * 0.2 / n**0.5


def test_points_do_not_depend_on_the_seed_and_splits_differ():
    a, b = Gaussians25(seed=0, n_train=100, n_test=50), Gaussians25(seed=1, n_train=100, n_test=50)
    assert torch.equal(a.reference().data, b.reference().data)
    assert not torch.equal(a.reference("train").data[:50], a.reference("test").data)
    first, second = (next(iter(data.train_dataloader())) for data in (a, b))
    assert first.shape == (64, 2) and not torch.equal(first, second)
    assert (a.kind, a.image_shape, a.name, a.reference_name("val")) == (
        "points",
        (2,),
        "gaussians25",
        "gaussians25 test",
    )


def test_names_tell_densities_apart_and_impossible_settings_are_refused():
    assert Gaussians25(spacing=0.3775).name == "gaussians25-0.3775-0.0839"
    for settings in ({"spacing": 0.0}, {"n_train": 0}, {"flip": 0.5}):
        with pytest.raises(ValueError, match="Gaussians25 needs"):
            Gaussians25(**settings)
    with pytest.raises(ValueError, match="std > 0"):
        Gaussians25(std=0.0)
    with pytest.raises(ValueError, match="means"):
        GaussianMixture(torch.zeros(3), 1.0)
