"""EC-VAE's extensions: each loss and chain against the paper's formulas written out here, in float64, to 1e-10."""

import copy
import math

import pytest
import torch
from torch.optim import SGD

from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECVAE, CalibratedPosterior, ECFlow, Flow
from ebmzoo.factories import spec
from ebmzoo.networks import FlowPrior, Glow, MLPDecoder, MLPEnergy, RandomFeatures

from .test_losses import LATENT, NETWORKS, SHAPE, assert_same, ecvae, gradients, moved

ENERGY = spec(MLPEnergy, width=6, depth=1)
GLOW = spec(Glow, levels=2, steps=1, width=5)
LEVELS = 17


def stirred(method):
    """The method with every parameter of its flow moved: couplings begin as constants, which would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (method.flow if hasattr(method, "flow") else method.prior).parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    if hasattr(method, "flow"):
        method.flow.initialised.fill_(True)
    return method


def normal_log_prob(x, mean, sigma):
    return torch.distributions.Normal(mean, sigma).log_prob(x).flatten(1).sum(1)


def langevin(potential, state, noise, steps, step_size, temperature):
    """The chain of the normal form, written out."""
    for _ in range(steps):
        state = state.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(potential(state).sum(), state)
        state = state - 0.5 * step_size * gradient
        state = state + math.sqrt(step_size * temperature) * noise.normal(state.shape, state)
    return state.detach()


@pytest.mark.parametrize("flow_prior", [False, True], ids=["white prior", "flow prior"])
def test_posterior_loss_chain_and_dual_step(fit, digits, flow_prior):
    posterior = spec(
        CalibratedPosterior,
        sampler=Langevin(4, 0.02, 0.7),
        condition_weight=3.0,
        weight=1.5,
        dual_rate=0.1,
        dual_margin=0.4,
    )
    settings = {"prior": spec(FlowPrior, steps=1, width=4)} if flow_prior else {}
    method = ecvae(posterior=posterior, **settings)
    if flow_prior:
        stirred(method)
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    def log_prior(z):
        return before.prior.log_prob(z) if flow_prior else normal_log_prob(z, 0.0, 1.0)

    noise, sigma = as_noise(5), before.log_sigma.exp()
    with torch.no_grad():
        z = noise.normal((8, LATENT), digits)
        z = before.prior.sample(z) if flow_prior else z
    generated = before.decoder(z)
    origin = generated.detach()
    revised = langevin(
        lambda x: before.energy_network(x) + 0.5 * 1e-2 * (x - origin).square().sum((1, 2, 3)),
        *(origin, noise, 3, 0.2, 1e-2),
    )
    mean, log_variance = before.encoder(digits)
    code = mean + (0.5 * log_variance).exp() * noise.normal((8, LATENT), digits)
    start = code.detach()
    calibrated = langevin(
        lambda z: (
            0.5 * 0.7 * 3.0 * (z - start).square().sum(1)
            - normal_log_prob(digits, before.decoder(z), sigma)
            - log_prior(z)
        ),
        *(start, noise, 4, 0.02, 0.7),
    )
    # KL: the draw's log p where a flow is the prior, exact otherwise; the posterior's entropy is exact in both.
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    if flow_prior:
        kl = -q.entropy().sum(1) - log_prior(code)
    else:
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    sse = (before.decoder(code) - digits).square().sum((1, 2, 3))
    d = (generated - revised).square().sum((1, 2, 3))
    d_code = (code - calibrated).square().sum(1)
    loss = ((2.5 * d + sse) / (2 * sigma**2) + 0.3 * kl + 1.5 * 0.5 * d_code).mean()
    for name in ("encoder", "decoder", *(["prior"] if flow_prior else [])):
        parameters = list(getattr(before, name).parameters())
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        assert_same(moved(getattr(before, name), getattr(method, name)), expected)
    # The calibration of the posterior reaches the encoder alone.
    reached = torch.autograd.grad(d_code.mean(), list(before.parameters()), allow_unused=True, retain_graph=True)
    names = {
        name.split(".")[0] for (name, _), g in zip(before.named_parameters(), reached, strict=True) if g is not None
    }
    assert names == {"encoder"}

    floor = 4 * 0.02 * 0.7 * LATENT
    ascended = 1.5 + 0.1 * (d_code.mean() / floor - 0.4) / 0.4
    torch.testing.assert_close(method.posterior.weight, ascended.detach(), rtol=1e-10, atol=0)


def test_the_posterior_chain_samples_the_posterior():
    # x = A z + σ ξ has a Gaussian posterior; a long chain from the prior must find its mean and variance.
    a = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    decoder = torch.nn.Linear(2, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        decoder.weight.copy_(a)
    sigma, x = 0.5, torch.tensor([[1.0, -0.5, 0.3]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + a.T @ a / sigma**2
    mean = torch.linalg.solve(precision, a.T @ x[0] / sigma**2)
    posterior = CalibratedPosterior(Langevin(steps=150, step_size=0.02), condition_weight=0.0)
    start = torch.zeros(4000, 2, dtype=torch.float64)
    log_sigma = torch.tensor(math.log(sigma), dtype=torch.float64)
    z = posterior.revise(x.expand(4000, 3), start, decoder, log_sigma, None, noise=0)
    # The chain's own variance is that of U/(1 − s·precision/4).
    step = torch.eye(2, dtype=torch.float64) - 0.005 * precision
    covariance = torch.linalg.inv(precision @ step)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=5 * (covariance.diag().max() / 4000).sqrt().item())
    torch.testing.assert_close(torch.cov(z.T), covariance, rtol=0, atol=0.1 * covariance.diag().max().item())


def test_a_flow_prior_is_sampled_and_bounds_the_likelihood():
    method = stirred(ecvae(prior=spec(FlowPrior, steps=2, width=4))).eval()
    single, xi = copy.deepcopy(method).float(), as_noise(3).normal((5, LATENT), torch.empty(0))
    torch.testing.assert_close(single.sample(5, noise=3), single.decode(single.prior.sample(xi)))
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    one = torch.stack([method.log_likelihood_bound(x, 1, noise=seed) for seed in range(300)]).mean(0)
    exact = torch.stack([method.elbo(x, as_noise(seed)).bound for seed in range(300)]).mean(0)
    torch.testing.assert_close(one, exact, rtol=0.02, atol=0.5)
    assert (method.log_likelihood_bound(x, 200, noise=0) > exact).all()


def test_a_distance_stands_for_the_squared_error_in_the_loss_alone(fit, digits):
    method = ecvae(distance=spec(RandomFeatures, width=4, weight=30.0), dual_rate=0.0, calibration_weight=0.0)
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    noise.normal((8, LATENT), digits), [noise.normal(digits.shape, digits) for _ in range(3)]
    mean, log_variance = before.encoder(digits)
    code = mean + (0.5 * log_variance).exp() * noise.normal((8, LATENT), digits)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    distance = RandomFeatures(SHAPE, width=4, weight=30.0).double()
    loss = (distance(before.decoder(code), digits) / (2 * before.log_sigma.exp() ** 2) + 0.3 * kl).mean()
    assert_same(moved(before.decoder, method.decoder), gradients(loss, before.decoder))
    plain = ecvae()
    plain.load_state_dict(before.state_dict())  # nothing of the distance is in a checkpoint
    assert torch.equal(plain.elbo(digits, as_noise(0)).bound, before.elbo(digits, as_noise(0)).bound)


def ecflow(**settings):
    defaults = {
        "levels": LEVELS,
        "sampler": Langevin(3, 0.2, 1e-2),
        "sigma": 0.4,
        "calibration_weight": 2.5,
        "dual_rate": 0.1,
        "dual_margin": 1.5,
        "flow_optimizer": spec(SGD, lr=1.0),
        "energy_optimizer": spec(SGD, lr=1.0),
    }
    return stirred(ECFlow(SHAPE, GLOW, ENERGY, **{**defaults, **settings}).double())


def test_ecflow_losses_chain_and_dual_step(fit, digits):
    method = ecflow(condition_weight=50.0)
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    x = digits + 0.125 * (noise.uniform(digits.shape, digits) - 0.5)
    generated = before.flow.sample(noise.normal((8, 64), digits))
    origin = generated.detach()
    revised = langevin(
        lambda x: before.energy_network(x) + 0.5 * 1e-2 * 50.0 * (x - origin).square().sum((1, 2, 3)),
        *(origin, noise, 3, 0.2, 1e-2),
    )
    loss = before.energy_network(x).mean() - before.energy_network(revised).mean()
    assert_same(moved(before.energy_network, method.energy_network), gradients(loss, before.energy_network))
    z, log_det = before.flow(x)
    d = (generated - revised).square().sum((1, 2, 3))
    loss = (2.5 * d / (2 * before.log_sigma.exp() ** 2) - normal_log_prob(z, 0.0, 1.0) - log_det).mean()
    actual, expected = moved(before.flow, method.flow), gradients(loss, before.flow)
    largest = max(gradient.abs().max() for gradient in expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a / largest, e / largest, rtol=1e-10, atol=1e-10)
    expected = 2.5 + 0.1 * (d.mean() / (3 * 0.2 * 1e-2 * 64) - 1.5) / 1.5
    torch.testing.assert_close(method.calibration_weight, expected.detach(), rtol=1e-10, atol=0)


def test_ecflow_begins_as_the_flow(fit, digits):
    method = ecflow(flow_steps=2, flow_optimizer=spec(SGD, lr=1e-4))
    plain = Flow(SHAPE, GLOW, levels=LEVELS, optimizer=spec(SGD, lr=1e-4)).double()
    plain.flow.load_state_dict(method.flow.state_dict())
    energy = copy.deepcopy(method.energy_network)
    for model in (method, plain):
        model.noise = as_noise(3)
        fit(model, [digits, digits])
    for a, b in zip(method.flow.parameters(), plain.flow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(energy.parameters(), method.energy_network.parameters(), strict=True))


def test_ecflow_samples_the_flow_or_its_chain_at_the_datas_levels():
    method = ecflow().eval().float()
    start = method.flow.sample(as_noise(0).normal((4, 64), torch.empty(0)))
    levels = 8 * (method.sample(4, noise=0) + 1)
    torch.testing.assert_close(levels, (8 * (start.clamp(-1, 1) + 1)).round(), rtol=0, atol=1e-4)
    frames = []
    with torch.inference_mode():
        revised = method.sample(4, steps=3, noise=0, watch=lambda step, state: frames.append(state.x))
    assert len(frames) == 3 and not torch.equal(8 * (revised + 1), levels)
    torch.testing.assert_close(frames[0], start)
    with pytest.raises(ValueError, match="no chain"):
        Flow(SHAPE, GLOW).sample(1, steps=2)


def test_bits_per_dimension_of_a_flow_that_is_right_about_uniform_levels():
    # Images whose pixels are independent and uniform over the levels have log2(levels) bits a dimension. A flow with
    # the density of the dequantised pixels, uniform over levels·step, is right about them.
    class Uniform(torch.nn.Module):
        def log_prob(self, x):
            return x.new_full((len(x),), -64 * math.log(LEVELS * 2 / (LEVELS - 1)))

    method = Flow(SHAPE, lambda shape: Uniform(), levels=LEVELS)
    x = (torch.randint(LEVELS, (5, *SHAPE), generator=torch.Generator().manual_seed(0)) / 8 - 1).float()
    bits = method.bits_per_dim(method.log_likelihood_bound(x, 3, noise=0))
    torch.testing.assert_close(bits, torch.full((5,), math.log2(LEVELS)))
    noisy = method.dequantise(x, as_noise(0))
    assert (noisy - x).abs().max() <= 1 / 16 and (noisy - x).abs().max() > 0.06
    torch.testing.assert_close(method.quantise(noisy), x, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="at least 2 grey levels, not 1"):
        Flow(SHAPE, GLOW, levels=1)


def test_classes_of_the_extensions_are_rebuilt_from_hyper_parameters():
    method = ECVAE(SHAPE, **NETWORKS, energy=ENERGY, latent_dim=LATENT, posterior=CalibratedPosterior, prior=FlowPrior)
    assert method.hparams["posterior"] == {"class_path": "ebmzoo.methods.ecvae_posterior.CalibratedPosterior"}
    assert isinstance(method.prior, FlowPrior) and isinstance(method.decoder, MLPDecoder)
    assert {id(p) for p in method.prior.parameters()} <= {
        id(p) for network in method.players()["vae"][0] for p in network.parameters()
    }
