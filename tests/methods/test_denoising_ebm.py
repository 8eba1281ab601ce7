"""Denoising-EBM: losses, chains and contrasts against the paper's formulas written out, in float64 to 1e-10."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import AnnealedLangevin, as_noise
from ebmzoo.methods import BoundsLikelihood, DenoisingEBM, HasEnergy
from ebmzoo.networks import MLPDenoiser

from .by_hand import DECODER, LATENT, SHAPE, apply, error, made, steps_of

DATA = 0.7
RATE = 2e-3  # of plain SGD, so that the order of the updates shows in the weights
NAMES = ("denoiser", "decoder")
Z = AnnealedLangevin(3, 0.6, 0.8, sigma=0.4)
X = AnnealedLangevin(4, 0.3, 0.2, sigma=0.5, sigma_end=0.2, bounds=(-1.0, 1.0))


def method(**settings):
    denoiser = spec(MLPDenoiser, width=9, depth=1, sigma_data=DATA)
    optimizer = spec(SGD, lr=RATE)
    defaults = {
        "latent_dim": LATENT, "sigma_min": 0.2, "levels": 5, "semantic_sampler": Z, "texture_sampler": X,
        "contrast_every": 1, "denoiser_optimizer": optimizer, "decoder_optimizer": optimizer,
    }  # fmt: skip
    return made(DenoisingEBM, denoiser, DECODER, **{**defaults, **settings})


def level(n, sigma):
    return torch.full((n,), sigma, dtype=torch.float64)


def column(sigma):
    return sigma[:, None, None, None]


def u_c(model, x, eps, sigma):
    """Eq. 7."""
    return error(x, model.denoiser(x + column(sigma) * eps, sigma)[0]) / (2 * sigma**2)


def descend(loss, network):
    return steps_of(loss, network, rate=RATE)


def langevin(energy, state, sampler, sigmas, noise):
    """Eqs. 15 and 16 in units of σ², η = s·σ²/2, with new ε at every step."""
    for now in sigmas:
        state = state.detach().requires_grad_()
        sigma = level(len(state), now)
        u = energy(state, noise.normal((len(state), *SHAPE), state), sigma)
        eta = sampler.step_size * now**2 / 2
        state = state - eta * torch.autograd.grad(u.sum(), state)[0]
        state = state + (2 * eta * sampler.temperature) ** 0.5 * noise.normal(state.shape, state)
        if sampler.bounds:
            state = state.clamp(*sampler.bounds)
    return state.detach()


def two_stages(model, n, noise, kernel="gradient", levels=((0.4,) * 3, tuple(0.5 * 0.4 ** (k / 3) for k in range(4)))):
    """Algorithm 1, lines 7 to 13."""
    z = noise.normal((n, LATENT), torch.zeros(()).double())
    z = langevin(lambda z, eps, sigma: u_c(model, model.decoder(z), eps, sigma), z, Z, levels[0], noise)

    def texture(x, eps, sigma):
        if kernel == "gradient":
            return u_c(model, x, eps, sigma)
        r = model.denoiser(x + column(sigma) * eps, sigma)[0].detach()
        return ((x - r) * (x - r).detach() / column(sigma) ** 2).sum((1, 2, 3))  # its gradient is the residual

    return z, langevin(texture, model.decoder(z).detach(), X, levels[1], noise)


def algorithm_1(model, x, noise, iteration, contrast_every=1, contrast_start=0, contrast_weight=1.0,
                contrast_sigma=None, chains=8, code_weight=0.0, kernel="gradient"):  # fmt: skip
    """One iteration with gradient steps on the equations as printed, preconditioned and weighted by σ²."""
    sigma = 0.2 ** (noise.integers(5, (8,)).double() / 4)
    r, z = model.denoiser(x + column(sigma) * noise.normal(x.shape, x), sigma)
    denoising = ((sigma**2 + DATA**2) / (sigma * DATA) ** 2 * error(r, x)).mean()
    decoding = error(model.decoder(z), x).mean()
    steps = descend(denoising + code_weight * decoding, model.denoiser)
    apply(steps + descend(decoding, model.decoder))
    if not contrast_weight or iteration % contrast_every or iteration <= contrast_start:
        return
    n = chains
    x, z, sigma = x[:n], z[:n].detach(), sigma[:n]
    z_model, x_model = two_stages(model, n, noise, kernel)
    if contrast_sigma:
        sigma = level(n, contrast_sigma)
    eps = torch.cat([noise.normal((n, *SHAPE), x) for _ in range(2)])
    semantic = [u_c(model, model.decoder(code), e, sigma) for code, e in ((z, eps[:n]), (z_model, eps[n:]))]
    steps = descend(contrast_weight * (sigma**2 * (semantic[0] - semantic[1])).mean(), model.decoder)
    eps = torch.cat([noise.normal((n, *SHAPE), x) for _ in range(2)])
    texture = [u_c(model, y, e, sigma) for y, e in ((x, eps[:n]), (x_model, eps[n:]))]
    apply(steps + descend(contrast_weight * (sigma**2 * (texture[0] - texture[1])).mean(), model.denoiser))


OPTIONS = {
    "the paper's": {},
    "without contrast": {"contrast_weight": 0.0},
    "every second iteration": {"contrast_every": 2},
    "after a start": {"contrast_start": 1},
    "the code learns from the decoder": {"code_weight": 0.5},
    "weighted": {"contrast_weight": 5.0},
    "at one level": {"contrast_sigma": 0.3},
    "fewer chains": {"chains": 5},
    "residual": {"kernel": "residual"},
    "many": {"code_weight": 1.0, "contrast_weight": 3.0, "contrast_sigma": 0.6, "chains": 3, "kernel": "residual"},
}


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
def test_an_iteration_is_algorithm_1(fit, digits, settings):
    trained = method(**settings)
    start, expected = copy.deepcopy(trained), copy.deepcopy(trained)
    batches = [digits, digits.flip(0) * 0.9, digits.flip(3)]
    fit(trained, batches)
    noise = as_noise(5)
    for number, x in enumerate(batches):
        algorithm_1(expected, x, noise, number + 1, **settings)
    for name in NAMES:
        weights, reference, before = (getattr(m, name).state_dict() for m in (trained, expected, start))
        assert max((reference[key] - before[key]).abs().max() for key in before) > 1e-3
        for key in before:
            torch.testing.assert_close(weights[key], reference[key], rtol=1e-10, atol=1e-10, msg=f"{name}.{key}")


def test_every_option_changes_the_iteration(fit, digits):
    """The table above tells its rows apart: no option is inert."""
    found = []
    for settings in OPTIONS.values():
        trained = method(**settings)
        fit(trained, [digits, digits, digits])
        found.append(torch.cat([p.detach().flatten() for p in trained.parameters()]))
    distances = torch.cdist(torch.stack(found), torch.stack(found)) + torch.eye(len(found))
    assert distances.min() > 1e-7


def test_energy_averages_fixed_draws_that_all_examples_share(digits):
    model = method(energy_sigma=0.3, energy_draws=2, texture_refine=AnnealedLangevin(1, 0.1, 0.25))
    noise, sigma = as_noise(0), level(8, 0.3)
    first, second = (noise.normal(SHAPE).double().expand_as(digits) for _ in range(2))
    expected = (u_c(model, digits, first, sigma) + u_c(model, digits, second, sigma)) / 2
    torch.testing.assert_close(model.energy(digits), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.energy(digits[3:5]), expected[3:5], rtol=1e-10, atol=0)
    torch.testing.assert_close(model.score(digits), -expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.log_density(digits), -expected / 0.25, rtol=1e-12, atol=0)
    assert isinstance(model, HasEnergy) and not isinstance(model, BoundsLikelihood)


def test_samples_are_two_chains_and_a_denoising_step():
    model = method(denoise_sigma=0.1)
    z, x = two_stages(model, 4, as_noise(3))
    sigma = level(4, 0.1)
    seen = []
    found = model.sample(4, noise=3, watch=lambda step, state: seen.append(state.x.clone()))
    torch.testing.assert_close(found, model.denoiser(x, sigma)[0].detach().clamp(-1, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(seen[0], model.decoder(z).detach(), rtol=1e-10, atol=1e-10)
    assert len(seen) == 4
    torch.testing.assert_close(model.sample(4, steps=0, noise=3), seen[0].clamp(-1, 1), rtol=0, atol=0)
    assert model.test_sampler() == (X, 4) and model.semantic_refine == Z


@pytest.mark.parametrize("kernel", ["gradient", "residual"])
def test_the_last_denoising_is_told_what_the_test_chain_leaves(kernel):
    """Off the manifold a step keeps (1 − h/2)² of the variance, adds h·T·σ², by either kernel; σ_min is the least."""
    model = method(denoise_sigma="left", kernel=kernel, texture_refine=replace(X, temperature=0.9, bounds=None))
    variance = 0.0
    for sigma in (0.5, 0.5 * 0.4 ** (1 / 3), 0.5 * 0.4 ** (2 / 3), 0.2):
        variance = 0.85**2 * variance + 0.3 * 0.9 * sigma**2
    assert variance**0.5 > model.sigma_min
    ends = []
    denoise, model.denoise = model.denoise, lambda x, sigma: ends.append((x, sigma)) or denoise(x, sigma)
    found = model.sample(4, noise=3)
    ((x, told),) = ends
    assert told == pytest.approx(variance**0.5, rel=1e-12)
    assert torch.equal(found, model.denoiser(x, level(4, told))[0].detach().clamp(-1, 1))
    model.sample(4, steps=0, noise=3)
    model.sample(4, steps=1, noise=3)
    assert [sigma for _, sigma in ends[1:]] == [pytest.approx(max(0.2, (0.3 * 0.9 * 0.25) ** 0.5), rel=1e-12)]
    model.refine = replace(X, temperature=0.0)
    assert model.noise_left(4) == model.sigma_min == 0.2


def test_test_time_has_its_own_lengths_and_start():
    own = {"semantic_refine": AnnealedLangevin(7, 0.1), "texture_refine": AnnealedLangevin(9, 0.1, sigma=0.3)}
    model = method(start="noise", sigma_max=2.0, denoise_sigma=None, **own)
    frames = []
    with torch.inference_mode():
        model.sample(500, noise=0, watch=lambda step, state: frames.append(state.x.clone()))
    assert len(frames) == 9
    assert float(frames[0].std()) == pytest.approx(2.0, rel=0.02)  # no first stage: noise of the ladder's top
    assert (model.sampler, model.semantic_sampler, model.semantic_refine.steps) == (X, Z, 7)


def test_reconstruction_is_what_the_code_keeps(digits):
    model = method()
    z, log_sigma = model.encode(digits)
    expected = model.denoiser(digits, level(8, 0.2))[1]
    assert torch.equal(z, expected) and torch.equal(log_sigma.exp(), torch.zeros(8, LATENT).double())
    assert torch.equal(model.reconstruct(digits), model.decoder(expected))
    assert torch.equal(model.denoise(digits, 0.5), model.denoiser(digits, level(8, 0.5))[0])


class Rungs(type(as_noise(None))):
    """Gives every rung of a ladder of five, in order."""

    def integers(self, high, shape, like=None):
        assert high == 5 and tuple(shape) == (5,)
        return torch.arange(5)


def test_the_ladder_goes_down_in_a_geometric_sequence():
    """σ_max first, σ_min last, a constant ratio below one between, and every rung equally often."""
    model = method(sigma_max=2.0, sigma_min=0.125, levels=5)
    found = model.level(torch.zeros(5, *SHAPE).double(), Rungs())
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 0.5, 0.25, 0.125]).double(), rtol=1e-12, atol=0)
    drawn = model.level(torch.zeros(5000, *SHAPE).double(), as_noise(1))
    shares = torch.stack([((drawn - sigma).abs() < 1e-9).double().mean() for sigma in found])
    assert (shares - 0.2).abs().max() < 4 * (0.2 * 0.8 / 5000) ** 0.5
    default = DenoisingEBM(SHAPE, MLPDenoiser, DECODER)
    assert (default.sigma_max, default.sigma_min, default.levels) == (1.0, 0.01, 128)


def test_held_out_data_are_told_by_the_denoisers_loss_the_codes_error_and_the_energy(digits):
    model, noise = method(energy_sigma=0.3, energy_draws=2), as_noise(4)
    found = model.validate(digits, as_noise(4))
    assert set(found) == {"loss_denoiser", "mse", "energy_data"}
    sigma = 0.2 ** (noise.integers(5, (8,)).double() / 4)
    r, _ = model.denoiser(digits + column(sigma) * noise.normal(digits.shape, digits), sigma)
    expected = (sigma**2 + DATA**2) / (sigma * DATA) ** 2 * error(r, digits)
    torch.testing.assert_close(found["loss_denoiser"], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(found["mse"], error(model.reconstruct(digits), digits) / 64, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["energy_data"], model.energy(digits), rtol=1e-12, atol=0)


def test_what_it_cannot_be_is_one_clear_line():
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max and 2 levels, not 1.0, 0.5 and 5"):
        method(sigma_min=1.0, sigma_max=0.5)
    with pytest.raises(ValueError, match="contrast_every must be at least 1, not 0"):
        method(contrast_every=0)
    with pytest.raises(ValueError, match="denoise_sigma is a noise level, 'left' or None, not 'right'"):
        method(denoise_sigma="right")
