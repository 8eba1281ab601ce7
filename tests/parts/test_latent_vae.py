"""What every VAE is: one pass from noise to x, codes in one row, its bound and its loss against torch.distributions."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ebmzoo.factories import parameters_of
from ebmzoo.mcmc import as_noise
from ebmzoo.networks import FlowPrior, MLPDecoder

from .vaes import KINDS, batch, gaussian, hierarchical


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def vae(request):
    return request.param()


def test_white_noise_latents_and_x_are_one_pass(vae):
    x, draw = batch()
    inferred = vae.infer(x, draw)
    for again in (vae.generate(*inferred.noise), vae.evaluate(*inferred.z)):
        for a, b in zip(again.z, inferred.z, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(again.mean, inferred.mean, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(again.x.log_sigma, inferred.x.log_sigma, rtol=1e-10, atol=1e-10)
        assert not again.posterior
    assert [tuple(z.shape[1:]) for z in inferred.z] == list(vae.noise_shapes)
    (mean, log_sigma), noise = inferred.posterior[-1], as_noise(0)
    for shape in vae.noise_shapes:  # what the last group was drawn with
        last = noise.normal((6, *shape), x)
    torch.testing.assert_close(inferred.z[-1], mean + log_sigma.exp() * last)


def test_encode_and_decode_are_flat(vae):
    x, _ = batch()
    mean, log_sigma = vae.encode(x)
    assert mean.shape == log_sigma.shape == (6, vae.latent_dim)
    at_means = vae.infer(x, lambda shape: x.new_zeros(tuple(shape)))
    torch.testing.assert_close(mean, torch.cat([z.flatten(1) for z in at_means.z], 1))
    torch.testing.assert_close(vae.decode(mean), at_means.mean)
    sigmas = torch.cat([log_sigma.flatten(1) for _, log_sigma in at_means.posterior], 1)
    torch.testing.assert_close(log_sigma, sigmas)


def test_the_generator_is_what_generate_needs(vae):
    own = {id(p) for p in parameters_of(vae.generator())}
    noise = [torch.randn(2, *shape).double() for shape in vae.noise_shapes]
    latents = vae.generate(*noise)
    loss = latents.mean.square().sum() + latents.x.log_sigma.square().sum()
    grads = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)
    reached = {id(p) for p, grad in zip(vae.parameters(), grads, strict=True) if grad is not None}
    assert reached == own


def test_every_parameter_learns_and_examples_do_not_meet(vae):
    x, draw = batch()
    found = vae.infer(x, draw)
    loss = found.mean.square().sum() + found.x.log_sigma.square().sum() + vae.regularisation()
    for (mean, log_sigma), (other, prior) in zip(found.posterior, found.prior, strict=True):
        loss = loss + (mean - other).square().sum() + (log_sigma - prior).square().sum()
    loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    torch.testing.assert_close(vae.encode(x[2:3])[0], vae.encode(x)[0][2:3], rtol=1e-10, atol=1e-12)


def test_nothing_moves_in_eval_mode_and_the_state_dict_carries_all():
    vae = hierarchical()
    x, _ = batch()
    before = copy.deepcopy(vae.state_dict())
    first, second = vae.encode(x)[0], vae.encode(x)[0]
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    other = hierarchical(width=4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.3)
    other.load_state_dict(before)
    assert torch.equal(other.encode(x)[0], first)


def test_readjusted_statistics_are_those_of_the_samples():
    vae = gaussian(decoder=partial(MLPDecoder, width=9, depth=1, norm="batch"))
    kept = copy.deepcopy(vae.state_dict())
    noise, like = as_noise(1), torch.empty(0).double()
    other = vae.readjusted(0.7, lambda shape: noise.normal(shape, like), batch=16, passes=3)
    again = as_noise(1)
    linear = vae.decoder.net[0]
    outputs = [linear(0.7 * again.normal((16, 5), like)) for _ in range(3)]
    norm = other.decoder.net[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([y.mean(0) for y in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([y.var(0) for y in outputs]).mean(0))
    assert not other.training and not norm.training
    assert all(torch.equal(value, kept[name]) for name, value in vae.state_dict().items())


# -- the bound --------------------------------------------------------------------------------------------------------


def normal(gaussian):
    return Normal(gaussian.mean, gaussian.log_sigma.exp())


def total(values):
    return values.flatten(1).sum(1)


def test_the_bound_and_its_pieces_are_torchs(vae):
    x, draw = batch(1)
    found = vae.infer(x, draw)
    bound = vae.bound(x, as_noise(1))
    torch.testing.assert_close(bound.latents.z[0], found.z[0])
    likelihood = total(normal(found.x).log_prob(x))
    torch.testing.assert_close(bound.log_likelihood, likelihood, rtol=1e-10, atol=1e-10)
    kl = [total(kl_divergence(normal(q), normal(p))) for q, p in zip(found.posterior, found.prior, strict=True)]
    torch.testing.assert_close(bound.kl, torch.stack(kl), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(bound.bound, likelihood - sum(kl), rtol=1e-10, atol=1e-10)
    prior, posterior = (
        sum(total(normal(g).log_prob(z)) for z, g in zip(found.z, groups, strict=True))
        for groups in (found.prior, found.posterior)
    )
    torch.testing.assert_close(vae.log_joint(x, found), likelihood + prior, rtol=1e-10, atol=1e-10)
    flat = torch.cat([z.flatten(1) for z in found.z], 1)
    torch.testing.assert_close(vae.log_prior(flat), prior, rtol=1e-10, atol=1e-10)
    one = vae.log_likelihood_bound(x, 1, as_noise(1))
    torch.testing.assert_close(one, likelihood + prior - posterior, rtol=1e-10, atol=1e-10)


def test_the_importance_weighted_bound_averages_weights(vae):
    x, _ = batch(1)
    noise = as_noise(4)
    weights = torch.stack([vae.log_likelihood_bound(x, 1, noise) for _ in range(3)])
    found = vae.log_likelihood_bound(x, 3, as_noise(4))
    torch.testing.assert_close(found, torch.logsumexp(weights, 0) - math.log(3), rtol=1e-10, atol=1e-10)


def test_the_loss_weighs_the_divergence_and_warms_it_up(vae):
    x, _ = batch(1)
    vae.kl_weight = 0.3
    bound = vae.bound(x, as_noise(1))
    expected = (0.3 * bound.kl.sum(0) - bound.log_likelihood).mean()
    torch.testing.assert_close(vae.loss(x, bound), expected, rtol=1e-12, atol=0)
    sizes = torch.tensor([math.prod(shape) for shape in vae.noise_shapes]).double()
    share = (bound.kl.mean(1) + 0.01) / sizes
    balanced = ((share / share.mean())[:, None] * bound.kl).sum(0)
    for warmth, weight in ((0.4, 0.4), (0.0, 1e-4)):
        expected = (0.3 * weight * balanced - bound.log_likelihood).mean()
        torch.testing.assert_close(vae.loss(x, bound, warmth), expected, rtol=1e-12, atol=0)


def test_the_regularisation_comes_down_in_the_logarithm():
    vae, (x, _) = hierarchical(), batch(1)
    bound = vae.bound(x, as_noise(1))
    own = vae.regularisation()
    for warmth, weight in ((0.0, 10.0), (0.5, 1.0), (1.0, 0.1)):
        found = vae.loss(x, bound, warmth, (10.0, 0.1)) - vae.loss(x, bound, warmth)
        torch.testing.assert_close(found, weight * own, rtol=1e-9, atol=1e-9)
    assert gaussian().regularisation() == 0


def test_draws_of_the_prior_are_what_white_noise_makes_at_a_temperature(vae):
    like, noise = torch.empty(0).double(), as_noise(2)
    white = [0.7 * noise.normal((4, *shape), like) for shape in vae.noise_shapes]
    expected = torch.cat([z.flatten(1) for z in vae.generate(*white).z], 1)
    found = vae.draw(4, as_noise(2), like, 0.7)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    assert not found.requires_grad and found.shape == (4, vae.latent_dim)


def test_held_out_data_are_told_by_the_bound_and_the_error(vae):
    x, _ = batch(1)
    found = vae.validate(x, as_noise(1))
    assert set(found) == {"elbo", "mse"}
    torch.testing.assert_close(found["elbo"], vae.bound(x, as_noise(1)).bound)
    error = (vae.decode(vae.encode(x).mean) - x).square().mean((1, 2, 3))
    torch.testing.assert_close(found["mse"], error, rtol=1e-10, atol=0)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(vae.encode(x).mean), rtol=1e-10, atol=1e-10)


def test_the_exact_and_the_estimated_divergence_agree_on_average():
    """Where a flow is the prior, the KL is estimated at the draw: a white flow's has the exact one as its mean."""
    white, flow = gaussian(), gaussian(prior=partial(FlowPrior, steps=1, width=4))
    flow.load_state_dict(white.state_dict(), strict=False)
    x, _ = batch(1)
    exact = white.bound(x, as_noise(0)).kl[0]
    z = flow.bound(x, as_noise(0))
    q = normal(z.latents.posterior[0])
    code = z.latents.z[0]
    expected = -flow.prior.log_prob(code) - q.entropy().sum(1)
    torch.testing.assert_close(z.kl[0], expected, rtol=1e-10, atol=0)
    flow.prior.log_prob = lambda code: Normal(0.0, 1.0).log_prob(code).sum(1)
    draws = torch.stack([flow.bound(x, as_noise(seed)).kl[0] for seed in range(400)])
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / 20).all()


def test_networks_of_one_sigma_serve_another():
    """With σ and β = (σ₁/σ)² the loss of σ₁ is multiplied by β, up to a constant: its gradients are, in all weights."""
    x, _ = batch()
    slopes = []
    for sigma, weight in ((0.3, 1.0), (0.1, 9.0)):
        vae = gaussian(sigma=sigma, kl_weight=weight)
        vae.log_sigma.fill_(math.log(sigma))  # it was kept to float32
        loss = vae.loss(x, vae.bound(x, as_noise(3)))
        slopes.append(torch.autograd.grad(loss, list(vae.parameters())))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(b, 9 * a, rtol=1e-10, atol=1e-12)


def test_the_weight_of_a_hierarchys_kl():
    x, _ = batch()
    plain, weighted = hierarchical(), hierarchical(kl_weight=3.0)
    bound = plain.bound(x, as_noise(3))
    expected = (3 * bound.kl.sum(0) - bound.log_likelihood).mean()
    torch.testing.assert_close(weighted.loss(x, weighted.bound(x, as_noise(3))), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(weighted.bound(x, as_noise(3)).bound, bound.bound, rtol=1e-10, atol=0)  # no β in it
