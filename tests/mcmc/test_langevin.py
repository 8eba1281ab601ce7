"""Unadjusted Langevin's arithmetic, and its steps at noise levels: the step in units of σ², the ladder written out."""

import pytest
import torch

from ebmzoo.mcmc import AnnealedLangevin, Langevin, Potential, as_noise

START = torch.linspace(-1, 1, 12).double().view(4, 3)


def quartic(x):
    return (x**4).flatten(1).sum(1)


class Levelled(Potential):
    """Quartic about fresh noise, and 1/σ² in front."""

    redraws = True

    def refresh(self, x, noise, level=None):
        self.eps, self.sigma = noise.normal(x.shape, x), x.new_tensor(level)

    def forward(self, x):
        return (x + self.sigma * self.eps).pow(4).flatten(1).sum(1) / (2 * self.sigma**2)


class AtOneLevel(Levelled):
    def refresh(self, x, noise, level=None):
        super().refresh(x, noise, 0.4)


def start(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


# Rows of the convention table: drift a, noise b, implied temperature b²/2a.
@pytest.mark.parametrize(
    ("drift", "noise", "temperature"),
    [
        (0.05, 1e-3, 1e-5),
        (4e-5, 8e-5**0.5, 1.0),
        (0.125, 1e-3, 4e-6),
        (0.045, 1e-3, 1.1e-5),
        (40.0, 0.01, 1.25e-6),
    ],
)
def test_decoupled_settings_mean_their_step(drift, noise, temperature):
    sampler = Langevin.from_noise(1, drift, noise)
    assert sampler.temperature == pytest.approx(temperature, rel=0.02)
    x = 0.1 * start(5, 3)
    expected = x - drift * 4 * x**3 + noise * as_noise(3).normal(x.shape, x)
    torch.testing.assert_close(sampler(quartic, x, noise=3).x, expected, rtol=1e-12, atol=1e-14)


def test_gradient_clamp_bounds_and_noise_first_by_hand():
    x = start(6, 2)
    clamped = Langevin(1, 0.5, 0.0, grad_clamp=0.3, bounds=(-0.9, 0.9))(quartic, x)
    torch.testing.assert_close(clamped.x, (x - 0.25 * (4 * x**3).clamp(-0.3, 0.3)).clamp(-0.9, 0.9))
    torch.testing.assert_close(clamped.grad, (4 * x**3).clamp(-0.3, 0.3))  # as the step used it
    noisy = x + (0.5 * 0.7) ** 0.5 * as_noise(1).normal(x.shape, x)
    first = Langevin(1, 0.5, 0.7, noise_first=True)(quartic, x, noise=1)
    torch.testing.assert_close(first.x, noisy - 0.25 * 4 * noisy**3)
    torch.testing.assert_close(first.energy, quartic(noisy))
    # Bounds hold after the step, whichever comes first.
    for noise_first in (False, True):
        wild = Langevin(3, 0.5, 9.0, bounds=(-0.2, 0.3), noise_first=noise_first)(quartic, x, noise=1).x
        assert wild.min() == -0.2 and wild.max() == 0.3


def test_max_drift_limits_the_length_of_each_example_alone():
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    chain = Langevin(1, 2.0, 0.0, max_drift=1.0)(lambda x: 0.5 * x.square().sum(1), x)
    torch.testing.assert_close(chain.x, torch.tensor([[2.4, 3.2], [0.0, 0.0]]))
    torch.testing.assert_close(chain.grad_norm, torch.tensor([1.0, 0.5]))
    # With s = 0.5 a drift is a quarter of the gradient: of length 1.25, cut down to 1, and of 0.125, left alone.
    chain = Langevin(1, 0.5, 0.0, max_drift=1.0)(lambda x: 0.5 * x.square().sum(1), x)
    torch.testing.assert_close(chain.x, torch.tensor([[2.4, 3.2], [0.225, 0.3]]))
    # The clamp comes before: (3, 4) clamped to (2, 2) has a length of √8, cut down to 1.
    chain = Langevin(1, 2.0, 0.0, max_drift=1.0, grad_clamp=2.0)(lambda x: 0.5 * x.square().sum(1), x[:1])
    torch.testing.assert_close(chain.x, x[:1] - 0.5**0.5)


def test_descent_draws_nothing():
    noise = as_noise(0)
    chain = Langevin(3, 0.2, 0.0)(quartic, START, noise)
    x = START
    for _ in range(3):
        x = x - 0.1 * 4 * x**3
    torch.testing.assert_close(chain.x, x, rtol=1e-12, atol=1e-14)
    assert torch.equal(noise.normal((5,)), as_noise(0).normal((5,)))


def test_noise_floor_is_the_displacement_of_pure_noise():
    sampler = Langevin(7, 0.3, 0.2)
    x = torch.zeros(4000, 5).double()
    moved = sampler(lambda x: 0 * x.sum(1), x, noise=0).x.square().sum(1)
    assert abs(moved.mean() - sampler.noise_floor(5)) < 4 * moved.std() / 4000**0.5
    assert sampler.noise_floor(5) == pytest.approx(7 * 0.3 * 0.2 * 5)
    assert sampler.noise_floor(5, 3) == pytest.approx(3 * 0.3 * 0.2 * 5)


def test_one_level_is_langevin_with_a_step_in_units_of_its_square():
    annealed = AnnealedLangevin(7, 0.3, 0.5, sigma=0.4, bounds=(-0.9, 0.9), max_drift=0.2, grad_clamp=3.0)
    plain = Langevin(7, 0.3 * 0.4**2, 0.5, bounds=(-0.9, 0.9), max_drift=0.2, grad_clamp=3.0)
    chain = annealed(Levelled(), START, noise=1)
    same = plain(AtOneLevel(), START, noise=1)
    assert all(torch.equal(a, b) for a, b in zip(chain[:3], same[:3], strict=True))
    assert annealed.noise_floor(3) == pytest.approx(plain.noise_floor(3))


@pytest.mark.parametrize("backend", ["eager", "trace"])
@pytest.mark.parametrize("noise_first", [False, True])
def test_the_ladder_written_out(noise_first, backend):
    seen = []
    sampler = AnnealedLangevin(4, 0.2, 0.7, backend=backend, sigma=0.8, sigma_end=0.1, noise_first=noise_first)
    chain = sampler(Levelled(), START, noise=2, watch=lambda step, state: seen.append((step, state.energy)))
    noise, x = as_noise(2), START.clone()
    for step, sigma in enumerate([0.8, 0.4, 0.2, 0.1]):
        size = 0.2 * sigma**2
        diffuse = (size * 0.7) ** 0.5
        eps = noise.normal((4, 3), x)  # what the potential draws comes before the step's own noise
        if noise_first:
            x = x + diffuse * noise.normal(x.shape, x)
        x = x.detach().requires_grad_()
        energy = (x + sigma * eps).pow(4).sum(1) / (2 * sigma**2)
        assert seen[step][0] == step
        torch.testing.assert_close(seen[step][1], energy, rtol=1e-12, atol=0)
        x = x - size / 2 * torch.autograd.grad(energy.sum(), x)[0]
        if not noise_first:
            x = x + diffuse * noise.normal(x.shape, x)
    torch.testing.assert_close(chain.x, x.detach(), rtol=1e-12, atol=1e-14)
    assert sampler.noise_floor(3) == pytest.approx(0.2 * 0.7 * 3 * (0.64 + 0.16 + 0.04 + 0.01))


def test_stationary_variance_is_in_units_of_the_level():
    class Ball(Potential):
        redraws = True

        def refresh(self, x, noise, level=None):
            self.sigma = x.new_tensor(level)

        def forward(self, x):
            return 0.5 * (x / self.sigma).square().sum(1)

    chain = AnnealedLangevin(60, 0.8, 0.5, sigma=3.0)(Ball(), torch.zeros(400, 50).double(), noise=0)
    expected = 9 * 0.5 / (1 - 0.8 / 4)
    assert float(chain.x.var()) == pytest.approx(expected, rel=4 * (2 / 20_000) ** 0.5)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_steps_of_a_call_spread_the_ladder(steps):
    sampler = AnnealedLangevin(9, 0.1, sigma=4.0, sigma_end=1.0)
    assert sampler.sigmas(steps) == pytest.approx([4.0, 2.0, 1.0][:steps])
    assert sampler.sigmas() == pytest.approx([4 * 4 ** (-k / 8) for k in range(9)])
    levels = []

    class Asked(Levelled):
        def refresh(self, x, noise, level=None):
            levels.append(level)
            super().refresh(x, noise, level)

    chain = sampler(Asked(), START, steps=steps, noise=0)
    assert torch.equal(chain.x, START) == (steps == 0)
    assert chain.energy.shape == (4,)
    assert levels == pytest.approx([4.0, 2.0, 1.0][: max(steps, 1)])  # asked once a step; of no steps once as well


def test_what_it_cannot_be_is_one_clear_line():
    for wrong in ({"grad_clamp": -1.0}, {"max_drift": 0.0}, {"bounds": (1.0, -1.0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Langevin(1, **wrong)
    with pytest.raises(ValueError, match="noise levels are positive, not 0 and None"):
        AnnealedLangevin(3, 0.1, sigma=0)
    with pytest.raises(ValueError, match=r"positive, not 1\.0 and -1"):
        AnnealedLangevin(3, 0.1, sigma_end=-1)
    with pytest.raises(ValueError, match="independence proposals need one density"):
        AnnealedLangevin(3, 0.1, proposals=2)
    with pytest.raises(ValueError, match="cannot run -1 steps"):
        AnnealedLangevin(3, 0.1)(Levelled(), START, steps=-1)
    with pytest.raises(ValueError, match="Function knows no noise levels: take a sampler without"):
        AnnealedLangevin(3, 0.1)(quartic, START)
