"""VAEBM's spaces: chains against the exact Gaussian, and the change of variables between them."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import MALA, Langevin, as_noise
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import Energy, GaussianVAE, HierarchicalVAE, InData, InNoise, InX
from ebmzoo.parts.spaces import SPACES, needed_curvature, noise_left

SHAPE = (1, 8, 8)
X = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 2 - 1


class Linear(nn.Module):
    """A linear decoder of two points from one latent, or an encoder that is never asked."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()
        self.register_buffer("a", torch.tensor([[1.5], [-0.5]]).double())
        self.register_buffer("b", torch.tensor([0.3, -0.2]).double())

    def forward(self, z):
        return z @ self.a.T + self.b


class Quadratic(nn.Module):
    """E(x) = ½ (x − m)ᵀ Λ (x − m)."""

    def __init__(self, image_shape):
        super().__init__()
        self.register_buffer("m", torch.tensor([1.0, 1.0]).double())
        self.register_buffer("matrix", torch.tensor([[2.0, 0.6], [0.6, 1.0]]).double())

    def forward(self, x):
        return 0.5 * ((x - self.m) @ self.matrix * (x - self.m)).sum(1)


class Silent(nn.Module):
    """A decoder that says 0, or an encoder that is never asked."""

    def __init__(self, image_shape, latent_dim):
        super().__init__()
        self.image_shape = image_shape

    def forward(self, z):
        return z.new_zeros(len(z), *self.image_shape)


class Bowl(nn.Module):
    """E(x) = c·‖x‖²/2."""

    def __init__(self, curvature):
        super().__init__()
        self.curvature = curvature

    def forward(self, x):
        return 0.5 * self.curvature * x.square().sum(1)


@pytest.mark.parametrize(
    ("space", "sampler"),
    [
        ("noise", MALA(60, 0.8)),
        ("noise", Langevin(400, 0.02)),
        ("noise", MALA(20, 0.8, proposals=30)),
        ("data", MALA(200, 0.25)),
        ("x", MALA(60, 0.8)),
    ],
    ids=["noise", "noise, unadjusted", "noise, proposals", "data", "x"],
)
def test_chains_sample_the_product_of_a_linear_gaussian_vae_and_a_quadratic_energy(space, sampler):
    vae = GaussianVAE((2,), Linear, Linear, latent_dim=1, sigma=0.7).double()
    n, decoder, energy = 4000, vae.decoder, Quadratic((2,))
    # Eq. 4: N(b, AAᵀ + σ²I) times exp(−E) is a Gaussian whose precisions add up; in space "x" there is exp(−E) alone.
    prior = torch.linalg.inv(decoder.a @ decoder.a.T + 0.49 * torch.eye(2).double()) * (space != "x")
    covariance = torch.linalg.inv(prior + energy.matrix)
    mean = covariance @ (prior @ decoder.b + energy.matrix @ energy.m)
    potential, noise = SPACES[space](energy, vae), as_noise(0)
    z, eps = noise.normal((n, 1), X), noise.normal((n, 2), X)
    start = potential.place(eps, potential.latents((z,)))
    begun = potential.data(start, "sample")
    torch.testing.assert_close(begun, decoder(z) + 0.7 * eps, rtol=1e-6, atol=1e-6)  # p(x), in whatever space
    x = potential.data(sampler(potential, start, as_noise(1)).x, "sample")
    deviation = x - mean
    errors = [deviation.mean(0), deviation.T @ deviation / n - covariance]
    scales = [covariance.diag().sqrt() / n**0.5]
    scales.append(((covariance.diag()[:, None] * covariance.diag() + covariance**2) / n).sqrt())
    bias = 0.006 if isinstance(sampler, Langevin) else 0.0
    for error, scale in zip(errors, scales, strict=True):
        assert (error.abs() < 4 * scale + bias).all(), (error, scale)
    begun = begun - mean
    assert ((begun.T @ begun / n - covariance).abs() > 8 * scales[1]).any()  # the chain did it, not the start


def energy():
    torch.manual_seed(1)
    return Energy(SHAPE, partial(MLPEnergy, width=6, depth=1)).double()


def hierarchy():
    torch.manual_seed(0)
    return HierarchicalVAE(SHAPE, width=4, scales=2, groups=2, latents=2, cells=1).double().eval()


def gaussian():
    torch.manual_seed(0)
    parts = {"encoder": partial(MLPEncoder, width=7), "decoder": partial(MLPDecoder, width=7)}
    return GaussianVAE(SHAPE, **parts, latent_dim=3, sigma=0.4).double()


@pytest.mark.parametrize("make", [gaussian, hierarchy])
def test_the_potentials_are_one_density(make):
    """E − log p(x, z) = E + ½‖ε‖² + Σ log σ + const: the change of variables of appendix B."""
    e, vae, noise = energy(), make(), as_noise(1)
    spaces = {name: space(e, vae) for name, space in SPACES.items()}
    eps_x = noise.normal(X.shape, X)
    eps_z = tuple(noise.normal((8, *shape), X) for shape in vae.noise_shapes)
    latents = vae.generate(*eps_z)
    x = latents.x.draw(eps_x)
    states = {name: space.place(eps_x, space.latents(eps_z)) for name, space in spaces.items()}
    row = torch.cat([part.flatten(1) for part in (eps_x, *eps_z)], 1)
    assert torch.equal(states["noise"], row)
    torch.testing.assert_close(states["data"], torch.cat([part.flatten(1) for part in (x, *latents.z)], 1))
    torch.testing.assert_close(states["x"], x.flatten(1))
    logs = torch.broadcast_to(latents.x.log_sigma, x.shape).flatten(1).sum(1)
    logs = logs + sum(torch.broadcast_to(p.log_sigma, z.shape).flatten(1).sum(1) for p, z in
                      zip(latents.prior, latents.z, strict=True))  # fmt: skip
    white = e(x) + 0.5 * row.square().sum(1)
    torch.testing.assert_close(spaces["noise"](row), white, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(spaces["noise"].tilt(row), e(x), rtol=1e-10, atol=1e-10)
    expected = white + logs + 0.5 * (64 + vae.latent_dim) * math.log(2 * math.pi)
    torch.testing.assert_close(spaces["data"](states["data"]), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(spaces["x"](states["x"]), e(x), rtol=1e-10, atol=1e-10)
    for name, space in spaces.items():
        torch.testing.assert_close(space.data(states[name], "sample"), x)
        if name != "x":
            torch.testing.assert_close(space.data(states[name], "mean"), latents.mean)


@pytest.mark.thorough
def test_a_cool_start_is_the_white_noise_of_cool_samples():
    """Decoded again (its means, and x itself through its noise), the start is what the readjusted VAE had made."""
    vae, noise = hierarchy(), as_noise(2)
    space = InNoise(energy(), vae)
    running = copy.deepcopy(vae.state_dict())
    start = noise.normal((8, 64 + vae.latent_dim), X)
    cooled = space.cooled(start, 0.7, as_noise(3))
    assert all(torch.equal(v, running[k]) for k, v in vae.state_dict().items())
    own = as_noise(0)
    cool = vae.readjusted(0.7, lambda shape: own.normal(shape, X))
    z = [0.7 * part for part in space.row.parts(start)[1:]]
    expected = cool.generate(*z).mean
    torch.testing.assert_close(space.data(cooled, "sample"), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(vae.generate(*z).mean, expected)
    with torch.no_grad():  # the noise of its posterior is the one given
        found = vae.infer(expected, partial(as_noise(3).normal, like=X))
    torch.testing.assert_close(space.row.parts(cooled)[-1], found.noise[-1], rtol=1e-10, atol=1e-10)


def test_spaces_by_name():
    assert {"noise": InNoise, "data": InData, "x": InX} == SPACES
    with pytest.raises(ValueError, match="white noise, tilted: InData"):
        InData(energy(), gaussian()).tilt(X)


@pytest.mark.parametrize(("sigma", "curvature", "steps", "step_size"), [(0.2, 300.0, 15, 0.01), (0.1, 900.0, 4, 0.15)])
def test_the_decoders_noise_that_a_chain_leaves(sigma, curvature, steps, step_size):
    """The law of docs/methods/vaebm.md: on a decoder that says 0 and E = c·x²/2, by 300,000 values of ε_x."""
    vae = GaussianVAE((20,), Silent, Silent, latent_dim=1, sigma=sigma)
    potential, noise = InNoise(Bowl(curvature), vae), as_noise(0)
    start = noise.normal((15_000, 21))
    x = potential.data(Langevin(steps, step_size)(potential, start, noise).x, "sample")
    expected = noise_left(sigma, curvature, steps, step_size)
    assert abs(float(x.std()) / expected - 1) < 4 / (2 * x.numel()) ** 0.5
    assert expected < 0.95 * sigma


def test_the_law_without_an_energy_and_after_long():
    assert noise_left(0.2, 0.0, 1000, 1e-4) == pytest.approx(0.2, rel=1e-4)  # white noise stays white noise
    assert noise_left(0.2, 75.0, 100_000, 1e-3) == pytest.approx(0.1, rel=1e-3)  # σ²c = 3: half of it
    needed = needed_curvature(0.2, 0.15)
    assert (1 + 0.04 * needed) * 0.15 / 2 == pytest.approx(1.0)
    assert needed_curvature(0.2, 4.0) == 0.0  # it relaxes by itself


@pytest.mark.parametrize(("share", "diverges"), [(0.9, False), (1.1, True)])
def test_an_unadjusted_step_diverges_from_four_over_the_curvature_on(share, diverges):
    """Where U curves by κ, ε ← (1 − sκ/2) ε + √s ξ has the variance 1/κ(1 − sκ/4), or none."""
    sigma, curvature = 0.1, 9900.0
    kappa = 1 + sigma**2 * curvature  # of ε_x: 100
    step_size = share * 4 / kappa
    potential = InNoise(Bowl(curvature), GaussianVAE((20,), Silent, Silent, latent_dim=1, sigma=sigma))
    noise = as_noise(0)
    white = Langevin(100, step_size)(potential, noise.normal((2000, 21)), noise).x[:, :20]
    if diverges:
        assert white.square().mean() > 1e6
    else:
        assert float(white.var()) * kappa * (1 - share) == pytest.approx(1, rel=4 * (2 / white.numel()) ** 0.5)
