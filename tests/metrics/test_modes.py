import math

import pytest
import torch

from ebmzoo.data.toy import Gaussians25
from ebmzoo.metrics.modes import mode_coverage, share_divergence

MEANS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])


def test_counts_by_hand():
    # 40 samples, fair share 10: 30 at the first mode, 9 at the second, 1 at the third, none at the fourth.
    offset = torch.tensor([0.3, 0.4])  # distance 0.5
    samples = torch.cat([MEANS[[0]].repeat(30, 1), MEANS[[1]].repeat(9, 1), MEANS[[2]].repeat(1, 1)]) + offset
    found = mode_coverage(samples, MEANS, std=0.126)  # 4 s = 0.504
    assert (found.covered, found.total) == (3, 4)  # a tenth of the fair share is exactly 1
    assert found.high_quality_share == 1.0
    assert found.least_share == 0.0
    shares = [30 / 40, 9 / 40, 1 / 40]
    assert found.kl == pytest.approx(sum(p * math.log(4 * p) for p in shares), rel=1e-12)
    assert found.within_std == pytest.approx(math.sqrt(0.25 / 2), rel=1e-6)


def test_far_samples_count_for_the_divergence_only():
    offset = torch.tensor([0.3, 0.4])
    found = mode_coverage(MEANS.repeat(10, 1) + offset, MEANS, std=0.12)  # 4 s = 0.48
    assert (found.covered, found.high_quality_share, found.least_share) == (0, 0.0, 0.0)
    assert found.kl == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(found.within_std)


def test_each_mode_may_have_its_width():
    offset = torch.tensor([0.3, 0.4])
    found = mode_coverage(MEANS.repeat(10, 1) + offset, MEANS, std=torch.tensor([0.12, 0.13, 0.13, 0.12]))
    assert (found.covered, found.high_quality_share) == (2, 0.5)


def test_the_truth_covers_everything():
    density = Gaussians25().density
    samples = density.sample(20_000, torch.Generator().manual_seed(0))
    found = mode_coverage(samples, density.means, density.std, chunk=3000)
    assert (found.covered, found.total) == (25, 25)
    # In two dimensions a share exp(-4²/2) of a Gaussian lies beyond 4 s.
    assert found.high_quality_share == pytest.approx(1 - math.exp(-8), abs=5e-4)
    assert found.least_share == pytest.approx(1, abs=4 * math.sqrt(25 / 20_000))
    assert found.kl == pytest.approx(24 / (2 * 20_000), rel=1)  # its mean is (M - 1) / 2n
    assert found.within_std == pytest.approx(0.0839, rel=0.02)


def test_share_divergence():
    assert share_divergence(torch.tensor([3, 3, 3])) == pytest.approx(0, abs=1e-12)
    assert share_divergence(torch.tensor([7, 0, 0, 0])) == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match="no samples"):
        share_divergence(torch.zeros(3))


@pytest.mark.parametrize("samples", [torch.zeros(0, 2), torch.zeros(4, 3), torch.zeros(4)])
def test_bad_shapes(samples):
    with pytest.raises(ValueError, match=r"samples \(n, D\)"):
        mode_coverage(samples, MEANS, 1.0)
