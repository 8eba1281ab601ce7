"""Denoising-EBM's energies: their gradients with the denoiser's Jacobian written out, what a chain draws, averages."""

import math

import pytest
import torch

from ebmzoo.mcmc import AnnealedLangevin, as_noise
from ebmzoo.networks import MLPDecoder, MLPDenoiser
from ebmzoo.parts import Semantic, Texture, chain_std
from ebmzoo.parts.textures import Averaged

SHAPE, LATENT = (1, 4, 4), 3
X = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
EPS = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
SIGMA = torch.tensor([0.1, 0.3, 0.5, 1.0], dtype=torch.float64)


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    return MLPDenoiser(SHAPE, LATENT, width=9, depth=1, sigma_data=0.7).double()


def column(sigma):
    return sigma[:, None, None, None]


def u_c(denoiser, x, eps, sigma):
    """Eq. 7."""
    return (x - denoiser(x + column(sigma) * eps, sigma)[0]).square().flatten(1).sum(1) / (2 * sigma**2)


def test_the_texture_energy_is_eq_7_at_each_examples_own_level(denoiser):
    found = Texture(denoiser, sigma=SIGMA, eps=EPS)(X)
    torch.testing.assert_close(found, u_c(denoiser, X, EPS, SIGMA), rtol=1e-12, atol=0)
    one = Texture(denoiser, sigma=SIGMA[2], eps=EPS)(X)
    torch.testing.assert_close(one, u_c(denoiser, X, EPS, SIGMA[2].expand(4)), rtol=1e-12, atol=0)


def test_gradients_of_the_two_kernels_in_x(denoiser):
    """Eq. 21 with the Jacobian of r written out, and its first term alone."""
    found = {}
    for kernel in ("gradient", "residual"):
        _, found[kernel] = Texture(denoiser, kernel, sigma=SIGMA, eps=EPS).value_and_grad(X)
    for k in range(4):
        x, eps, sigma = X[k], EPS[k : k + 1], SIGMA[k : k + 1]

        def r(x, eps=eps, sigma=sigma):
            return denoiser(x[None] + sigma * eps, sigma)[0].flatten()

        residual = (x.flatten() - r(x)) / sigma**2
        jacobian = torch.autograd.functional.jacobian(r, x).flatten(1)
        torch.testing.assert_close(found["residual"][k].flatten(), residual, rtol=1e-10, atol=1e-10)
        expected = residual - jacobian.T @ residual
        torch.testing.assert_close(found["gradient"][k].flatten(), expected, rtol=1e-10, atol=1e-10)


def test_the_semantic_energy_is_the_texture_energy_of_its_image(denoiser):
    decoder = MLPDecoder(SHAPE, LATENT, width=7).double()
    z = torch.randn(4, LATENT).double()
    found = Semantic(denoiser, decoder, sigma=SIGMA, eps=EPS)(z)
    torch.testing.assert_close(found, u_c(denoiser, decoder(z), EPS, SIGMA), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kernel", ["gradient", "residual"])
def test_no_graph_is_kept_where_none_is_wanted(denoiser, kernel):
    potential = Texture(denoiser, kernel, sigma=SIGMA, eps=EPS)
    with torch.no_grad():
        assert not potential(X).requires_grad
    assert potential(X).requires_grad == (kernel == "gradient")  # parameters are reached through r alone


def test_each_step_of_a_chain_has_its_level_and_new_noise(denoiser):
    """Eq. 16 in units of σ², two steps by hand."""
    sampler = AnnealedLangevin(2, 0.3, 0.5, sigma=0.5, sigma_end=0.2)
    found = sampler(Texture(denoiser), X, as_noise(4)).x
    noise, x = as_noise(4), X
    for now in (0.5, 0.2):
        sigma = torch.full((4,), now, dtype=torch.float64)
        eps, x = noise.normal(X.shape, X), x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(u_c(denoiser, x, eps, sigma).sum(), x)
        x = x - 0.15 * now**2 * gradient + (0.3 * now**2 * 0.5) ** 0.5 * noise.normal(X.shape, X)
    torch.testing.assert_close(found, x.detach(), rtol=1e-10, atol=1e-10)
    decoder = MLPDecoder(SHAPE, LATENT, width=7).double()
    semantic = Semantic(denoiser, decoder)
    semantic.refresh(torch.zeros(5, LATENT).double(), as_noise(1), 0.4)
    assert semantic.eps.shape == (5, *SHAPE) and semantic.sigma == 0.4 and semantic.redraws


def test_an_average_is_over_fixed_draws_that_all_examples_share(denoiser):
    found, noise = Averaged(denoiser, 0.3, 3)(X), as_noise(0)
    draws = [noise.normal(SHAPE).double().expand_as(X) for _ in range(3)]
    sigma = torch.full((4,), 0.3, dtype=torch.float64)
    expected = sum(u_c(denoiser, X, eps, sigma) for eps in draws) / 3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(Averaged(denoiser, 0.3, 3)(X[1:2]), found[1:2], rtol=1e-12, atol=0)


class Best(torch.nn.Module):
    """The best denoiser of N(0, s²), r(x̃, σ) = x̃·s²/(s² + σ²)."""

    image_shape = (50,)

    def __init__(self, std):
        super().__init__()
        self.std = std

    def forward(self, x, sigma):
        return x * (self.std**2 / (self.std**2 + sigma**2))[:, None], None


CHAIN = AnnealedLangevin(30, 0.7, 0.3, sigma=0.8, sigma_end=0.2)
LAWS = [(kernel, std, CHAIN) for kernel in ("gradient", "residual") for std in (0.0, 0.2, 2.0)]
LAWS += [("gradient", 0.3, AnnealedLangevin(60, 0.9, 1.0, sigma=0.3)), ("gradient", 0.0, AnnealedLangevin(5, 0.02))]


@pytest.mark.parametrize("kernel, std, sampler", LAWS)
def test_chains_end_as_wide_as_the_law_says(kernel, std, sampler):
    x = sampler(Texture(Best(std), kernel), torch.zeros(400, 50).double(), noise=0).x
    expected = chain_std(sampler, std, kernel=kernel)
    assert x.std().item() == pytest.approx(expected, rel=4 / (2 * x.numel()) ** 0.5)


@pytest.mark.parametrize("std", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_short_steps_settle_on_the_density_of_the_energy(std, temperature):
    """T·σ²(1 + s²/σ²)² by the gradient, T·(s² + σ²) by the residual."""
    sampler = AnnealedLangevin(60_000, 1e-2, temperature, sigma=0.4)
    law = temperature**0.5 * 0.4 * (1 + std**2 / 0.4**2)
    assert chain_std(sampler, std) == pytest.approx(law, rel=6e-3)
    law = (temperature * (std**2 + 0.4**2)) ** 0.5
    assert chain_std(sampler, std, kernel="residual") == pytest.approx(law, rel=6e-3)


def test_they_settle_in_2_over_h_steps_at_best():
    """After n relaxations 1 − exp(−2n) of the variance is there; one takes 2/h off the manifold, 8/h at σ = s."""
    sampler, h = AnnealedLangevin(10_000, 1e-2, 1.0, sigma=0.3), 1e-2
    for std, relaxation in ((0.0, 2 / h), (0.3, 8 / h)):
        whole = chain_std(sampler, std)
        for n in (0.5, 1, 2):
            share = (chain_std(sampler, std, steps=round(n * relaxation)) / whole) ** 2
            assert share == pytest.approx(1 - math.exp(-2 * n), rel=6e-3)
