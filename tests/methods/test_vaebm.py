"""VAEBM: losses of both stages and chains against the paper's formulas, in float64 to 1e-10; replay; the contract."""

import copy
import math
from functools import partial

import lightning as L
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import MALA, Langevin, as_noise
from ebmzoo.methods import VAEBM
from ebmzoo.networks import MLPDecoder, VAEBMEnergy
from ebmzoo.parts import Energy, HierarchicalVAE
from ebmzoo.parts.latent_vae import LatentVAE
from ebmzoo.parts.objectives import SpectralPenalty

from .by_hand import (
    ENERGY,
    LATENT,
    SHAPE,
    assert_moved,
    assert_same,
    gradients,
    log_normal,
    made,
    moved,
    negative_elbo,
    unmoved,
    vae_of,
)  # fmt: skip

DEEP = spec(HierarchicalVAE, width=4, scales=2, groups=2, latents=2, cells=1)


def vaebm(vae=None, energy=ENERGY, **settings):
    rates = {"vae_optimizer": spec(SGD, lr=1.0), "energy_optimizer": spec(SGD, lr=1.0)}
    return made(VAEBM, vae or vae_of(), energy, **{"sampler": Langevin(3, 0.2), **rates, **settings})


def sigma_of(method):
    return method.vae.log_sigma.exp()  # 0.4, to float32


# -- stage one --------------------------------------------------------------------------------------------------------


def test_stage_one_is_the_elbo(fit, digits):
    method = vaebm(vae_steps=1)
    before = copy.deepcopy(method)
    fit(method, [digits])
    assert_moved(before.vae, method.vae, negative_elbo(before.vae, digits, as_noise(5).normal((8, LATENT), digits)))
    assert unmoved(before.ebm, method.ebm)


def test_stage_one_of_a_hierarchy_with_balancing_and_regularisation(fit, digits):
    """The second of four iterations of warm-up: 0.25 of the KL, balanced; the regularisation from 1 to 0.01."""
    settings = {"kl_warmup": 4, "regularisation": 0.01, "regularisation_start": 1.0}
    method = vaebm(DEEP, vae_steps=9, **settings)
    method.vae.train()
    network = copy.deepcopy(method.vae)
    loss = method.vae.loss(digits, method.vae.bound(digits, as_noise(5)), 0.25, method.regularisation)
    noise = as_noise(5)
    found = network.infer(digits, lambda shape: noise.normal(shape, digits))
    pairs = [
        [Normal(g.mean, g.log_sigma.exp()) for g in pair] for pair in zip(found.posterior, found.prior, strict=True)
    ]
    kl = torch.stack([kl_divergence(q, p).flatten(1).sum(1) for q, p in pairs])
    share = (kl.mean(1).detach() + 0.01) / torch.tensor([8.0, 8.0, 32.0, 32.0])  # per latent dimension
    weights = share / share.mean()
    log_p = log_normal(digits, found.x.mean, found.x.log_sigma.exp())
    expected = (0.25 * (weights[:, None] * kl).sum(0) - log_p).mean()
    expected = expected + 0.01**0.25 * network.regularisation()  # 1 to 0.01 in the logarithm
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    assert_same(gradients(loss, method.vae), gradients(expected, network))


def test_the_kl_warms_up_and_the_stage_changes(fit, digits, monkeypatch):
    seen, loss = [], LatentVAE.loss

    def spy(self, x, bound, warmth, regularisation):
        seen.append((method.stage, warmth, regularisation))
        return loss(self, x, bound, warmth, regularisation)

    monkeypatch.setattr(LatentVAE, "loss", spy)
    rates = {"vae_optimizer": spec(SGD, lr=1e-3), "energy_optimizer": spec(SGD, lr=1e-2)}
    method = vaebm(vae_steps=5, kl_warmup=4, regularisation=0.1, **rates)
    trainer = fit(method, [0.1 * digits] * 7)
    assert trainer.global_step == 7
    assert seen == [(1, warmth, (0.1, 0.1)) for warmth in (0.0, 0.25, 0.5, 0.75, 1.0)]


def test_each_stage_moves_its_own_network_with_its_own_schedule(fit, digits):
    step = partial(spec, torch.optim.lr_scheduler.StepLR)
    settings = {"vae_schedule": step(step_size=1, gamma=0.5), "energy_schedule": step(step_size=1, gamma=0.1)}
    small = {"vae_optimizer": spec(SGD, lr=1e-2), "energy_optimizer": spec(SGD, lr=1e-2)}
    one = vaebm(vae_steps=3, **settings, **small)
    begun = copy.deepcopy(one)
    trainer = fit(one, [digits] * 3)
    assert any(d.any() for d in moved(begun.vae, one.vae)) and unmoved(begun.ebm, one.ebm)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([1e-2 / 8, 1e-2])
    both = vaebm(vae_steps=3, **settings, **small)
    trainer = fit(both, [digits] * 5)
    assert unmoved(one.vae, both.vae)  # fixed after stage one
    assert any(d.any() for d in moved(begun.ebm, both.ebm))
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([1e-2 / 8, 1e-4])
    assert trainer.callback_metrics["train/stage"] == 2 and trainer.global_step == 5


# -- stage two --------------------------------------------------------------------------------------------------------


def eq_9_by_hand(before, noise, x, steps=3, s=0.2):
    """Langevin on E(T(ε)) + ½‖ε‖² from white noise, drawn as the method draws: latents, x, then per step one row."""
    eps_z, eps_x = noise.normal((8, LATENT), x), noise.normal(x.shape, x)
    for _ in range(steps):
        eps_x, eps_z = eps_x.clone().requires_grad_(), eps_z.clone().requires_grad_()
        u = before.ebm(before.vae.decoder(eps_z) + sigma_of(before) * eps_x).sum()
        u = u + 0.5 * eps_x.square().sum() + 0.5 * eps_z.square().sum()
        slope_x, slope_z = torch.autograd.grad(u, [eps_x, eps_z])
        xi_x, xi_z = noise.normal((8, x[0].numel() + LATENT), x).tensor_split([x[0].numel()], 1)
        eps_x = eps_x.detach() - s / 2 * slope_x + math.sqrt(s) * xi_x.view_as(x)
        eps_z = eps_z.detach() - s / 2 * slope_z + math.sqrt(s) * xi_z
    return eps_x, eps_z


@pytest.mark.parametrize("negatives", ["sample", "mean"])
def test_stage_two_is_eq_7_on_chains_of_eq_9(fit, digits, negatives):
    method = vaebm(negatives=negatives)
    before = copy.deepcopy(method)
    fit(method, [digits])
    eps_x, eps_z = eq_9_by_hand(before, as_noise(5), digits)
    x = before.vae.decoder(eps_z).detach() + (sigma_of(before) * eps_x if negatives == "sample" else 0)
    assert_moved(before.ebm, method.ebm, before.ebm(digits).mean() - before.ebm(x).mean())
    assert unmoved(before.vae, method.vae)


def test_the_spectral_penalty_is_added_to_the_loss(fit, digits):
    images = digits.repeat(1, 3, 1, 1)
    energy = spec(Energy, network=spec(VAEBMEnergy, column="stacked_mnist", width=4), penalties=[SpectralPenalty(0.2)])
    settings = {"sampler": Langevin(1, 1e-3), "energy_optimizer": spec(SGD, lr=1.0)}
    method = made(VAEBM, vae_of(), energy, shape=(3, 8, 8), **settings)
    before = copy.deepcopy(method)
    assert not before.ebm.network.initialised
    fit(method, [images])
    assert method.ebm.network.initialised and method.ebm.network.penalised
    before.ebm.network.initialise(images)
    eps_x, eps_z = eq_9_by_hand(before, as_noise(5), images, steps=1, s=1e-3)
    x = before.vae.decoder(eps_z).detach() + sigma_of(before) * eps_x
    loss = before.ebm(images).mean() - before.ebm(x).mean() + 0.2 * before.ebm.network.spectral_penalty()
    assert_moved(before.ebm, method.ebm, loss)
    with pytest.raises(ValueError, match="MLPEnergy has no spectral_penalty"):
        fit(vaebm(energy=spec(Energy, network=ENERGY, penalties=[SpectralPenalty()])), [digits])


def test_the_decoder_update_is_eq_21(fit, digits):
    method = vaebm(decoder_optimizer=spec(SGD, lr=1.0), sampler=Langevin(0, 0.2))
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    noise.normal((8, LATENT), digits), noise.normal(digits.shape, digits)  # the chain's
    eps_x, eps_z = noise.normal(digits.shape, digits), noise.normal((8, LATENT), digits)
    x = before.vae.decoder(eps_z) + sigma_of(before) * eps_x
    assert_moved(before.vae.decoder, method.vae.decoder, method.ebm(x).mean())  # the energy is updated already
    assert unmoved(before.vae.encoder, method.vae.encoder)


# -- persistent chains ------------------------------------------------------------------------------------------------


def test_replay_begins_with_the_ramped_probability(fit, digits):
    seen = []
    method = vaebm(buffer=1000, replay_probability=0.6, replay_ramp=4, energy_optimizer=spec(SGD, lr=1e-3))
    mix = method.replay.mix

    def spy(fresh, probability, noise):
        seen.append(probability)
        return mix(fresh, probability, noise)

    method.replay.mix = spy
    fit(method, [digits] * 6)
    assert seen == pytest.approx([0.0, 0.15, 0.3, 0.45, 0.6, 0.6])
    assert len(method.replay) == 48 and [leaf.shape[1:] for leaf in method.replay.leaves] == [(LATENT,)]


def test_the_ramp_counts_iterations_of_stage_two(fit, digits):
    seen = []
    small = {"vae_optimizer": spec(SGD, lr=1e-3), "energy_optimizer": spec(SGD, lr=1e-3)}
    method = vaebm(vae_steps=2, buffer=1000, replay_probability=0.6, replay_ramp=4, **small)
    mix = method.replay.mix
    method.replay.mix = lambda fresh, share, noise: (seen.append(share), mix(fresh, share, noise))[1]
    fit(method, [digits] * 4)
    assert seen == pytest.approx([0.0, 0.15])


def parts(state):
    return state.tensor_split([64], dim=1)


def test_replay_replaces_latents_and_leaves_the_noise_of_x_fresh():
    method, like = vaebm(buffer=10), torch.empty(0).double()
    method.replay.push(torch.full((10, LATENT), 7.0).double())
    fresh_x, fresh_z = parts(method.start(4000, like, as_noise(3), 0.0))
    x, z = parts(method.start(4000, like, as_noise(3), 0.3))
    old = (z == 7).all(1)
    assert abs(old.double().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    assert torch.equal(x, fresh_x) and torch.equal(z[~old], fresh_z[~old])
    whole = vaebm(buffer=10, replay_x=True)
    whole.replay.push(torch.full((10, 64 + LATENT), 5.0).double())
    assert (whole.start(100, like, as_noise(3), 1.0) == 5).all()


def test_replayed_latents_in_the_space_of_data_have_a_fresh_x_of_their_own():
    """x = decoder(z) + σ·ε of the replayed z, with the ε that was drawn."""
    method, like = vaebm(buffer=10, space="data"), torch.empty(0).double()
    kept = as_noise(9).normal((10, LATENT), like)
    method.replay.push(kept)
    x, z = parts(method.start(6, like, as_noise(3), 1.0))
    noise = as_noise(3)
    noise.normal((6, LATENT), like)
    eps = noise.normal((6, *SHAPE), like)
    assert all((row == kept).all(1).any() for row in z)
    expected = method.vae.decoder(z) + sigma_of(method) * eps
    torch.testing.assert_close(x.view(6, *SHAPE), expected.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("replay_x", [False, True])
def test_the_buffer_keeps_the_ends_of_the_chains(fit, digits, replay_x):
    method = vaebm(buffer=8, replay_x=replay_x)
    before = copy.deepcopy(method)
    fit(method, [digits])
    eps_x, eps_z = eq_9_by_hand(before, as_noise(5), digits)
    expected = torch.cat([eps_x.flatten(1), eps_z], 1) if replay_x else eps_z
    torch.testing.assert_close(method.replay.leaves[0], expected, rtol=1e-10, atol=1e-10)


def test_buffers_of_another_number_of_processes_are_dealt_out_anew():
    two = [vaebm(buffer=4) for _ in range(2)]
    for rank, method in enumerate(two):
        method.replay.push(torch.arange(3.0).view(3, 1).expand(3, LATENT) + 10 * rank)
    states = [method.replay.state_dict() for method in two]
    one = vaebm(buffer=8)
    one.on_load_checkpoint({"replay": states})
    assert one.replay.leaves[0][:, 0].tolist() == [0, 10, 1, 11, 2, 12]  # by age
    same = vaebm(buffer=4)
    same.on_load_checkpoint({"replay": states[1:]})
    assert same.replay.leaves[0][:, 0].tolist() == [10, 11, 12]


# -- the contract -----------------------------------------------------------------------------------------------------


def test_sample_runs_the_test_chain_and_shows_x():
    method = vaebm(sampler=Langevin(2, 0.1), refine=Langevin(4, 0.1)).float().eval()
    assert method.test_sampler() == (Langevin(4, 0.1), 4)
    frames = []
    with torch.inference_mode():
        last = method.sample(3, noise=1, watch=lambda step, state: frames.append(state.x.clone()))
    start = method.sample(3, noise=1, steps=0)
    assert len(frames) == 4 and torch.equal(frames[0].clamp(-1, 1), start) and frames[0].shape == (3, *SHAPE)
    noise = as_noise(1)
    eps_z, eps_x = noise.normal((3, LATENT)), noise.normal((3, *SHAPE))
    torch.testing.assert_close(frames[0], (method.vae.decoder(eps_z) + 0.4 * eps_x).detach())
    assert not torch.equal(last, start)
    mean = vaebm(refine=Langevin(4, 0.1), output="mean").float().eval()
    torch.testing.assert_close(mean.sample(3, noise=1, steps=0), method.decode(eps_z).clamp(-1, 1))


def test_while_stage_one_trains_samples_are_the_vaes(fit, digits):
    sampler = MALA(2, 0.1, proposals=2)
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            pl_module.eval()
            with torch.random.fork_rng():
                pairs = [pl_module.sample(3, noise=0, steps=steps) for steps in (None, 0, 2)]
            pl_module.train()
            seen.append([torch.equal(pairs[0], pairs[1]), torch.equal(pairs[0], pairs[2])])

    method = vaebm(vae_steps=2, sampler=sampler, vae_optimizer=spec(SGD, lr=1e-3)).float()
    fit(method, [digits.float()] * 3, callbacks=[Watch()])
    assert seen == [[True, False], [False, True], [False, True]]  # after the second, the VAE is trained


def test_the_score_is_the_importance_weighted_likelihood_minus_the_energy(digits):
    method = vaebm().eval()
    mean, log_variance = method.vae.encoder(digits)
    q = Normal(mean, (0.5 * log_variance).exp())
    noise, weights = as_noise(0), []
    for _ in range(100):
        z = mean + q.stddev * noise.normal((8, LATENT), digits)
        log_p = log_normal(digits, method.vae.decoder(z), sigma_of(method)) + log_normal(z, 0.0, 1.0)
        weights.append(log_p - q.log_prob(z).sum(1))
    expected = torch.logsumexp(torch.stack(weights), 0) - math.log(100) - method.ebm(digits)
    torch.testing.assert_close(method.log_density(digits), expected.detach(), rtol=1e-10, atol=1e-10)
    # The score takes the same draws for every example: of the first, those that it would have alone.
    alone = method.log_density(digits[:1])
    torch.testing.assert_close(method.score(digits)[:1], alone, rtol=1e-10, atol=1e-10)
    other = vaebm(space="x")
    assert torch.equal(other.log_density(digits), -other.energy(digits))


def test_a_cool_start_begins_the_chains_of_samples():
    decoder = spec(MLPDecoder, width=7, depth=1, norm="batch")
    method = vaebm(vae_of(decoder=decoder), start_temperature=0.7).eval()
    noise, like = as_noise(2), torch.empty(0).double()
    start = method.start(4, like, noise)
    expected = method.potential(start, method.sampler).cooled(start, 0.7, noise)
    torch.testing.assert_close(method.begin(4, as_noise(2)), expected, rtol=1e-10, atol=1e-10)
    assert method.float().sample(2, noise=0, steps=1).shape == (2, *SHAPE)


def test_draws_of_the_base_have_decoder_noise_whatever_the_output():
    model = vaebm(output="mean").float()
    assert model.has_base
    drawn = model.base_sample(4, noise=3)
    model.output = "sample"
    assert torch.equal(drawn.clamp(-1, 1), model.sample(4, steps=0, noise=3)) and drawn.abs().max() > 1
    model.output = "mean"
    assert not torch.equal(drawn.clamp(-1, 1), model.sample(4, steps=0, noise=3))
    assert not vaebm(space="x").has_base


def test_the_energy_of_white_noise_is_that_of_what_it_makes(digits):
    model = vaebm()
    assert model.white_shapes == [SHAPE, (LATENT,)]
    noise = as_noise(1)
    x, z = noise.normal((8, *SHAPE), digits), noise.normal((8, LATENT), digits)
    expected = model.ebm(model.vae.decoder(z) + sigma_of(model) * x).detach()
    torch.testing.assert_close(model.white_energy(x, z), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "x", "negatives": "mean"}, 'space "x" has no latents'),
        ({"space": "x", "buffer": 5}, "replay_x"),
        ({"space": "x", "refresh_x": 5}, "no latents to draw x anew from"),
        ({"regularisation_start": 0.1}, "needs the regularisation that it leads to"),
        ({"space": "data", "start_temperature": 0.7}, 'needs space "noise", not "data"'),
    ],
)
def test_settings_that_do_not_go_together_are_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        vaebm(**settings)
    assert "\n" not in str(error.value)


def test_the_energy_sees_images_in_their_range_and_points_as_they_are(digits):
    clamping = spec(Energy, network=ENERGY, clamps=True)
    method = vaebm(energy=clamping)
    far = 3 * digits
    assert torch.equal(method.energy(far), method.energy(far.clamp(-1, 1)))
    assert not torch.equal(method.energy(far), method.ebm.network(far).flatten())
    points = made(VAEBM, vae_of(), clamping, shape=(2,))
    x = 5 * as_noise(0).normal((8, 2), digits)
    assert torch.equal(points.energy(x), points.ebm.network(x).flatten())


@pytest.mark.parametrize("space", ["noise", "data"])
def test_the_test_chain_may_draw_x_anew(space):
    """Five steps, x anew after the second and the fourth: as three chains, each from a fresh x of the last one's z."""
    method = vaebm(space=space, refine=Langevin(5, 0.1), refresh_x=2).eval()
    frames = []
    last = method.sample(3, noise=1, watch=lambda step, state: frames.append((step, state.x.clone())))
    noise = as_noise(1)
    state = method.begin(3, noise)
    potential, chain, seen = method.potential(state, method.refine), method.refine, []
    for steps in (2, 2, 1):
        if seen:
            state = potential.place(noise.normal((3, *SHAPE), state), potential.row.parts(state)[1:])
        chain_of = chain(potential, state, noise, steps=steps, watch=lambda step, at: seen.append(at.x))
        state = chain_of.x
    assert torch.equal(last, potential.data(state, "sample").clamp(-1, 1))
    assert [step for step, _ in frames] == [0, 1, 2, 3, 4]
    for (_, frame), at in zip(frames, seen, strict=True):
        assert torch.equal(frame, potential.data(at, "sample"))
    never = vaebm(space=space, refine=Langevin(5, 0.1)).eval()
    assert not torch.equal(never.sample(3, noise=1), last)


def test_the_doctor_is_told_of_noise_that_stays_in_x():
    (words,) = vaebm(vae_of(sigma=0.3), sampler=Langevin(15, 0.01)).advice()
    assert "lives for steps x step size = 0.15" in words and "more than 137, the decoder's sigma 0.3 stays" in words
    assert "take 0.1 with kl_weight 9 times as large" in words
    assert not vaebm(vae_of(sigma=0.1), sampler=Langevin(15, 0.01)).advice()
    assert not vaebm(vae_of(sigma=0.3), sampler=Langevin(15, 0.1)).advice()  # long enough by itself
    assert not vaebm(vae_of(sigma=0.3), sampler=Langevin(15, 0.01), replay_x=True, buffer=5).advice()
    noisy = spec(Energy, network=ENERGY, data_noise=0.3)  # the data have it too
    assert not vaebm(vae_of(sigma=0.3), noisy, sampler=Langevin(15, 0.01)).advice()
    assert "0.14 stays" in vaebm(DEEP, sampler=Langevin(10, 8e-5)).advice()[0]  # the floor of a learned sigma
