"""EC-VAE: each loss, chain and dual step against the paper's formulas written out here, in float64, to 1e-10."""

import copy

import pytest
import torch
from torch.distributions import Normal
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECVAE, VAE
from ebmzoo.networks import FlowPrior, RandomFeatures
from ebmzoo.parts import CalibratedPosterior, Calibration, Energy, Pairs
from ebmzoo.parts.objectives import EnergyL2, GradientPenalty

from .by_hand import (
    ENERGY,
    LATENT,
    SHAPE,
    apply,
    assert_moved,
    assert_same,
    error,
    gradients,
    kl_to_white,
    langevin,
    log_normal,
    made,
    moved,
    negative_elbo,
    steps_of,
    vae_of,
)  # fmt: skip

CHAIN = (3, 0.2, 1e-2)  # steps, s, T


def ecvae(vae=None, energy=ENERGY, rate=1.0, **settings):
    defaults = {
        "calibration": spec(Calibration, weight=2.5, rate=0.1, margin=1.5),
        "sampler": Langevin(*CHAIN),
        "vae_optimizer": spec(SGD, lr=rate),
        "energy_optimizer": spec(SGD, lr=rate),
    }
    return made(ECVAE, vae_of(kl_weight=0.3, **(vae or {})), energy, **{**defaults, **settings})


def stirred(method):
    """The method with its flow prior moved: couplings begin as constants, which would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.vae.prior.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return method


def revise(before, noise, x, weight=1.0, prior=None):
    """z, x̂ and x̃: Eq. 1 in the normal form with s = 0.2, T = 1e-2."""
    z = noise.normal((8, LATENT), x)
    z = z if prior is None else prior.sample(z).detach()
    generated = before.vae.decoder(z)
    origin = generated.detach()
    revised = langevin(lambda x: before.ebm(x) + 1e-2 * weight * 0.5 * error(x, origin), origin, noise, *CHAIN)
    return z, generated, revised


def ascended(d, floor, weight=2.5):
    return weight + 0.1 * (d.detach().mean() / floor - 1.5) / 1.5


FLOOR = 3 * 0.2 * 1e-2 * 64


def test_losses_chain_and_dual_step(fit, digits):
    energy = spec(Energy, network=ENERGY, data_noise=0.1, penalties=[EnergyL2(0.2), GradientPenalty(0.3)])
    method = ecvae(energy=energy, condition_weight=50.0)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    _, generated, revised = revise(before, noise, digits, weight=50.0)
    noisy = (digits + 0.1 * noise.normal(digits.shape, digits)).requires_grad_(True)
    energy_data, energy_model = before.ebm(noisy), before.ebm(revised)
    # The penalty on slopes is taken at the data as the energy sees them, with their noise.
    (slope,) = torch.autograd.grad(energy_data.sum(), noisy, create_graph=True)
    loss = energy_data.mean() - energy_model.mean()
    loss = loss + 0.2 * (energy_data**2 + energy_model**2).mean() + 0.3 * (slope**2).sum((1, 2, 3)).mean()
    assert_moved(before.ebm, method.ebm, loss)

    d = error(generated, revised)
    loss = 2.5 * d.mean() / (2 * before.vae.log_sigma.exp() ** 2)
    loss = loss + negative_elbo(before.vae, digits, noise.normal((8, LATENT), digits), kl_weight=0.3)
    assert_moved(before.vae, method.vae, loss)
    torch.testing.assert_close(method.calibration.weight, ascended(d, FLOOR), rtol=1e-10, atol=0)


def test_a_chain_without_its_condition(fit, digits):
    method = ecvae(condition_weight=0.0)
    before = copy.deepcopy(method)
    fit(method, [digits])
    _, _, revised = revise(before, as_noise(5), digits, weight=0.0)
    assert_moved(before.ebm, method.ebm, before.ebm(digits).mean() - before.ebm(revised).mean())


def test_a_learned_sigma_learns_from_the_bound_alone(fit, digits):
    """The pull has no term that would keep σ from growing."""
    method = ecvae(vae={"sigma": "learned"}, rate=1e-2)
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    revise(before, noise, digits)
    loss = negative_elbo(before.vae, digits, noise.normal((8, LATENT), digits), kl_weight=0.3)
    (gradient,) = torch.autograd.grad(loss, before.vae.log_sigma)
    torch.testing.assert_close(before.vae.log_sigma - method.vae.log_sigma, 1e-2 * gradient, rtol=1e-10, atol=0)


@pytest.mark.parametrize("memory", [0, 12])
def test_several_updates_take_the_newest_pairs_anew_and_the_dual_step_this_chains(fit, digits, memory):
    """Two iterations of three updates each, written out."""
    rate = 1e-3
    method = ecvae(pairs=spec(Pairs, updates=3, memory=memory), rate=rate)
    model = copy.deepcopy(method)
    batches = [digits, digits.flip(0)]
    assert fit(method, batches).global_step == 2  # one clock step an iteration, however many updates

    noise, codes, ends, weight = as_noise(5), torch.zeros(0, LATENT).double(), torch.zeros(0, *SHAPE).double(), 2.5
    for x in batches:
        z, generated, revised = revise(model, noise, x)
        apply(steps_of(model.ebm(x).mean() - model.ebm(revised).mean(), model.ebm, rate=rate))
        codes, ends = torch.cat([codes, z])[-(memory or 8) :], torch.cat([ends, revised])[-(memory or 8) :]
        d = error(generated, revised)
        for _ in range(3):
            pull = weight * error(model.vae.decoder(codes), ends).mean() / (2 * model.vae.log_sigma.exp() ** 2)
            loss = pull + negative_elbo(model.vae, x, noise.normal((8, LATENT), x), kl_weight=0.3)
            apply(steps_of(loss, model.vae, rate=rate))
        weight = ascended(d, FLOOR, weight)
    for found, expected in zip(method.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(method.calibration.weight, weight, rtol=1e-10, atol=0)
    if memory:  # a ring: the order is the buffer's own
        leaves = method.pairs.buffer.leaves
        for leaf, expected in zip(leaves, (codes, ends), strict=True):
            torch.testing.assert_close(leaf.flatten(1).sum(1).sort()[0], expected.flatten(1).sum(1).sort()[0])


def test_fresh_chains_are_the_vaes_own_under_the_updated_energy(fit, digits):
    method = ecvae(fresh_chains=True)
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    _, _, revised = revise(before, noise, digits)
    assert_moved(before.ebm, method.ebm, before.ebm(digits).mean() - before.ebm(revised).mean())
    between = copy.deepcopy(before)
    between.ebm = method.ebm
    _, generated, revised = revise(between, noise, digits)
    d = error(generated, revised)
    loss = 2.5 * d.mean() / (2 * between.vae.log_sigma.exp() ** 2)
    loss = loss + negative_elbo(between.vae, digits, noise.normal((8, LATENT), digits), kl_weight=0.3)
    assert_moved(between.vae, method.vae, loss)
    torch.testing.assert_close(method.calibration.weight, ascended(d, FLOOR), rtol=1e-10, atol=0)


def test_a_warm_start_is_the_vae(fit, digits):
    method = ecvae(vae_steps=2)
    plain = made(VAE, vae_of(kl_weight=0.3), optimizer=spec(SGD, lr=1.0))
    plain.vae.load_state_dict(method.vae.state_dict())
    energy = copy.deepcopy(method.ebm)
    told = []
    for model in (method, plain):
        model.noise = as_noise(3)
        told.append(fit(model, [0.1 * digits, 0.1 * digits]).callback_metrics["train/loss_vae"])
    assert told[0] == told[1]
    for name, value in plain.vae.state_dict().items():
        torch.testing.assert_close(method.vae.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(energy.parameters(), method.ebm.parameters(), strict=True))
    assert method.calibration.weight == 2.5


# -- the extensions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow_prior", [False, True], ids=["white prior", "flow prior"])
def test_posterior_loss_chain_and_dual_step(fit, digits, flow_prior):
    chain = (4, 0.02, 0.7)
    posterior = spec(
        CalibratedPosterior, sampler=Langevin(*chain), condition_weight=3.0, weight=1.5, rate=0.1, margin=0.4
    )
    method = ecvae({"prior": spec(FlowPrior, steps=1, width=4)} if flow_prior else {}, posterior=posterior)
    if flow_prior:
        stirred(method)
    before = copy.deepcopy(method)
    fit(method, [digits])
    vae = before.vae

    def log_prior(z):
        return vae.prior.log_prob(z) if flow_prior else log_normal(z, 0.0, 1.0)

    noise, sigma = as_noise(5), vae.log_sigma.exp()
    _, generated, revised = revise(before, noise, digits, prior=vae.prior)
    mean, log_variance = vae.encoder(digits)
    code = mean + (0.5 * log_variance).exp() * noise.normal((8, LATENT), digits)
    start = code.detach()

    def u(z):
        return 0.5 * 0.7 * 3.0 * error(z, start) - log_normal(digits, vae.decoder(z), sigma) - log_prior(z)

    calibrated = langevin(u, start, noise, *chain)
    # KL: the draw's log p where a flow is the prior, exact otherwise; the posterior's entropy is exact in both.
    q = Normal(mean, (0.5 * log_variance).exp())
    kl = -q.entropy().sum(1) - log_prior(code) if flow_prior else kl_to_white(mean, log_variance)
    d, d_code = error(generated, revised), error(code, calibrated)
    # The likelihood's constants have no gradient: with them or without, σ being fixed.
    loss = ((2.5 * d + error(vae.decoder(code), digits)) / (2 * sigma**2) + 0.3 * kl + 1.5 * 0.5 * d_code).mean()
    for part in ("encoder", "decoder", *(["prior"] if flow_prior else [])):
        found = moved(getattr(vae, part), getattr(method.vae, part))
        assert_same(found, gradients(loss, getattr(vae, part)))
    # The calibration of the posterior reaches the encoder alone.
    reached = torch.autograd.grad(d_code.mean(), list(vae.parameters()), allow_unused=True, retain_graph=True)
    names = {n.split(".")[0] for (n, _), g in zip(vae.named_parameters(), reached, strict=True) if g is not None}
    assert names == {"encoder"}
    expected = 1.5 + 0.1 * (d_code.mean() / (4 * 0.02 * 0.7 * LATENT) - 0.4) / 0.4
    torch.testing.assert_close(method.posterior.weight, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(method.calibration.weight, ascended(d, FLOOR), rtol=1e-10, atol=0)


def test_a_flow_prior_is_sampled_and_bounds_the_likelihood(digits):
    method = stirred(ecvae({"prior": spec(FlowPrior, steps=2, width=4)})).eval()
    single, xi = copy.deepcopy(method).float(), as_noise(3).normal((5, LATENT), torch.empty(0))
    expected = single.decode(single.vae.prior.sample(xi)).detach()
    torch.testing.assert_close(single.sample(5, noise=3), expected.clamp(-1, 1))
    one = torch.stack([method.log_likelihood_bound(digits, 1, noise=seed) for seed in range(60)]).mean(0)
    exact = torch.stack([method.elbo(digits, as_noise(seed)).bound for seed in range(60)]).mean(0)
    torch.testing.assert_close(one, exact, rtol=1e-2, atol=1.0)


def test_another_distance_stands_for_the_squared_error_in_the_loss_alone(fit, digits):
    method = ecvae({"distance": spec(RandomFeatures, width=4, weight=30.0)}, vae_steps=1)
    before = copy.deepcopy(method)
    fit(method, [digits])
    mean, log_variance = before.vae.encoder(digits)
    code = mean + (0.5 * log_variance).exp() * as_noise(5).normal((8, LATENT), digits)
    distance = RandomFeatures(SHAPE, width=4, weight=30.0).double()
    far = distance(before.vae.decoder(code), digits)
    loss = (far / (2 * before.vae.log_sigma.exp() ** 2) + 0.3 * kl_to_white(mean, log_variance)).mean()
    assert_moved(before.vae.decoder, method.vae.decoder, loss)
    plain = ecvae()
    plain.load_state_dict(before.state_dict())  # nothing of the distance is in a checkpoint
    assert torch.equal(plain.elbo(digits, as_noise(0)).bound, before.elbo(digits, as_noise(0)).bound)


# -- what it answers --------------------------------------------------------------------------------------------------


def test_samples_one_step_or_with_a_chain_at_its_own_temperature():
    method = ecvae(sampler=Langevin(3, 0.5, 1e-2)).eval()
    assert method.test_sampler() == (None, 0)
    noise = as_noise(0)
    start = method.vae.decoder(noise.normal((4, LATENT), torch.zeros(0).double())).detach()
    torch.testing.assert_close(method.sample(4, noise=0), start.clamp(-1, 1), rtol=1e-12, atol=0)
    # The tether of a test chain is that of its own T, not the training's.
    refined = ecvae(sampler=Langevin(3, 0.5, 1e-2), refine=Langevin(3, 0.5, 0.25), condition_weight=2.0).eval()
    assert refined.test_sampler() == (Langevin(3, 0.5, 0.25), 3)
    end = langevin(lambda x: refined.ebm(x) + 0.25 * 2.0 * 0.5 * error(x, start), start, noise, 3, 0.5, 0.25)
    torch.testing.assert_close(refined.sample(4, noise=0), end.clamp(-1, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(method.sample(4, steps=0, noise=0), refined.sample(4, steps=0, noise=0))
    # Without a test chain, steps that are asked for are the training chain's.
    noise = as_noise(0)
    noise.normal((4, LATENT), torch.zeros(0).double())
    end = langevin(lambda x: method.ebm(x) + 1e-2 * 0.5 * error(x, start), start, noise, 2, 0.5, 1e-2)
    torch.testing.assert_close(method.sample(4, steps=2, noise=0), end.clamp(-1, 1), rtol=1e-10, atol=1e-10)


def test_energy_score_and_density(digits):
    method = ecvae()
    energy = method.ebm.network(digits).squeeze().detach()
    torch.testing.assert_close(method.energy(digits), energy)
    torch.testing.assert_close(method.score(digits), -energy)
    torch.testing.assert_close(method.log_density(digits), -energy / 1e-2)


def test_held_out_data_are_told_by_the_parts(digits):
    method = ecvae()
    found = method.validate(digits, as_noise(2))
    assert set(found) == {"elbo", "mse", "energy_data"}
    torch.testing.assert_close(found["mse"], error(method.reconstruct(digits), digits) / 64)
    torch.testing.assert_close(found["elbo"], method.elbo(digits, as_noise(2)).bound)
    torch.testing.assert_close(found["energy_data"], method.energy(digits))


def test_parts_are_rebuilt_from_hyper_parameters():
    vae = vae_of(prior=FlowPrior)
    method = ECVAE(SHAPE, vae, ENERGY, posterior=CalibratedPosterior)
    assert method.hparams["posterior"] == {"class_path": "ebmzoo.parts.posterior.CalibratedPosterior"}
    assert method.hparams["vae"]["init_args"]["prior"] == {"class_path": "ebmzoo.networks.flow.FlowPrior"}
    assert isinstance(method.vae.prior, FlowPrior) and isinstance(method.posterior, CalibratedPosterior)
    (vae,) = method.players()["vae"][0]
    assert {id(p) for p in method.vae.prior.parameters()} <= {id(p) for p in vae.parameters()}
