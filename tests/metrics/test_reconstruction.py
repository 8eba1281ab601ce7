import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from ebmzoo.metrics.reconstruction import reconstruction_errors, ssim_window


def images(side, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, channels, side, side, generator=generator, dtype=torch.float64) * 2 - 1
    return x, (x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)


def ssim(a, b, reach, sigma):
    """Wang et al. 2004 on one plane, written out with scipy."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()

    def blur(x):
        for axis in (0, 1):
            x = correlate1d(x, weights, axis=axis, mode="mirror")
        return x

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


@pytest.mark.parametrize("side", [8, 16, 32])
def test_against_numpy(side):
    x, again = images(side)
    found = reconstruction_errors(x, again)
    mse = ((x - again) ** 2).mean((1, 2, 3))
    assert torch.allclose(found.mse, mse, rtol=1e-12)
    assert torch.allclose(found.psnr, 10 * torch.log10(4 / mse), rtol=1e-6)
    reach = ssim_window(side) // 2
    sigma = 1.5 if reach == 5 else reach / 3.5
    for i in range(4):
        planes = [ssim(x[i, c].numpy(), again[i, c].numpy(), reach, sigma) for c in range(3)]
        assert found.ssim[i].item() == pytest.approx(np.mean(planes), abs=1e-6)


def test_perfect_and_clamped():
    x, _ = images(12, channels=1)
    found = reconstruction_errors(x, x)
    assert found.mse.max() == 0 and torch.allclose(found.ssim, torch.ones(4, dtype=torch.float64))
    white = torch.ones(1, 1, 8, 8)
    assert reconstruction_errors(white, white * 5).mse.item() == 0  # what no byte can show is no error


def test_one_image_and_what_is_refused():
    x, again = images(8, channels=1)
    assert reconstruction_errors(x[:1], again[:1]).ssim.shape == (1,)
    with pytest.raises(ValueError, match=r"4 px or more, not \(1, 1, 3, 3\)"):
        reconstruction_errors(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
