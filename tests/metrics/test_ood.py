import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ebmzoo.mcmc import as_noise
from ebmzoo.metrics.ood import MADE, check_made, constants, detection, interpolations, uniform_noise


def scores(n, shift, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_against_torchmetrics_and_counting():
    inside, outside = scores(300, 1.0, 0).round(decimals=1), scores(200, 0.0, 1).round(decimals=1)  # with ties
    found = detection(inside, outside)
    pairs = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside).double()
    assert found.auroc == pytest.approx(pairs.mean().item(), abs=1e-12)
    # torchmetrics squashes what lies outside [0, 1] by a sigmoid in float32, which would make new ties
    unit = (torch.cat([inside, outside]) + 10) / 20
    labels = torch.cat([torch.ones(300), torch.zeros(200)]).long()
    assert found.auroc == pytest.approx(binary_auroc(unit, labels).item(), abs=1e-6)
    assert found.aupr == pytest.approx(binary_average_precision(unit, labels).item(), abs=1e-6)
    passing = [t for t in inside.tolist() if (inside >= t).double().mean() >= 0.95]
    assert found.fpr95 == pytest.approx((outside >= max(passing)).double().mean().item(), abs=1e-12)


def test_perfect_reversed_and_chance():
    inside, outside = torch.arange(5.0) + 10, torch.arange(5.0)
    assert detection(inside, outside) == (1.0, 1.0, 0.0)
    assert detection(outside, inside).auroc == 0.0 and detection(outside, inside).fpr95 == 1.0
    assert detection(inside, inside).auroc == 0.5
    infinite = detection(inside, torch.tensor([-float("inf"), 3.0]))
    assert infinite.auroc == 1.0


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="1 of 6 scores are NaN"):
        detection(torch.arange(5.0), torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="on both sides, not 5 and 0"):
        detection(torch.arange(5.0), torch.zeros(0))
    with pytest.raises(ValueError, match=r"no out-of-distribution sets \['noize'\]"):
        check_made(["constants", "noize"])


def test_interpolations_are_midpoints_of_two_examples():
    x = 2.0 ** torch.arange(12)[:, None]  # every pair has a sum of its own
    found = interpolations(x, as_noise(0))
    sums = {(a + b).item() / 2 for i, a in enumerate(x) for j, b in enumerate(x) if i != j}
    assert found.shape == x.shape and all(value in sums for value in found.flatten().tolist())
    with pytest.raises(ValueError, match="at least two"):
        interpolations(x[:1], as_noise(0))


def test_noise_and_constants():
    x = torch.zeros(500, 3, 4, 4)
    noise = uniform_noise(x, as_noise(0))
    assert noise.min() >= -1 and noise.max() < 1 and noise.var() == pytest.approx(1 / 3, rel=0.05)
    flat = constants(x, as_noise(0))
    assert flat.shape == x.shape and bool((flat == flat[..., :1, :1]).all())
    assert flat.min() >= -1 and flat[:, 0, 0, 0].unique().numel() > 490
    assert all(torch.equal(make(x, as_noise(3)), make(x, as_noise(3))) for make in MADE.values())
