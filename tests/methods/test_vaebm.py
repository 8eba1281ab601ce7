"""VAEBM: losses against the paper's formulas in float64 to 1e-10, chains against the exact Gaussian, and the stages."""

import copy
import math
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from ebmzoo.factories import spec
from ebmzoo.mcmc import MALA, JointNoise, Langevin, as_noise
from ebmzoo.methods import VAE, VAEBM
from ebmzoo.networks import GaussianVAE, HierarchicalVAE, MLPDecoder, MLPEncoder, MLPEnergy, VAEBMEnergy
from ebmzoo.objectives import (
    SpectralPenalty,
    balanced_kl,
    latent_bound,
    latent_log_joint,
    latent_log_weight,
    normal_kl,
)
from ebmzoo.optim import ThreeSigmaAdam, WarmupCosine

from .conftest import quiet_trainer

SHAPE, LATENT = (1, 8, 8), 3
ENCODER, DECODER = spec(MLPEncoder, width=7, depth=1), spec(MLPDecoder, width=7, depth=1)
VAE_SPEC = spec(GaussianVAE, encoder=ENCODER, decoder=DECODER, latent_dim=LATENT, sigma=0.4)
ENERGY = spec(MLPEnergy, width=6, depth=1)
DEEP = spec(HierarchicalVAE, width=4, scales=2, groups=2, latents=2, cells=1)


def vaebm(vae=VAE_SPEC, **settings):
    torch.manual_seed(0)
    rates = {"vae_optimizer": spec(SGD, lr=1.0), "energy_optimizer": spec(SGD, lr=1.0)}
    defaults = {"energy": ENERGY, "sampler": Langevin(3, 0.2), **rates}
    method = VAEBM(SHAPE, vae, **{**defaults, **settings}).double()
    method.noise = as_noise(5)
    return method


def moved(before, after):
    return [b.detach() - a.detach() for b, a in zip(before.parameters(), after.parameters(), strict=True)]


def assert_same(actual, expected):
    expected = [torch.zeros_like(a) if e is None else e for a, e in zip(actual, expected, strict=True)]
    assert max(e.abs().max() for e in expected) > 1e-3
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)


def sigma_of(method):
    return method.vae.log_sigma.exp()  # 0.4, to float32


def normal(mean, log_sigma):
    return torch.distributions.Normal(mean, log_sigma.exp())


# -- stage one ------------------------------------------------------------------------------------------------------


def test_stage_one_is_the_elbo(fit, digits):
    method = vaebm(vae_steps=1)
    before = copy.deepcopy(method)
    fit(method, [digits])
    mean, log_variance = before.vae.encoder(digits)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    z = mean + q.stddev * as_noise(5).normal((8, LATENT), digits)
    log_p = torch.distributions.Normal(before.vae.decoder(z), sigma_of(before)).log_prob(digits).flatten(1).sum(1)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert_same(moved(before.vae, method.vae), gradients((kl - log_p).mean(), before.vae))
    assert all(not d.any() for d in moved(before.energy_network, method.energy_network))


def test_stage_one_of_a_hierarchy_with_balancing_and_regularisation(digits):
    method = vaebm(DEEP).train()
    network = copy.deepcopy(method.vae)
    loss = method.vae_loss(digits, as_noise(5), 0.25, (1.0, 0.01))
    noise = as_noise(5)
    found = network.infer(digits, lambda shape: noise.normal(shape, digits))
    pairs = zip(found.posterior, found.prior, strict=True)
    kl = torch.stack([torch.distributions.kl_divergence(normal(*q), normal(*p)).flatten(1).sum(1) for q, p in pairs])
    share = (kl.mean(1).detach() + 0.01) / torch.tensor([8.0, 8.0, 32.0, 32.0])  # per latent dimension
    weights = share / share.mean()
    log_p = normal(found.mean, found.log_sigma).log_prob(digits).flatten(1).sum(1)
    expected = (0.25 * (weights[:, None] * kl).sum(0) - log_p).mean()
    expected = expected + 0.01**0.25 * network.regularisation()  # 1 to 0.01 in the logarithm
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    assert_same(gradients(loss, method.vae), gradients(expected, network))


def test_the_kl_warms_up_and_the_stage_changes(fit, digits, monkeypatch):
    seen = []
    loss = VAEBM.vae_loss

    def spy(self, x, noise, warmth, regularisation):
        seen.append((self.stage, warmth))
        return loss(self, x, noise, warmth, regularisation)

    monkeypatch.setattr(VAEBM, "vae_loss", spy)
    method = vaebm(vae_steps=5, kl_warmup=4, vae_optimizer=spec(SGD, lr=1e-3), energy_optimizer=spec(SGD, lr=1e-2))
    trainer = fit(method, [0.1 * digits] * 7)
    assert trainer.global_step == 7
    assert seen == [(1, 0.0), (1, 0.25), (1, 0.5), (1, 0.75), (1, 1.0)]


def test_each_stage_moves_its_own_network_with_its_own_schedule(fit, digits):
    step = partial(spec, torch.optim.lr_scheduler.StepLR)
    settings = {"vae_schedule": step(step_size=1, gamma=0.5), "energy_schedule": step(step_size=1, gamma=0.1)}
    small = {"vae_optimizer": spec(SGD, lr=1e-2), "energy_optimizer": spec(SGD, lr=1e-2)}
    one = vaebm(vae_steps=3, **settings, **small)
    begun = copy.deepcopy(one)
    trainer = fit(one, [digits] * 3)
    assert any(d.any() for d in moved(begun.vae, one.vae))
    assert not any(d.any() for d in moved(begun.energy_network, one.energy_network))
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([1e-2 / 8, 1e-2])
    both = vaebm(vae_steps=3, **settings, **small)
    trainer = fit(both, [digits] * 5)
    assert not any(d.any() for d in moved(one.vae, both.vae))  # fixed after stage one
    assert any(d.any() for d in moved(begun.energy_network, both.energy_network))
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([1e-2 / 8, 1e-4])
    assert trainer.callback_metrics["train/stage"] == 2 and trainer.global_step == 5


# -- stage two ------------------------------------------------------------------------------------------------------


def eq_9_by_hand(before, noise, x, steps=3, s=0.2):
    """Langevin on E(T(ε)) + ½‖ε‖² from white noise, drawn as the method draws: latents, x, then per step x, latents."""
    eps_z, eps_x = noise.normal((8, LATENT), x), noise.normal(x.shape, x)
    for _ in range(steps):
        eps_x, eps_z = eps_x.clone().requires_grad_(), eps_z.clone().requires_grad_()
        u = before.energy_network(before.vae.decoder(eps_z) + sigma_of(before) * eps_x).sum()
        u = u + 0.5 * eps_x.square().sum() + 0.5 * eps_z.square().sum()
        slope_x, slope_z = torch.autograd.grad(u, [eps_x, eps_z])
        eps_x = eps_x.detach() - s / 2 * slope_x + math.sqrt(s) * noise.normal(x.shape, x)
        eps_z = eps_z.detach() - s / 2 * slope_z + math.sqrt(s) * noise.normal((8, LATENT), x)
    return eps_x, eps_z


@pytest.mark.parametrize("negatives", ["sample", "mean"])
def test_stage_two_is_eq_7_on_chains_of_eq_9(fit, digits, negatives):
    method = vaebm(negatives=negatives)
    before = copy.deepcopy(method)
    fit(method, [digits])
    eps_x, eps_z = eq_9_by_hand(before, as_noise(5), digits)
    x = before.vae.decoder(eps_z).detach() + (sigma_of(before) * eps_x if negatives == "sample" else 0)
    loss = before.energy_network(digits).mean() - before.energy_network(x).mean()
    assert_same(moved(before.energy_network, method.energy_network), gradients(loss, before.energy_network))
    assert not any(d.any() for d in moved(before.vae, method.vae))


def test_the_spectral_penalty_is_added_to_the_loss(fit, digits):
    images = digits.repeat(1, 3, 1, 1)
    shape = (3, 8, 8)
    torch.manual_seed(0)
    settings = {"sampler": Langevin(1, 1e-3), "energy_optimizer": spec(SGD, lr=1.0)}
    networks = (VAE_SPEC, spec(VAEBMEnergy, column="stacked_mnist", width=4))
    method = VAEBM(shape, *networks, penalties=[SpectralPenalty(0.2)], **settings).double()
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    assert not before.energy_network.initialised
    fit(method, [images])
    assert method.energy_network.initialised and method.energy_network.penalised
    before.energy_network.initialise(images)
    noise, vae = as_noise(5), before.vae
    eps_z, eps_x = noise.normal((8, LATENT), images), noise.normal(images.shape, images)
    leaves = [eps_x.requires_grad_(), eps_z.requires_grad_()]
    u = before.energy_network(vae.decoder(eps_z) + sigma_of(before) * eps_x).sum()
    u = u + 0.5 * sum(e.square().sum() for e in leaves)
    slopes = torch.autograd.grad(u, leaves)
    eps_x, eps_z = (
        e.detach() - 5e-4 * g + math.sqrt(1e-3) * noise.normal(e.shape, e) for e, g in zip(leaves, slopes, strict=True)
    )
    x = vae.decoder(eps_z).detach() + sigma_of(before) * eps_x
    gap = before.energy_network(images).mean() - before.energy_network(x).mean()
    loss = gap + 0.2 * before.energy_network.spectral_penalty()
    assert_same(moved(before.energy_network, method.energy_network), gradients(loss, before.energy_network))
    with pytest.raises(ValueError, match="MLPEnergy has no spectral_penalty"):
        fit(vaebm(penalties=[SpectralPenalty()]), [digits])


def test_the_decoder_update_is_eq_21(fit, digits):
    method = vaebm(decoder_optimizer=spec(SGD, lr=1.0), sampler=Langevin(0, 0.2))
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    noise.normal((8, LATENT), digits), noise.normal(digits.shape, digits)  # the chain's
    eps_x, eps_z = noise.normal(digits.shape, digits), noise.normal((8, LATENT), digits)
    x = before.vae.decoder(eps_z) + sigma_of(before) * eps_x
    loss = method.energy_network(x).mean()  # the energy is updated already
    assert_same(moved(before.vae.decoder, method.vae.decoder), gradients(loss, before.vae.decoder))
    assert not any(d.any() for d in moved(before.vae.encoder, method.vae.encoder))


# -- chains ---------------------------------------------------------------------------------------------------------


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
    vae = partial(GaussianVAE, encoder=Linear, decoder=Linear, latent_dim=1, sigma=0.7)
    method = VAEBM((2,), vae, Quadratic, sampler=sampler, space=space).double()
    n, decoder, energy = 6000, method.vae.decoder, method.energy_network
    # Eq. 4: N(b, AAᵀ + σ²I) times exp(−E) is a Gaussian whose precisions add up; in space "x" there is exp(−E) alone.
    prior = torch.linalg.inv(decoder.a @ decoder.a.T + 0.49 * torch.eye(2).double()) * (space != "x")
    covariance = torch.linalg.inv(prior + energy.matrix)
    mean = covariance @ (prior @ decoder.b + energy.matrix @ energy.m)
    start = method._start(n, torch.empty(0).double(), as_noise(0))
    x = method._space.data(method._walk(start, sampler, as_noise(1)).x, "sample")
    deviation = x - mean
    errors = [deviation.mean(0), deviation.T @ deviation / n - covariance]
    scales = [covariance.diag().sqrt() / n**0.5]
    scales.append(((covariance.diag()[:, None] * covariance.diag() + covariance**2) / n).sqrt())
    bias = 0.006 if isinstance(sampler, Langevin) else 0.0
    for error, scale in zip(errors, scales, strict=True):
        assert (error.abs() < 4 * scale + bias).all(), (error, scale)
    begun = method._space.data(start, "sample") - mean
    assert ((begun.T @ begun / n - covariance).abs() > 10 * scales[1]).any()  # the chain did it, not the start


@pytest.mark.parametrize("space", ["noise", "data"])
def test_the_potentials_of_a_hierarchy_are_one_density(space, digits):
    """E − log p(x, z) = E + ½‖ε‖² + Σ log σ + const: the change of variables of appendix B."""
    method = vaebm(DEEP).eval()
    spaces = {name: VAEBM(SHAPE, DEEP, ENERGY, space=name).double()._space for name in ("noise", "data")}
    shared = {name: type(s)(name, method.vae, method.energy) for name, s in spaces.items()}
    noise = as_noise(1)
    eps_z = tuple(noise.normal((8, *shape), digits) for shape in method.vae.noise_shapes)
    eps_x = noise.normal(digits.shape, digits)
    latents = method.vae.generate(*eps_z)
    x, *z = shared["data"].place(eps_x, latents.z)
    squares = sum(e.flatten(1).square().sum(1) for e in (eps_x, *eps_z))
    logs = latents.log_sigma.flatten(1).sum(1)
    logs = logs + sum(log_sigma.flatten(1).sum(1) for _, log_sigma in latents.prior)
    dims = 64 + method.latent_dim
    expected = shared["noise"].potential(eps_x, *eps_z) + 0.5 * squares + logs + 0.5 * dims * math.log(2 * math.pi)
    torch.testing.assert_close(shared["data"].potential(x, *z), expected, rtol=1e-10, atol=1e-10)
    state = (eps_x, *eps_z) if space == "noise" else (x, *z)
    torch.testing.assert_close(shared[space].data(state, "sample"), x)
    torch.testing.assert_close(shared[space].data(state, "mean"), latents.mean)


# -- persistent chains ----------------------------------------------------------------------------------------------


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


def test_replay_replaces_latents_and_leaves_the_noise_of_x_fresh():
    method = vaebm(buffer=10)
    method.replay.push(torch.full((10, LATENT), 7.0).double())
    like = torch.empty(0).double()
    fresh = method._start(4000, like, as_noise(3), 0.0)
    mixed = method._start(4000, like, as_noise(3), 0.3)
    old = (mixed[1] == 7).all(1)
    assert abs(old.double().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    assert torch.equal(mixed[0], fresh[0]) and torch.equal(mixed[1][~old], fresh[1][~old])
    whole = vaebm(buffer=10, replay_x=True)
    whole.replay.push(torch.full((10, *SHAPE), 5.0).double(), torch.full((10, LATENT), 7.0).double())
    x, z = whole._start(100, like, as_noise(3), 1.0)
    assert (x == 5).all() and (z == 7).all()


def test_the_buffer_keeps_the_ends_of_the_chains(fit, digits):
    method = vaebm(buffer=8)
    before = copy.deepcopy(method)
    fit(method, [digits])
    _, eps_z = eq_9_by_hand(before, as_noise(5), digits)
    torch.testing.assert_close(method.replay.leaves[0], eps_z, rtol=1e-10, atol=1e-10)


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


class Halves(torch.utils.data.Dataset):
    """Each process sees its half of every batch."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        if not torch.distributed.is_initialized():
            return self.batches[index]
        return self.batches[index].chunk(2)[torch.distributed.get_rank()]


class Joint(L.Callback):
    """Noise drawn for the joint batch, and the weights kept at the end."""

    def __init__(self, path):
        self.path = path

    def on_train_start(self, trainer, pl_module):
        generator = torch.Generator().manual_seed(5)
        pl_module.noise = JointNoise(generator, trainer.global_rank, trainer.world_size)

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), self.path)


def test_two_processes_equal_one_with_the_joined_batch(digits, tmp_path):
    found = []
    for name, settings in {
        "one": {},
        "two": {"devices": 2, "strategy": "ddp_fork_find_unused_parameters_true", "use_distributed_sampler": False},
    }.items():
        small = {"vae_optimizer": spec(SGD, lr=1e-3), "energy_optimizer": spec(SGD, lr=1e-1)}
        method = vaebm(vae_steps=2, decoder_optimizer=spec(SGD, lr=1e-2), **small)
        begun = copy.deepcopy(method.state_dict())
        trainer = quiet_trainer(max_epochs=1, callbacks=[Joint(tmp_path / name)], **settings)
        trainer.fit(method, torch.utils.data.DataLoader(Halves([digits, digits.flip(0)] * 2), batch_size=None))
        found.append(torch.load(tmp_path / name, weights_only=True))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-12)
        fixed = name in ("vae.log_sigma", "energy_network.net.2.bias")  # a constant drops out of the gap
        assert fixed == torch.equal(value, begun[name]), name


# -- the contract ---------------------------------------------------------------------------------------------------


def test_sample_runs_the_test_chain_and_shows_x():
    method = vaebm(sampler=Langevin(2, 0.1), refine=Langevin(4, 0.1)).float().eval()
    assert method.test_sampler() == (Langevin(4, 0.1), 4)
    frames = []
    with torch.inference_mode():
        last = method.sample(3, noise=1, callback=lambda step, x, energy: frames.append(x.clone()))
    start = method.sample(3, noise=1, steps=0)
    assert len(frames) == 4 and torch.equal(frames[0].clamp(-1, 1), start) and frames[0].shape == (3, *SHAPE)
    noise = as_noise(1)
    eps_z, eps_x = noise.normal((3, LATENT)), noise.normal((3, *SHAPE))
    torch.testing.assert_close(frames[0], method.vae.decoder(eps_z) + 0.4 * eps_x)
    assert not torch.equal(last, start)
    mean = vaebm(refine=Langevin(4, 0.1), output="mean").float().eval()
    torch.testing.assert_close(mean.sample(3, noise=1, steps=0), method.vae.decoder(eps_z))


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
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    noise, weights = as_noise(0), []
    for _ in range(100):
        z = mean + q.stddev * noise.normal((8, LATENT), digits)
        log_p = torch.distributions.Normal(method.vae.decoder(z), sigma_of(method)).log_prob(digits).flatten(1).sum(1)
        log_p = log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        weights.append(log_p - q.log_prob(z).sum(1))
    expected = torch.logsumexp(torch.stack(weights), 0) - math.log(100) - method.energy_network(digits)
    torch.testing.assert_close(method.log_density(digits), expected, rtol=1e-10, atol=1e-10)
    # The score takes the same draws for every example: of the first, those that it would have alone.
    alone = method.log_density(digits[:1])
    torch.testing.assert_close(method.score(digits)[:1], alone, rtol=1e-10, atol=1e-10)


def test_a_cool_start_is_the_white_noise_of_cool_samples(digits):
    """Decoded again (its means, and x itself through its noise), the start is what the readjusted VAE had made."""
    method = vaebm(DEEP, start_temperature=0.7).eval()
    running = copy.deepcopy(method.vae.state_dict())
    start = method._start(8, digits, as_noise(2))
    cooled = method._space.cooled(start, 0.7, as_noise(3))
    assert all(torch.equal(v, running[k]) for k, v in method.vae.state_dict().items())
    own = as_noise(0)
    cool = method.vae.readjusted(0.7, lambda shape: own.normal(shape, digits))
    expected = cool.generate(*(0.7 * z for z in start[1:])).mean
    torch.testing.assert_close(method._space.data(cooled, "sample"), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(method.vae.generate(*(0.7 * z for z in start[1:])).mean, expected)
    assert method.float().sample(2, noise=0, steps=1).shape == (2, *SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "x", "negatives": "mean"}, 'space "x" has no latents'),
        ({"space": "x", "buffer": 5}, "replay_x"),
        ({"regularisation_start": 0.1}, "needs the regularisation that it leads to"),
        ({"space": "data", "start_temperature": 0.7}, 'needs space "noise", not "data"'),
    ],
)
def test_settings_that_do_not_go_together_are_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        vaebm(**settings)
    assert "\n" not in str(error.value)


# -- stage one from a checkpoint ------------------------------------------------------------------------------------


def saved(method, path, steps=2):
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(method, torch.utils.data.DataLoader(torch.rand(4, 8, *SHAPE).double() - 0.5, batch_size=None))
    trainer.save_checkpoint(path)
    return method


def small_vae(**settings):
    torch.manual_seed(1)
    parts = {"encoder": ENCODER, "decoder": DECODER, "latent_dim": LATENT, "sigma": 0.2}
    return VAE(SHAPE, **{**parts, **settings}).double()


def test_stage_two_starts_from_a_vae_or_a_vaebm_checkpoint(fit, digits, tmp_path):
    vae = saved(small_vae(), tmp_path / "vae.ckpt")
    first = vaebm(vae_ckpt=str(tmp_path / "vae.ckpt"), vae_steps=100, energy_optimizer=spec(SGD, lr=1e-3))
    assert first.stage == 2  # the checkpoint stands in for stage one
    fit(first, [digits])
    for name, value in first.vae.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name]), name
    saved(first, tmp_path / "vaebm.ckpt")
    second = vaebm(vae_ckpt=str(tmp_path / "vaebm.ckpt"))
    fit(second, [digits])
    assert not any(d.any() for d in moved(first.vae, second.vae))
    averaged = torch.load(tmp_path / "vae.ckpt", weights_only=True)
    averaged["ema"] = {k: v + 1 for k, v in averaged["state_dict"].items() if k.startswith("decoder")}
    torch.save(averaged, tmp_path / "ema.ckpt")
    third = vaebm(vae_ckpt=str(tmp_path / "ema.ckpt"))
    fit(third, [digits])
    for name, value in third.vae.decoder.state_dict().items():
        assert torch.equal(value, vae.decoder.state_dict()[name] + 1)


def test_a_resumed_run_needs_no_stage_one_file(digits, tmp_path):
    path = tmp_path / "vae.ckpt"
    saved(small_vae(), path)
    settings = {"vae_ckpt": str(path), "energy_optimizer": spec(SGD, lr=1e-3)}
    saved(vaebm(**settings), tmp_path / "run.ckpt", steps=2)
    path.unlink()
    again = vaebm(**settings)
    data = torch.utils.data.DataLoader(digits[None].repeat(4, 1, 1, 1, 1), batch_size=None)
    quiet_trainer(max_steps=3).fit(again, data, ckpt_path=str(tmp_path / "run.ckpt"), weights_only=True)


@pytest.mark.parametrize("wrong", [{"latent_dim": 4}, {"encoder": spec(MLPEncoder, width=7, depth=2)}])
def test_another_vae_is_one_clear_line(fit, digits, tmp_path, wrong):
    saved(small_vae(**wrong), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt \(vae_ckpt\) is not this config's: \d+ of \d+ weights") as error:
        fit(vaebm(vae_ckpt=str(tmp_path / "other.ckpt")), [digits])
    assert "\n" not in str(error.value)


def test_a_stage_one_file_that_is_missing_or_broken_is_one_clear_line(fit, digits, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no stage-one checkpoint at .*none.ckpt"):
        fit(vaebm(vae_ckpt=str(tmp_path / "none.ckpt")), [digits])
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint of tensors"):
        fit(vaebm(vae_ckpt=str(tmp_path / "broken.ckpt")), [digits])


# -- pieces ---------------------------------------------------------------------------------------------------------


def test_latent_pieces_equal_torch_distributions(digits):
    network = vaebm(DEEP).eval().vae
    noise = as_noise(1)
    found = network.infer(digits, lambda shape: noise.normal(shape, digits))
    log_p, kl = latent_bound(digits, found)
    likelihood = normal(found.mean, found.log_sigma).log_prob(digits).flatten(1).sum(1)
    torch.testing.assert_close(log_p, likelihood, rtol=1e-10, atol=1e-10)
    pairs = list(zip(found.posterior, found.prior, strict=True))
    expected = [torch.distributions.kl_divergence(normal(*q), normal(*p)).flatten(1).sum(1) for q, p in pairs]
    torch.testing.assert_close(kl, torch.stack(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(normal_kl(*pairs[0]), expected[0], rtol=1e-10, atol=1e-10)
    prior, posterior = (
        sum(normal(*g).log_prob(z).flatten(1).sum(1) for z, g in zip(found.z, groups, strict=True))
        for groups in (found.prior, found.posterior)
    )
    torch.testing.assert_close(latent_log_joint(digits, found), likelihood + prior, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(latent_log_weight(digits, found), likelihood + prior - posterior, rtol=1e-10, atol=1e-10)


def test_balanced_kl_by_hand():
    kl = torch.tensor([[1.0, 3.0], [8.0, 8.0]]).double().requires_grad_()
    value = balanced_kl(kl, [1, 2])  # per dimension 2.01 and 4.005: weights 2.01 and 4.005 over 3.0075
    expected = (2.01 * kl[0] + 4.005 * kl[1]) / 3.0075
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    weights = torch.tensor([2.01, 4.005], dtype=torch.float64)[:, None].expand(2, 2) / 3.0075
    torch.testing.assert_close(torch.autograd.grad(value.sum(), kl)[0], weights, rtol=1e-10, atol=0)


def test_three_sigma_clip_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]).double())
    settings = {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-8, "weight_decay": 0.01}
    optimizer = ThreeSigmaAdam([weight], **settings)
    m, v, w = torch.zeros(2).double(), torch.zeros(2).double(), weight.detach().clone()
    for t, raw in enumerate([[0.2, -0.1], [5.0, 0.1], [-9.0, 0.4], [0.0, 2.0]], start=1):
        gradient = torch.tensor(raw).double()
        weight.grad = gradient.clone()
        optimizer.step()
        if t > 1:
            bound = 3 * (v / (1 - 0.75 ** (t - 1))).sqrt() + 0.1
            gradient = torch.maximum(torch.minimum(gradient, bound), -bound)
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-10, atol=0)
        gradient = gradient + 0.01 * w
        m, v = 0.5 * m + 0.5 * gradient, 0.75 * v + 0.25 * gradient**2
        w = w - 0.1 * (m / (1 - 0.5**t)) / ((v / (1 - 0.75**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), w, rtol=1e-10, atol=0)
    assert weight.grad[1] < 2.0  # the last was clipped


def test_three_sigma_adam_resumes_from_its_state():
    def run(optimizer, weight, rows):
        for row in rows:
            weight.grad = row.clone()
            optimizer.step()

    rows = 3 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    one, two = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    whole = ThreeSigmaAdam([one], lr=0.1, sigmas=1.0, floor=0.01)
    run(whole, one, rows)
    part = ThreeSigmaAdam([two], lr=0.1, sigmas=1.0, floor=0.01)
    run(part, two, rows[:3])
    rest = ThreeSigmaAdam([two], lr=0.5)
    rest.load_state_dict(part.state_dict())
    run(rest, two, rows[3:])
    assert torch.equal(one, two)
    plain = nn.Parameter(torch.zeros(2))
    run(Adam([plain], lr=0.1), plain, rows)
    assert not torch.equal(one, plain)


def test_the_schedule_must_fit():
    with pytest.raises(ValueError, match="a rise of 9 iterations does not fit into 8"):
        WarmupCosine(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), total=8, warmup=9)


def test_draws_of_the_base_have_decoder_noise_whatever_the_output():
    torch.manual_seed(0)
    model = vaebm(output="mean").float()
    assert model.has_base
    drawn = model.base_sample(4, noise=3)
    model.output = "sample"
    assert torch.equal(drawn.clamp(-1, 1), model.sample(4, steps=0, noise=3)) and drawn.abs().max() > 1
    model.output = "mean"
    assert not torch.equal(drawn.clamp(-1, 1), model.sample(4, steps=0, noise=3))
    assert not vaebm(space="x").has_base
