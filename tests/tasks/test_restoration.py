"""Restoration against a model whose posterior is known, and the promise that what was given is kept."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from ebmzoo.data.digits import digits
from ebmzoo.mcmc import Langevin, PerImageNoise, as_noise
from ebmzoo.methods import ECVAE, VAE, VAEBM
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE, HierarchicalVAE
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.tasks import Colorize, Inpaint, Restorer, SuperResolve, box_mask, largest_squared_gain, scattered_mask
from ebmzoo.tasks.restoration import Measured, MeasuredCode, MeasuredImage, parts_of

DOUBLE = torch.empty(0, dtype=torch.float64)


class Linear:
    """decode(z) = W z, E(x) = ½‖x − m‖²/τ²: the chain's target is a Gaussian."""

    image_shape, latent_dim, tau = (1, 4, 4), 3, 0.7

    def __init__(self):
        noise = as_noise(5)
        self.weight = noise.normal((16, 3), DOUBLE) / 2
        self.mean = noise.normal((16,), DOUBLE)

    def decode(self, z):
        return (z @ self.weight.T).view(-1, 1, 4, 4)

    def encode(self, x):
        z = x.flatten(1) @ self.weight
        return Gaussian(z, z)

    def draw_latents(self, n, noise, like):
        return noise.normal((n, self.latent_dim), like)

    def log_prior(self, z):
        return Gaussian(0 * z, 0 * z).log_prob(z)

    def energy(self, x):
        return 0.5 * (x.flatten(1) - self.mean).square().sum(1) / self.tau**2

    def test_sampler(self):
        return None, 0


def posterior(model, operator, y, sigma, weight):
    """Mean and covariance of z given y, in closed form."""
    kept = torch.stack([operator.seen(one.view(1, 1, 4, 4)).flatten() for one in torch.eye(16, dtype=torch.float64)], 1)
    a = kept @ model.weight / sigma
    b = model.weight * (weight**0.5 / model.tau)
    precision = torch.eye(3, dtype=torch.float64) + a.T @ a + b.T @ b
    right = a.T @ operator.lift(y).flatten(1).T / sigma + (b.T @ model.mean * weight**0.5 / model.tau)[:, None]
    return torch.linalg.solve(precision, right).T, torch.linalg.inv(precision)


@pytest.mark.parametrize("weight", [pytest.param(0.0, marks=pytest.mark.thorough), 2.0])
@pytest.mark.parametrize("operator", [SuperResolve(2), Inpaint(box_mask((1, 4, 4), (1, 1, 3, 4)))], ids=["sr", "box"])
def test_the_chain_seeks_the_posterior(operator, weight):
    model = Linear()
    y = operator.degrade(as_noise(1).normal((1, 1, 4, 4), DOUBLE))
    mean, covariance = posterior(model, operator, y, 0.5, weight)
    cold = Restorer(
        steps=2000, temperature=0.0, sigma=0.5, energy_temperature=1 / weight if weight else None, step_size=0.05
    )(model, operator, y)
    torch.testing.assert_close(cold.z, mean, rtol=0, atol=1e-9)
    expected = operator.complete(y, model.decode(mean))
    torch.testing.assert_close(operator.complete(y, cold.prediction), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(cold.image, expected.clamp(-1, 1), rtol=0, atol=1e-9)
    many = y.expand(4000, -1, -1, -1)
    settings = {
        "steps": 250,
        "sigma": 0.5,
        "energy_temperature": 1 / weight if weight else None,
        "step_size": 0.05,
        "start": "prior",
    }
    warm = Restorer(**settings)(model, operator, many, noise=0)
    torch.testing.assert_close(warm.z.mean(0, keepdim=True), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(warm.z.T.cov(), covariance, rtol=0, atol=0.04)


def test_a_chain_in_x_weighs_the_energy_against_what_was_measured():
    model, operator = Linear(), Inpaint(box_mask((1, 4, 4), (1, 1, 3, 4)))
    x = as_noise(2).normal((1, 1, 4, 4), DOUBLE)
    y = operator.degrade(x)
    hidden, mean = operator.hidden[0, 0], model.mean.view(4, 4)
    # Cold, the chain knows the energy alone; its least value over the hidden pixels is at its mean there.
    chain = Langevin(steps=400, step_size=0.4, temperature=0.0)
    cold = Restorer(steps=3, x_sampler=chain)(model, operator, y, noise=0)
    torch.testing.assert_close(cold.prediction[0, 0], mean)
    torch.testing.assert_close(cold.image[0, 0], torch.where(hidden, mean, x[0, 0]).clamp(-1, 1))
    # At a temperature it draws from exp(-E/T) N(y; x, sigma^2) over visible pixels, from exp(-E/T) over hidden ones.
    temperature, sigma = 0.5, 0.6
    chain = Langevin(steps=60, step_size=0.1, temperature=temperature)
    many = y.expand(3000, -1, -1, -1)
    warm = Restorer(steps=3, sigma=sigma, x_sampler=chain)(model, operator, many, noise=0)
    visible = (~hidden).double()
    precision = 1 / (model.tau**2 * temperature) + visible / sigma**2
    expected = (mean / (model.tau**2 * temperature) + visible * x[0, 0] / sigma**2) / precision
    torch.testing.assert_close(warm.prediction.mean((0, 1)), expected, rtol=0, atol=0.06)
    torch.testing.assert_close(warm.prediction[:, 0].var(0), 1 / precision, rtol=0.15, atol=0)
    assert warm.prediction.abs().max() > 1
    assert torch.equal(warm.image[:, 0, ~hidden], many[:, 0, ~hidden].clamp(-1, 1))
    assert torch.equal(warm.image[:, 0, hidden], warm.prediction[:, 0, hidden].clamp(-1, 1))


def test_the_step_follows_the_generators_gain():
    model = Linear()
    exact = torch.linalg.svdvals(model.weight)[0].square().item()
    z = torch.zeros(4, 3, dtype=torch.float64)
    assert largest_squared_gain(model.decode, z, rounds=60) == pytest.approx(exact, rel=1e-9)
    operator = SuperResolve(2)
    y = operator.degrade(as_noise(1).normal((2, 1, 4, 4), DOUBLE))
    rough = largest_squared_gain(model.decode, z)
    assert rough == pytest.approx(exact, rel=0.05)
    chosen = Restorer(steps=4, sigma=0.2)(model, operator, y, noise=0)
    given = Restorer(steps=4, sigma=0.2, step_size=2 * 0.2**2 / rough)(model, operator, y, noise=0)
    torch.testing.assert_close(chosen.z, given.z)


def tiny(kind=ECVAE, shape=(1, 8, 8), **settings):
    torch.manual_seed(0)
    small = {"width": 32, "depth": 1}
    parts = {"encoder": partial(MLPEncoder, **small), "decoder": partial(MLPDecoder, **small)}
    energy = {"energy": partial(MLPEnergy, **small)} if kind is ECVAE else {}
    return kind(shape, partial(GaussianVAE, **parts, latent_dim=6), **energy, **settings).eval()


TASKS = {
    "colorize": Colorize(),
    "superres": SuperResolve(4),
    "box": Inpaint(box_mask((3, 8, 8), (2, 2, 7, 6))),
    "blocks": Inpaint(scattered_mask((3, 8, 8), 0.4, as_noise(0), 5)),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_was_given_is_kept(name):
    model = tiny(shape=(3, 8, 8))
    chain = Langevin(steps=5, step_size=0.1, temperature=1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = digits("test")[0][:15].view(5, 3, 8, 8)
    y = TASKS[name].degrade(x)
    found = Restorer(steps=5, x_sampler=chain)(model, TASKS[name], y, noise=0)
    exact = TASKS[name].complete(y, found.prediction)
    assert (TASKS[name].degrade(exact) - y).abs().max() <= 1e-5
    assert torch.equal(found.image, exact.clamp(-1, 1))
    assert not torch.equal(found.latent, found.start) and not torch.equal(found.prediction, found.latent)
    with torch.no_grad():
        torch.testing.assert_close(found.latent, model.decode(found.z))
        torch.testing.assert_close(found.start, model.decode(model.encode(TASKS[name].lift(y))[0]))
    assert not found.image.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_it_works_in_inference_mode_and_repeats():
    model, operator = tiny(), SuperResolve(2)
    with torch.inference_mode():
        y = operator.degrade(digits("test")[0][:3])
        first = Restorer(steps=3)(model, operator, y, noise=1).image
    again = Restorer(steps=3)(model, operator, y.clone(), noise=1).image
    assert torch.equal(first, again)
    assert not torch.equal(first, Restorer(steps=3)(model, operator, y.clone(), noise=2).image)


@pytest.mark.parametrize("start", ["inferred", "prior"])
def test_an_image_does_not_depend_on_its_batch(start):
    model, operator = tiny(), SuperResolve(2)
    y = operator.degrade(digits("test")[0][:4])
    restorer = Restorer(steps=10, start=start)
    whole = restorer(model, operator, y, noise=PerImageNoise.of_rows(0, range(4))).image
    part = restorer(model, operator, y[2:3], noise=PerImageNoise.of_rows(0, [2])).image
    torch.testing.assert_close(whole[2:3], part, rtol=0, atol=1e-5)


@pytest.mark.parametrize("vae", ["hierarchy", "one vector"])
def test_vaebms_latents_have_one_prior(vae):
    torch.manual_seed(0)

    def make(shape):
        if vae == "hierarchy":
            return HierarchicalVAE(shape, width=4, scales=2, groups=2, latents=2, cells=1)
        return GaussianVAE(shape, MLPEncoder, MLPDecoder, latent_dim=6)

    model = VAEBM((1, 8, 8), make, lambda shape: MLPEnergy(shape, width=8, depth=1)).eval()
    shapes = model.vae.noise_shapes
    rows = range(3)
    noise = PerImageNoise.of_rows(0, rows)
    white = [noise.normal((3, *shape)) for shape in shapes]
    with torch.no_grad():
        whole = model.vae.generate(*white)
        z = model.draw_latents(3, PerImageNoise.of_rows(0, rows), torch.empty(0))
        torch.testing.assert_close(model.decode(z), whole.mean)
        normals = [torch.distributions.Normal(mean, log_sigma.exp()) for mean, log_sigma in whole.prior]
        pairs = zip(whole.z, normals, strict=True)
        expected = sum(normal.log_prob(group).expand_as(group).flatten(1).sum(1) for group, normal in pairs)
        torch.testing.assert_close(model.log_prior(z), expected)
    found = Restorer.of(model)
    assert found.energy_temperature == 1.0 and found.x_sampler is None


class Dual(Linear):
    """A model that infers by a chain of its own, as Dual-MCMC does."""

    latent_sampler, precision = Langevin(steps=10, step_size=0.01), 1 / 0.3**2

    def test_sampler(self):
        return Langevin(steps=30, step_size=0.25, temperature=4e-6), 30


def test_each_method_has_the_procedure_of_its_paper():
    assert Restorer.of(tiny()) == Restorer(energy_temperature=1e-5)  # the training chain's
    assert Restorer.of(tiny(VAE)) == Restorer()
    refine = Langevin(steps=4, step_size=0.1)
    assert Restorer.of(tiny(refine=refine)) == Restorer(energy_temperature=1e-5, x_sampler=refine, x_steps=4)
    dual = Restorer.of(Dual())
    assert (dual.steps, dual.step_size, dual.temperature, dual.energy_temperature) == (100, 0.01, 0.0, None)
    assert dual.sigma == pytest.approx(0.3) and dual.x_sampler == Dual().test_sampler()[0] and dual.x_steps == 4


def test_a_code_at_temperature_0_restores_better_than_a_draw_by_the_variance_of_the_posterior():
    """Of predictions by a linear generator: E‖W(z − mode)‖² = T·tr(W Σ Wᵀ)."""
    model, operator = Dual(), Inpaint(box_mask((1, 4, 4), (1, 1, 3, 4)))
    y = operator.degrade(as_noise(1).normal((1, 1, 4, 4), DOUBLE)).expand(4000, -1, -1, -1)
    default = replace(Restorer.of(model), x_sampler=None)
    mode, covariance = posterior(model, operator, y[:1], default.sigma, 0.0)
    excess = {
        temperature: (replace(default, temperature=temperature)(model, operator, y, noise=0).z - mode) @ model.weight.T
        for temperature in (0.0, 1.0)
    }
    assert excess[0.0].square().sum(1).max() < 1e-3
    expected = (model.weight @ covariance @ model.weight.T).trace().item()
    assert excess[1.0].square().sum(1).mean().item() == pytest.approx(expected, rel=0.1)


def test_what_cannot_be():
    operator, y = SuperResolve(2), torch.zeros(2, 1, 4, 4)
    with pytest.raises(TypeError, match=r"needs an energy \(or no energy_temperature\), which VAE does not have"):
        Restorer(energy_temperature=1.0)(tiny(VAE), operator, y)
    with pytest.raises(TypeError, match="needs a generator from latent codes with a prior, which Linear does not have"):
        Restorer()(torch.nn.Linear(1, 1), operator, y)
    with pytest.raises(ValueError, match=r"superres takes images \(1, 4, 4\) here, not \(1, 8, 8\)"):
        Restorer()(tiny(), operator, torch.zeros(2, 1, 8, 8))
    for wrong in ({"sigma": 0.0}, {"energy_temperature": 0.0}, {"steps": -1}, {"step_size": 0.0}):
        with pytest.raises(ValueError):
            Restorer(**wrong)


@pytest.mark.parametrize("temperature", [None, 1e-2])
def test_chains_of_a_method_can_be_recorded_to_the_last_bit(temperature):
    torch.manual_seed(0)
    vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=partial(MLPDecoder, width=8), latent_dim=3)
    model = ECVAE((1, 4, 4), vae, partial(MLPEnergy, width=8))
    operator = Inpaint(box_mask((1, 4, 4), (1, 1, 3, 4)))
    measured = Measured(operator, operator.lift(torch.rand(5, 1, 4, 4)), 0.3)
    generator, energy = parts_of(model)
    ends = []
    for backend in ("eager", "trace"):  # which refuses what it cannot record
        chain = Langevin(steps=4, step_size=1e-3, backend=backend)
        z = chain(MeasuredCode(generator, energy, measured, temperature), torch.ones(5, 3), noise=1).x
        ends.append((z, chain(MeasuredImage(energy, measured, 1e-2), model.decode(z), noise=2).x))
    assert all(map(torch.equal, *ends))
