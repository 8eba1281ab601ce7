"""The baselines: each update against its formula written out in float64 to 1e-10, chains and their starts by hand."""

import copy
import math

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from torch.optim import SGD

from ebmzoo.mcmc import JointNoise, Langevin, as_noise
from ebmzoo.methods import EBM, ECVAE, GAN, VAE, WGAN
from ebmzoo.factories import spec
from ebmzoo.networks import GaussianVAE, MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.objectives import EnergyL2, lipschitz_penalty

from .conftest import quiet_trainer

SHAPE, LATENT = (1, 8, 8), 3
ENCODER, DECODER = spec(MLPEncoder, width=7, depth=1), spec(MLPDecoder, width=7, depth=1)
ENERGY = spec(MLPEnergy, width=6, depth=1)
VAE_SPEC = spec(GaussianVAE, encoder=ENCODER, decoder=DECODER, latent_dim=LATENT, sigma=0.4)
SHORT = Langevin(3, 0.2, 1e-2, grad_clamp=0.05, bounds=(-0.9, 0.9), noise_first=True)


def made(kind, *networks, **settings):
    torch.manual_seed(0)
    method = kind(SHAPE, *networks, **settings).double()
    method.noise = as_noise(5)
    return method


def ebm(**settings):
    return made(EBM, ENERGY, **{"sampler": SHORT, "energy_optimizer": spec(SGD, lr=1.0), **settings})


def wgan(**settings):
    rates = {"vae_optimizer": spec(SGD, lr=1.0), "energy_optimizer": spec(SGD, lr=1.0)}
    return made(WGAN, VAE_SPEC, ENERGY, **{**rates, **settings})


def gan(**settings):
    rates = {"generator_optimizer": spec(SGD, lr=1.0), "discriminator_optimizer": spec(SGD, lr=1.0)}
    return made(GAN, DECODER, ENERGY, latent_dim=LATENT, **{**rates, **settings})


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


def assert_moved(before, after, expected):
    """With plain SGD at rate one, the gradient of an update is what the parameters lost."""
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for b, a, gradient in zip(before.parameters(), after.parameters(), expected, strict=True):
        torch.testing.assert_close(b.detach() - a.detach(), gradient, rtol=1e-10, atol=1e-10)


def descended(network, expected):
    """The network after a step of plain SGD at rate one."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter, gradient in zip(other.parameters(), expected, strict=True):
            parameter -= gradient
    return other


def unmoved(before, after):
    return all(torch.equal(b, a) for b, a in zip(before.parameters(), after.parameters(), strict=True))


def trained_vae(path, latent_dim=LATENT):
    """A checkpoint of a VAE, and its decoder."""
    torch.manual_seed(3)
    vae = VAE(SHAPE, ENCODER, DECODER, latent_dim=latent_dim, sigma=0.4)
    trainer = quiet_trainer()
    trainer.strategy.connect(vae)
    trainer.save_checkpoint(path)
    return vae.decoder.double()


# -- EBM ------------------------------------------------------------------------------------------------------------


def chain_by_hand(energy, x, noise):
    """Three steps of SHORT: s = 0.2, T = 1e-2."""
    for _ in range(3):
        x = (x + math.sqrt(0.2 * 1e-2) * noise.normal(x.shape, x)).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = (x - 0.1 * gradient.clamp(-0.05, 0.05)).clamp(-0.9, 0.9)
    return x.detach()


def test_ebm_two_iterations_by_hand(fit, digits):
    settings = {"fresh_probability": 0.5, "data_noise": 0.1, "penalties": [EnergyL2(0.2)]}
    method = ebm(**settings)
    energy = copy.deepcopy(method.energy_network)
    fit(method, [digits, digits.flip(0)])

    noise, kept = as_noise(5), None
    for x in (digits, digits.flip(0)):
        start = -0.9 + 1.8 * noise.uniform(x.shape, x)
        if kept is not None:
            old, rows = noise.uniform((8,), x) < 0.5, noise.integers(8, (8,), like=x)
            assert 0 < old.sum() < 8
            start = torch.where(old[:, None, None, None], kept[rows], start)
        end = chain_by_hand(energy, start, noise)
        kept = end if kept is None else torch.cat([kept, end])
        data, model = energy(x + 0.1 * noise.normal(x.shape, x)), energy(end)
        loss = data.mean() - model.mean() + 0.2 * (data**2 + model**2).mean()
        last, expected = energy, gradients(loss, energy)
        energy = descended(energy, expected)
    torch.testing.assert_close(method.replay.leaves[0], kept, rtol=1e-10, atol=1e-10)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for a, b in zip(method.energy_network.parameters(), energy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not unmoved(last, energy)


def test_the_default_chain_is_igebms_in_its_own_units():
    """On [0, 1]: noise of 0.005, then ten times the gradient at the noisy point, clamped to ±0.01; clipped."""
    method = made(EBM, ENERGY)
    x = 0.5 + 0.5 * torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    chain = method.sampler(method.energy, 2 * x - 1, steps=5, noise=3)
    noise = as_noise(3)
    for _ in range(5):
        x = (x + 0.005 * noise.normal(x.shape, x)).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(method.energy(2 * x - 1).sum(), x)
        assert gradient.abs().max() > 0.01
        x = (x - 10 * gradient.clamp(-0.01, 0.01)).clamp(0, 1)
    torch.testing.assert_close(chain.x, 2 * x.detach() - 1, rtol=1e-10, atol=1e-10)
    assert method.sampler.steps == 60 and method.replay.capacity == 10_000


@pytest.mark.parametrize(("buffer", "expected"), [(5000, 0.95), (0, 0.0)])
def test_the_share_of_chains_that_begin_in_the_buffer(fit, buffer, expected):
    method = ebm(sampler=Langevin(0), buffer=buffer, energy_optimizer=spec(SGD, lr=0.0))
    ends, update = [], method.update_energy
    method.update_energy = lambda data, negatives, clock: (ends.append(negatives), update(data, data, clock=clock))
    if buffer:
        method.replay.push(torch.full((100, *SHAPE), 7.0).double())
    fit(method, [torch.zeros(2000, *SHAPE).double()])
    old = (ends[0] == 7).flatten(1).all(1)
    assert abs(old.double().mean() - expected) < 4 * (0.95 * 0.05 / 2000) ** 0.5
    fresh = ends[0][~old]
    assert fresh.abs().max() <= 1 and abs(fresh.mean()) < 0.02 and abs(fresh.var() - 1 / 3) < 0.01


def test_kept_chains_of_another_number_of_processes_are_dealt_out_anew():
    states = []
    for rank in range(2):
        method = ebm()
        method.replay.push(torch.full((2, *SHAPE), float(rank)))
        states.append(method.replay.state_dict())
    method = ebm()
    method.on_load_checkpoint({"replay": states})
    assert method.replay.leaves[0][:, 0, 0, 0].tolist() == [0, 1, 0, 1]  # by age


def test_ebm_samples_by_its_test_chain_and_scores(digits):
    method = ebm(refine=Langevin(4, 0.2, 1e-2)).eval()
    assert method.test_sampler() == (method.refine, 4) and ebm().test_sampler() == (SHORT, 3)
    torch.testing.assert_close(method.score(digits), -method.energy_network(digits))
    torch.testing.assert_close(method.log_density(digits), -100 * method.energy_network(digits))
    with pytest.raises(ValueError, match="temperature 0 has learnt no density"):
        ebm(sampler=Langevin(3, 0.1, 0.0)).log_density(digits)
    method, frames = method.float(), []
    with torch.inference_mode():
        last = method.sample(3, noise=1, watch=lambda step, state: frames.append(state.x))
    start = method.sample(3, noise=1, steps=0)
    assert len(frames) == 4 and torch.equal(frames[0], start) and not torch.equal(last, start)
    torch.testing.assert_close(start, -0.9 + 1.8 * as_noise(1).uniform((3, *SHAPE)))


def test_a_network_that_ends_in_a_linear_layer_is_an_energy():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    model = EBM((1, 2, 2), network, sampler=Langevin(2, 0.1))
    x = torch.ones(3, 1, 2, 2)
    assert torch.equal(model.energy(x), network(x)[:, 0].detach()) and model.sample(3, noise=0).shape == x.shape


def test_ebm_chains_from_a_trained_vae(fit, digits, tmp_path):
    decoder = trained_vae(tmp_path / "vae.ckpt")
    settings = {"vae": VAE_SPEC, "vae_ckpt": str(tmp_path / "vae.ckpt"), "energy_optimizer": spec(SGD, lr=1e-3)}
    method = ebm(**settings)
    trainer = fit(method, [digits] * 2)
    assert unmoved(decoder, method.vae.decoder) and list(method.players()) == ["energy"]
    start = copy.deepcopy(method).float().sample(5, noise=1, steps=0)
    expected = decoder(as_noise(1).normal((5, LATENT)).double()).detach().float()
    torch.testing.assert_close(start, expected)
    trainer.save_checkpoint(tmp_path / "ebm.ckpt")
    (tmp_path / "vae.ckpt").unlink()
    resumed = ebm(**settings)
    again = quiet_trainer(max_epochs=2)
    again.fit(resumed, torch.utils.data.DataLoader([digits] * 2, batch_size=None), ckpt_path=tmp_path / "ebm.ckpt")
    assert unmoved(decoder, resumed.vae.decoder) and len(resumed.replay) == 32
    with pytest.raises(FileNotFoundError, match=r"no stage-one checkpoint at .*vae.ckpt \(vae_ckpt") as error:
        fit(ebm(**settings), [digits])
    assert "vae_steps" not in str(error.value)
    with pytest.raises(ValueError, match="need both"):
        ebm(vae=VAE_SPEC)


# -- VAE + WGAN -----------------------------------------------------------------------------------------------------


def test_lipschitz_penalty_of_a_known_slope(digits):
    assert lipschitz_penalty(lambda x: (3 * x).flatten(1).sum(1), digits).item() == pytest.approx((24 - 1) ** 2)


def negative_elbo(encoder, decoder, x, xi, sigma):
    mean, log_variance = encoder(x)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    log_p = torch.distributions.Normal(decoder(mean + q.stddev * xi), sigma).log_prob(x).flatten(1).sum(1)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0 * mean, 1.0)).sum(1)
    return (kl - log_p).mean()


def critic_by_hand(energy, decoder, x, noise, weight, steps):
    for _ in range(steps):
        generated = decoder(noise.normal((8, LATENT), x)).detach()
        u = noise.uniform((8, 1, 1, 1), x)
        between = (u * x + (1 - u) * generated).requires_grad_(True)
        (slope,) = torch.autograd.grad(energy(between).sum(), between, create_graph=True)
        penalty = ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        expected = gradients(energy(x).mean() - energy(generated).mean() + weight * penalty, energy)
        energy = descended(energy, expected)
    return energy


def test_vae_and_critic_jointly(fit, digits):
    method = wgan(elbo_weight=0.3, critic_steps=2, gradient_penalty=2.0)
    before = copy.deepcopy(method)
    assert fit(method, [digits]).global_step == 1

    noise, vae = as_noise(5), before.vae
    energy = critic_by_hand(before.energy_network, vae.decoder, digits, noise, 2.0, steps=2)
    for a, b in zip(method.energy_network.parameters(), energy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not unmoved(before.energy_network, energy)
    loss = energy(vae.decoder(noise.normal((8, LATENT), digits))).mean()
    xi = noise.normal((8, LATENT), digits)
    loss = loss + 0.3 * negative_elbo(vae.encoder, vae.decoder, digits, xi, vae.log_sigma.exp())
    assert_moved(vae, method.vae, gradients(loss, vae))


def test_a_trained_decoder_against_the_critic_alone(fit, digits, tmp_path):
    decoder = trained_vae(tmp_path / "vae.ckpt")
    method = wgan(elbo_weight=0.0, vae_ckpt=str(tmp_path / "vae.ckpt"), energy_optimizer=spec(SGD, lr=0.0))
    energy = method.energy_network
    fit(method, [digits])
    noise = as_noise(5)
    noise.normal((8, LATENT), digits)  # the critic's
    adversarial = energy(decoder(noise.normal((8, LATENT), digits))).mean()
    assert_moved(decoder, method.vae.decoder, gradients(adversarial, decoder))
    taken = torch.load(tmp_path / "vae.ckpt", weights_only=True)["state_dict"]
    for name, value in method.vae.encoder.state_dict().items():
        assert torch.equal(value, taken[f"encoder.{name}"].double())


def test_wgan_contract(digits):
    method = wgan().eval()
    assert torch.equal(method.score(digits), -method.energy(digits)) and method.test_sampler() == (None, 0)
    method = method.float()
    start = method.sample(3, noise=1)
    torch.testing.assert_close(start, method.vae.decoder(as_noise(1).normal((3, LATENT))).detach())
    with pytest.raises(ValueError, match="no chain"):
        method.sample(1, steps=2)
    with pytest.raises(ValueError, match="critic_steps must be at least 1"):
        wgan(critic_steps=0)


# -- GAN ------------------------------------------------------------------------------------------------------------


def test_gan_losses(fit, digits):
    method = gan(discriminator_steps=2)
    before = copy.deepcopy(method)
    assert fit(method, [digits]).global_step == 1

    noise, generator, discriminator = as_noise(5), before.generator, before.discriminator
    for _ in range(2):
        generated = generator(noise.normal((8, LATENT), digits)).detach()
        loss = -logsigmoid(discriminator(digits)).mean() - torch.log(1 - discriminator(generated).sigmoid()).mean()
        discriminator = descended(discriminator, gradients(loss, discriminator))
    for a, b in zip(method.discriminator.parameters(), discriminator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not unmoved(before.discriminator, discriminator)
    loss = -discriminator(generator(noise.normal((8, LATENT), digits))).sigmoid().log().mean()
    assert_moved(generator, method.generator, gradients(loss, generator))


def test_gan_samples_and_refuses():
    method = gan().float().eval()
    torch.testing.assert_close(method.sample(3, noise=1), method.decode(as_noise(1).normal((3, LATENT))).detach())
    with pytest.raises(ValueError, match="no chain"):
        method.sample(1, steps=2)
    with pytest.raises(ValueError, match="discriminator_steps must be at least 1"):
        gan(discriminator_steps=0)


# -- cooperative learning: EC-VAE's switch ----------------------------------------------------------------------------


def cooperative(**settings):
    rates = {"vae_optimizer": spec(SGD, lr=1.0), "energy_optimizer": spec(SGD, lr=1.0)}
    defaults = {"latent_dim": LATENT, "sampler": SHORT, "sigma": 0.4, "kl_weight": 1.0, "condition_weight": 0.0}
    switch = {"bound_on": "revised", "calibration_weight": 0.0, "dual_rate": 0.0}
    return made(ECVAE, ENCODER, DECODER, ENERGY, **{**rates, **defaults, **switch, **settings})


def test_the_cooperative_vae_learns_from_revised_samples_alone(fit, digits):
    method = cooperative()
    before = copy.deepcopy(method)
    fit(method, [digits])
    noise = as_noise(5)
    generated = before.decoder(noise.normal((8, LATENT), digits)).detach()
    revised = chain_by_hand(before.energy_network, generated, noise)
    parts = nn.ModuleList([before.encoder, before.decoder])
    loss = negative_elbo(*parts, revised, noise.normal((8, LATENT), digits), before.log_sigma.exp())
    assert_moved(parts, nn.ModuleList([method.encoder, method.decoder]), gradients(loss, parts))
    assert method.calibration_weight == 0


def test_the_cooperative_vae_takes_the_kept_samples(fit, digits):
    method, seen = cooperative(pair_memory=16, vae_optimizer=spec(SGD, lr=1e-4)), []
    bound = method.elbo
    method.elbo = lambda x: (seen.append(x), bound(x))[1]
    fit(method, [digits, digits.flip(0)])
    assert [len(x) for x in seen] == [8, 16] and torch.equal(seen[1], method.pairs.leaves[1])
    with pytest.raises(ValueError, match="unknown bound_on 'samples': choose one of data, revised"):
        cooperative(bound_on="samples")


# -- several processes ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: ebm(buffer=0, energy_optimizer=spec(SGD, lr=1e-1)),
        lambda: wgan(gradient_penalty=1.0, critic_steps=2, vae_optimizer=spec(SGD, lr=1e-3)),
        lambda: gan(discriminator_steps=2),
    ],
    ids=["ebm", "wgan", "gan"],
)
def test_two_processes_equal_one_with_the_joined_batch(make, digits, tmp_path):
    found = []
    for name, settings in {
        "one": {},
        "two": {"devices": 2, "strategy": "ddp_fork_find_unused_parameters_true", "use_distributed_sampler": False},
    }.items():
        trainer = quiet_trainer(max_epochs=1, callbacks=[Joint(tmp_path / name)], **settings)
        trainer.fit(make(), torch.utils.data.DataLoader(Halves([digits, digits.flip(0)]), batch_size=None))
        found.append(torch.load(tmp_path / name, weights_only=True))
    begun = make().state_dict()
    assert any(not torch.equal(value, begun[name]) for name, value in found[0].items())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-12)
