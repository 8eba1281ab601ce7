"""The toys in the plane: densities against scipy's quadrature, and points against their densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from ebmzoo.data import Checkerboard, GaussianMixture, Pinwheel, Rings, Toy2D
from ebmzoo.mcmc.noise import GeneratorNoise, Noise

EXACT = ("gaussians8", "rings", "checkerboard", "pinwheel")


def cell_masses(density, edge: float = 6.0, cells: int = 24, nodes: int = 20) -> np.ndarray:
    """The mass of each square cell of [-edge, edge]^2, by Gauss-Legendre quadrature in float64."""
    place, weight = special.roots_legendre(nodes)
    width = 2 * edge / cells
    starts = -edge + width * np.arange(cells)
    line = (starts[:, None] + width * (place + 1) / 2).ravel()
    x, y = np.meshgrid(line, line, indexing="ij")
    p = density.log_prob(torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))).exp().numpy()
    p = p.reshape(cells, nodes, cells, nodes)
    return np.einsum("anbm,n,m->ab", p, weight, weight) * (width / 2) ** 2


@pytest.mark.parametrize("name", EXACT)
def test_a_density_has_mass_one_and_the_points_follow_it(name):
    data = Toy2D(name)
    masses = cell_masses(data.density)
    assert masses.sum() == pytest.approx(1, abs=1e-6)
    for split, n in (("train", 50_000), ("test", 10_000)):
        x = data.reference(split).data
        assert x.shape == (n, 2) and x.dtype == torch.float32
        edges = np.linspace(-6, 6, 25)
        counts, _, _ = np.histogram2d(*x.T.numpy(), bins=[edges, edges])
        large = masses * n >= 5
        observed = np.append(counts[large], n - counts[large].sum())
        expected = np.append(masses[large] * n, n - masses[large].sum() * n)
        keep = expected > 1e-3
        assert observed[~keep].sum() == 0
        assert stats.chisquare(observed[keep], expected[keep] * n / expected[keep].sum()).pvalue > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_a_noise_and_its_generator_draw_the_same_points(name):
    density = Toy2D(name).density
    first = density.sample(50, torch.Generator().manual_seed(3))
    assert torch.equal(first, density.sample(50, GeneratorNoise(torch.Generator().manual_seed(3))))
    assert not torch.equal(first, density.sample(50, torch.Generator().manual_seed(4)))


def test_the_ring_is_eight_gaussians():
    density = Toy2D("gaussians8").density
    assert isinstance(density, GaussianMixture)
    means = [(4 * math.cos(k * math.pi / 4), 4 * math.sin(k * math.pi / 4)) for k in range(8)]
    assert np.allclose(density.means, means, atol=1e-6) and density.std == 0.2
    x = density.sample(100, torch.Generator().manual_seed(0)).double()
    expected = np.mean([stats.multivariate_normal(mean, 0.04).pdf(x) for mean in density.means.double()], axis=0)
    assert np.allclose(density.log_prob(x).exp(), expected, rtol=1e-10)


@pytest.mark.parametrize("point", [(0.0, 0.0), (0.3, -0.1), (1.0, 0.0), (-1.2, 1.3), (0.0, 2.5), (30.0, 40.0)])
def test_rings_are_circles_convolved_with_a_gaussian(point):
    std = 0.3
    x = np.array(point)

    def exponent(angle: float, radius: float) -> float:
        on = radius * np.array([math.cos(angle), math.sin(angle)])
        return -((x - on) ** 2).sum() / (2 * std**2)

    towards = math.atan2(point[1], point[0])
    highest = exponent(towards, 2.0)  # taken out, so that far away does not underflow

    def mean_over(radius: float) -> float:
        # Around the nearest point of the circle, which must not fall between two nodes.
        places = np.linspace(towards - math.pi, towards + math.pi, 9)
        pieces = zip(places[:-1], places[1:], strict=True)
        parts = (integrate.quad(lambda a: math.exp(exponent(a, radius) - highest), *ab)[0] for ab in pieces)
        return sum(parts) / (2 * math.pi)

    expected = math.log((mean_over(1.0) + mean_over(2.0)) / 2) + highest - math.log(2 * math.pi * std**2)
    density = Rings(torch.tensor([1.0, 2.0]), std)
    found = density.log_prob(torch.tensor([point], dtype=torch.float64)).item()
    assert found == pytest.approx(expected, rel=1e-9)
    assert density.log_prob(torch.tensor([point])).item() == pytest.approx(expected, rel=1e-4)


def test_the_score_of_rings_is_finite_at_their_centre():
    x = torch.zeros(1, 2, requires_grad=True)
    (score,) = torch.autograd.grad(Rings(torch.tensor([1.0]), 0.3).log_prob(x).sum(), x)
    assert torch.equal(score, torch.zeros(1, 2))


def test_the_checkerboard_is_uniform_on_the_squares_of_one_colour():
    density = Checkerboard()
    filled = {(-4, -4), (-4, 0), (-2, -2), (-2, 2), (0, -4), (0, 0), (2, -2), (2, 2)}
    assert {tuple(corner) for corner in density.corners.int().tolist()} == filled
    centres = torch.cartesian_prod(torch.arange(-7.0, 8.0, 2), torch.arange(-7.0, 8.0, 2))
    inside = [tuple((centre - 1).int().tolist()) in filled for centre in centres]
    expected = torch.where(torch.tensor(inside), torch.tensor(-math.log(32)), torch.tensor(-math.inf))
    assert torch.equal(density.log_prob(centres), expected)
    assert density.log_prob(Toy2D("checkerboard").reference().data).unique().item() == expected.max().item()

    class Edge(Noise):
        """Every number as large as it can be."""

        def normal_(self, out):
            raise AssertionError("the board needs none")

        def uniform_(self, out):
            return out.fill_(1 - 2.0**-24)

        def integers_(self, high, out):
            return out.copy_(torch.arange(len(out)) % high)

    assert density.log_prob(density.sample(8, Edge())).isfinite().all()


def test_a_pinwheel_is_a_twisted_mixture():
    plain = Pinwheel(arms=2, radius=1.0, stds=(0.5, 0.2), twist=0.0)
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    arms = [stats.multivariate_normal([side, 0], [[0.25, 0], [0, 0.04]]).pdf(x) for side in (1, -1)]
    assert np.allclose(plain.log_prob(x).exp(), np.mean(arms, axis=0), rtol=1e-10)
    # Every point turned by its own twist: the same density there.
    angle = torch.atan2(x[:, 1], x[:, 0]) + 0.7 * x.norm(dim=1)
    turned = x.norm(dim=1)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    twisted = Pinwheel(arms=2, radius=1.0, stds=(0.5, 0.2), twist=0.7)
    assert torch.allclose(twisted.log_prob(turned), plain.log_prob(x), rtol=1e-10)


def test_only_toys_with_a_density_have_one():
    assert [hasattr(Toy2D(name), "density") for name in EXACT] == [True] * 4
    for name in ("moons", "spirals"):
        assert not hasattr(Toy2D(name), "density")


def distances(x: torch.Tensor, curve: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x.double(), curve).min(1).values


def test_moons_lie_around_two_half_circles():
    x = Toy2D("moons").reference("test").data
    t = torch.linspace(0, math.pi, 500, dtype=torch.float64)
    upper = 2.4 * torch.stack([t.cos() - 0.5, t.sin() - 0.25], dim=1)
    near_upper, near_lower = distances(x, upper), distances(x, -upper)
    near = torch.minimum(near_upper, near_lower)
    # Across a line the blur has one direction, at its ends two.
    assert near.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.05)
    assert near.max() < 0.2 * 6
    assert (near_upper < near_lower).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_spirals_lie_around_two_arms_evenly():
    x = Toy2D("spirals").reference("test").data
    t = torch.linspace(0, 1, 2000, dtype=torch.float64)
    arm = 4 * t[:, None] * torch.stack([(3 * math.pi * t).cos(), (3 * math.pi * t).sin()], dim=1)
    first, second = distances(x, arm), distances(x, -arm)
    near = torch.minimum(first, second)
    assert near.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
    assert (first < second).double().mean().item() == pytest.approx(0.5, abs=0.02)
    outer = (x.norm(dim=1) > 2).double().mean().item()
    assert outer == pytest.approx(0.75, abs=0.03)  # an arm's length grows with the square of its radius


@pytest.mark.parametrize("name", [*EXACT, "moons", "spirals"])
def test_points_do_not_depend_on_the_seed(name):
    a, b = Toy2D(name, seed=0, n_train=100, n_test=50), Toy2D(name, seed=1, n_train=100, n_test=50)
    assert torch.equal(a.reference().data, b.reference().data)
    assert not torch.equal(a.reference("train").data[:50], a.reference("test").data)
    first, second = (next(iter(data.train_dataloader())) for data in (a, b))
    assert first.shape == (64, 2) and not torch.equal(first, second)
    assert (a.kind, a.image_shape, a.reference_name("val")) == ("points", (2,), f"{name} test")


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="no 2-D toy 'circles': gaussians8, rings, checkerboard"):
        Toy2D("circles")
    for settings in ({"n_train": 0}, {"n_test": 0}, {"flip": 0.5}):
        with pytest.raises(ValueError, match="Toy2D needs"):
            Toy2D(**settings)
    for make in (lambda: Rings(torch.zeros(1), 1.0), lambda: Rings(torch.ones(1), 0.0)):
        with pytest.raises(ValueError, match="rings need"):
            make()
    for make in (lambda: Checkerboard(squares=3), lambda: Checkerboard(side=0.0)):
        with pytest.raises(ValueError, match="board needs"):
            make()
    with pytest.raises(ValueError, match="pinwheel needs"):
        Pinwheel(stds=(0.1, 0.0))
