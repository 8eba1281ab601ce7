"""Points held against the density of their data: exact numbers of points that are chosen."""

import math

import pytest
import torch

from ebmzoo.data import Gaussians25
from ebmzoo.figures.look import Look
from ebmzoo.figures.points import Points

from ..callbacks.fakes import Tiny


def numbers(samples, data):
    look = Look(Tiny(), data)
    look.samples = samples
    return {one.name: one.value for one in Points()(look)}


def test_points_at_the_modes_have_the_densitys_peaks():
    data = Gaussians25(n_test=50)
    found = numbers(data.density.means.float(), data)
    # At a mode of 25 far apart: log of 1/25 · 1/(2π s²).
    peak = -math.log(25 * 2 * math.pi * 0.0839**2)
    assert found["log_density_mean"] == pytest.approx(peak, abs=1e-6) == pytest.approx(found["log_density_median"])
    assert found["modes_covered"] == 25 and found["mode_high_quality_share"] == 1 and found["mode_within_std"] == 0
    assert found["mode_least_share"] == 1 and found["mode_kl"] == pytest.approx(0, abs=1e-6)
    test = torch.stack([data.reference("test")[i] for i in range(50)]).double()
    assert found["log_density_mean_test"] == pytest.approx(data.density.log_prob(test).mean().item())


def test_points_at_one_mode_leave_the_others_uncovered():
    data = Gaussians25(n_test=50)
    found = numbers(data.density.means[:1].float().expand(100, 2), data)
    assert found["modes_covered"] == 1 and found["mode_least_share"] == 0
    assert found["mode_kl"] == pytest.approx(math.log(25), abs=1e-5)


def test_data_of_no_known_density_are_said():
    with pytest.raises(ValueError, match="the density of fakes? is not known"):
        numbers(torch.zeros(3, 2), type("Unknown", (), {"kind": "points", "name": "fake"})())
