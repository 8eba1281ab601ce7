"""Langevin at noise levels: the step in units of σ², the ladder written out, and its stationary law."""

import pytest
import torch

from ebmzoo.mcmc import AnnealedLangevin, Langevin, as_noise


def potential(x, eps, sigma):
    """Quartic, with fresh noise, and 1/σ² in front."""
    return (x + sigma * eps).square().square().flatten(1).sum(1) / (2 * sigma**2)


START = torch.linspace(-1, 1, 12).double().view(4, 3)


def test_one_level_is_langevin_with_a_step_in_units_of_its_square():
    annealed = AnnealedLangevin(7, 0.3, 0.5, sigma=0.4, bounds=(-0.9, 0.9), max_drift=0.2, grad_clamp=3.0)
    plain = Langevin(7, 0.3 * 0.4**2, 0.5, bounds=(-0.9, 0.9), max_drift=0.2, grad_clamp=3.0)
    chain = annealed(potential, START, noise=1, draws=[(3,)])
    same = plain(lambda x, eps: potential(x, eps, 0.4), START, noise=1, draws=[(3,)])
    assert all(torch.equal(a, b) for a, b in zip(chain[:3], same[:3], strict=True))
    assert annealed.noise_floor(3) == pytest.approx(plain.noise_floor(3))


@pytest.mark.parametrize("noise_first", [False, True])
def test_the_ladder_written_out(noise_first):
    seen = []
    sampler = AnnealedLangevin(4, 0.2, 0.7, sigma=0.8, sigma_end=0.1, noise_first=noise_first)
    chain = sampler(potential, START, noise=2, draws=[(3,)], callback=lambda *now: seen.append((now[0], now[2])))
    noise, x = as_noise(2), START.clone()
    for step, sigma in enumerate([0.8, 0.4, 0.2, 0.1]):
        size = 0.2 * sigma**2
        diffuse = (size * 0.7) ** 0.5
        if noise_first:
            x = x + diffuse * noise.normal(x.shape, x)
        x = x.detach().requires_grad_()
        energy = potential(x, noise.normal((4, 3), x), sigma)
        assert seen[step][0] == step
        torch.testing.assert_close(seen[step][1], energy, rtol=1e-12, atol=0)
        x = x - size / 2 * torch.autograd.grad(energy.sum(), x)[0]
        if not noise_first:
            x = x + diffuse * noise.normal(x.shape, x)
    torch.testing.assert_close(chain.x, x.detach(), rtol=1e-12, atol=1e-14)
    assert sampler.noise_floor(3) == pytest.approx(0.2 * 0.7 * 3 * (0.64 + 0.16 + 0.04 + 0.01))


def test_stationary_variance_is_in_units_of_the_level():
    sampler = AnnealedLangevin(60, 0.8, 0.5, sigma=3.0)
    chain = sampler(lambda x, sigma: 0.5 * (x / sigma).square().sum(1), torch.zeros(400, 50).double(), noise=0)
    expected = 9 * 0.5 / (1 - 0.8 / 4)
    assert float(chain.x.var()) == pytest.approx(expected, rel=4 * (2 / 20_000) ** 0.5)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_steps_of_a_call_spread_the_ladder(steps):
    sampler = AnnealedLangevin(9, 0.1, sigma=4.0, sigma_end=1.0)
    assert sampler.sigmas(steps) == pytest.approx([4.0, 2.0, 1.0][:steps])
    assert sampler.sigmas() == pytest.approx([4 * 4 ** (-k / 8) for k in range(9)])
    chain = sampler(potential, START, steps=steps, noise=0, draws=[(3,)])
    assert torch.equal(chain.x, START) == (steps == 0)
    assert chain.energy.shape == (4,)


def test_what_it_cannot_be_is_one_clear_line():
    with pytest.raises(ValueError, match="noise levels are positive, not 0 and None"):
        AnnealedLangevin(3, 0.1, sigma=0)
    with pytest.raises(ValueError, match=r"positive, not 1\.0 and -1"):
        AnnealedLangevin(3, 0.1, sigma_end=-1)
    with pytest.raises(ValueError, match="independence proposals need one density"):
        AnnealedLangevin(3, 0.1, proposals=2)
