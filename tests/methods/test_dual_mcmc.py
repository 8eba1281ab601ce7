"""Dual-MCMC: its three losses with both chains written out, in float64, to 1e-10; its options; its contract."""

import copy
import math

import pytest
import torch
from torch.distributions import Normal
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import DualMCMC
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import Energy, Pairs
from ebmzoo.parts.objectives import EnergyL2

from .by_hand import (
    DECODER,
    ENCODER,
    ENERGY,
    LATENT,
    SHAPE,
    apply,
    assert_moved,
    error,
    made,
    negative_elbo,
    steps_of,
    unmoved,
)


def dual(energy=ENERGY, **settings):
    defaults = {
        "latent_dim": LATENT,
        "sampler": Langevin(3, 0.2, 1e-2),
        "latent_sampler": Langevin(2, 0.05),
        "sigma": 0.4,
        "energy_optimizer": spec(SGD, lr=1.0),
        "generator_optimizer": spec(SGD, lr=1.0),
        "inference_optimizer": spec(SGD, lr=1.0),
    }
    return made(DualMCMC, ENCODER, DECODER, energy, **{**defaults, **settings})


def x_chain(energy, x, noise):
    """Eq. 20 in the normal form: s = 0.2, T = 1e-2."""
    for _ in range(3):
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = x.detach() - 0.1 * gradient + math.sqrt(0.2 * 1e-2) * noise.normal(x.shape, x)
    return x


def z_chain(generator, z, x, noise):
    """Eq. 21, whose step 0.025 is half of s = 0.05, with sigma = 0.4."""
    for _ in range(2):
        z = z.clone().requires_grad_(True)
        log_joint = Normal(generator(z), 0.4).log_prob(x).sum() + Normal(0.0, 1.0).log_prob(z).sum()
        (gradient,) = torch.autograd.grad(log_joint, z)
        z = z.detach() + 0.025 * gradient + math.sqrt(2 * 0.025) * noise.normal(z.shape, z)
    return z


def both_chains(before, x, noise, z_init="inference"):
    """Lines 2 to 4 of Algorithm 1: z, the revised x, the revised z."""
    z = noise.normal((len(x), LATENT), x)
    xi = noise.normal((len(x), LATENT), x)
    mean, log_variance = (part.detach() for part in before.vae.encoder(x))
    inferred = xi if z_init == "noise" else mean + (0.5 * log_variance).exp() * xi
    revised_x = x_chain(before.ebm, before.vae.decoder(z).detach(), noise)
    return z, revised_x, z_chain(before.vae.decoder, inferred, x, noise)


def energy_loss(before, x, revised_x):
    return before.ebm(x).mean() - before.ebm(revised_x).mean()


def generator_loss(before, x, z, revised_x, revised_z, weight):
    """Eq. 18 without its constants: minus log p(x, z) of both pairs."""
    of_data = (x - before.vae.decoder(revised_z)).square().sum((1, 2, 3))
    of_model = (revised_x - before.vae.decoder(z)).square().sum((1, 2, 3))
    return (of_data / (2 * 0.4**2) + weight * of_model / (2 * 0.4**2)).mean()


def inference_loss(before, x, z, revised_x, revised_z, weight):
    """Eq. 19: minus log q of both pairs."""
    of_data, of_model = (
        Normal(mean, (0.5 * log_variance).exp()) for mean, log_variance in map(before.vae.encoder, (x, revised_x))
    )
    return -of_data.log_prob(revised_z).sum(1).mean() - weight * of_model.log_prob(z).sum(1).mean()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (50.0, 0.1)], ids=["the paper's weights", "the code's weights"])
@pytest.mark.parametrize("z_init", ["inference", "noise"])
def test_losses_and_chains(fit, digits, weights, z_init):
    of_generator, of_inference = weights
    method = dual(z_init=z_init, generator_weight=of_generator, inference_weight=of_inference)
    before = copy.deepcopy(method)
    fit(method, [digits])

    z, revised_x, revised_z = both_chains(before, digits, as_noise(5), z_init)
    assert_moved(before.ebm, method.ebm, energy_loss(before, digits, revised_x))
    pairs = (digits, z, revised_x, revised_z)
    assert_moved(before.vae.decoder, method.vae.decoder, generator_loss(before, *pairs, of_generator))
    assert_moved(before.vae.encoder, method.vae.encoder, inference_loss(before, *pairs, of_inference))


def test_the_paper_weighs_both_pairs_equally():
    method = DualMCMC(SHAPE, ENCODER, DECODER, ENERGY)
    assert (method.generator_weight, method.inference_weight) == (1.0, 1.0)


def test_fresh_chains_run_under_what_was_updated_before(fit, digits):
    method = dual(fresh_chains=True)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise, model = as_noise(5), copy.deepcopy(before)
    _, revised_x, _ = both_chains(model, digits, noise)
    assert_moved(before.ebm, method.ebm, energy_loss(before, digits, revised_x))
    model.ebm = method.ebm
    z, revised_x, revised_z = both_chains(model, digits, noise)
    assert_moved(before.vae.decoder, method.vae.decoder, generator_loss(before, digits, z, revised_x, revised_z, 1.0))
    model.vae.decoder = method.vae.decoder
    z, revised_x, revised_z = both_chains(model, digits, noise)
    assert_moved(before.vae.encoder, method.vae.encoder, inference_loss(before, digits, z, revised_x, revised_z, 1.0))


def test_a_warm_start_is_the_vaes_bound_for_one_network_after_the_other(fit, digits):
    method = dual(vae_steps=1)
    before = copy.deepcopy(method)
    fit(method, [0.1 * digits])

    noise, x, between = as_noise(5), 0.1 * digits, copy.deepcopy(before)
    xi = noise.normal((len(x), LATENT), x)
    assert_moved(before.vae.decoder, method.vae.decoder, negative_elbo(before.vae, x, xi))
    between.vae.decoder = method.vae.decoder
    xi = noise.normal((len(x), LATENT), x)
    assert_moved(between.vae.encoder, method.vae.encoder, negative_elbo(between.vae, x, xi))
    assert unmoved(before.ebm, method.ebm)


def test_data_noise_and_penalties_reach_the_energy_alone(fit, digits):
    method = dual(spec(Energy, network=ENERGY, data_noise=0.1, penalties=[EnergyL2(0.2)]))
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    z, revised_x, revised_z = both_chains(before, digits, noise)
    noisy = digits + 0.1 * noise.normal(digits.shape, digits)
    energies = before.ebm(noisy), before.ebm(revised_x)
    loss = energies[0].mean() - energies[1].mean() + 0.2 * (energies[0] ** 2 + energies[1] ** 2).mean()
    assert_moved(before.ebm, method.ebm, loss)
    assert_moved(before.vae.decoder, method.vae.decoder, generator_loss(before, digits, z, revised_x, revised_z, 1.0))


def test_the_generator_learns_several_times_from_the_last_pairs(fit, digits):
    batches = [digits, digits.flip(0)]
    rate = spec(SGD, lr=0.01)
    still = spec(SGD, lr=0.0)
    optimizers = {"energy_optimizer": still, "generator_optimizer": rate, "inference_optimizer": still}
    method = dual(pairs=spec(Pairs, updates=2, memory=12), generator_weight=3.0, **optimizers)
    model = copy.deepcopy(method)
    trainer = fit(method, batches)
    assert trainer.global_step == 2  # one clock step an iteration, however many updates

    noise, kept = as_noise(5), []
    for x in batches:
        kept = [*kept, *zip(x, *both_chains(model, x, noise), strict=True)][-12:]
        x_kept, z, revised_x, revised_z = (torch.stack(part) for part in zip(*kept, strict=True))
        for _ in range(2):
            loss = generator_loss(model, x_kept, z, revised_x, revised_z, 3.0)
            apply(steps_of(loss, model.vae.decoder, rate=0.01))
    for expected, actual in zip(model.vae.decoder.parameters(), method.vae.decoder.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_chains_leave_networks_as_they_were(digits):
    norms = [spec(MLPEncoder, width=7, norm="batch"), spec(MLPDecoder, width=7, norm="batch")]
    energy = spec(MLPEnergy, width=6, spectral_norm=True, activation="relu")
    method = DualMCMC(SHAPE, *norms, energy, latent_dim=LATENT).train()
    state = copy.deepcopy(method.state_dict())
    first = method.revise(digits.float())
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in method.parameters())
    assert not first.x.x.requires_grad and not first.latent.x.requires_grad


def test_what_is_logged(fit, digits, monkeypatch):
    method, logged = dual(), {}
    monkeypatch.setattr(method, "log", lambda name, value, **_: logged.update({name: float(value)}))
    fit(method, [digits])
    players = ("energy", "generator", "inference")
    expected = {f"train/{kind}_{player}" for player in players for kind in ("loss", "grad_norm")}
    expected |= {"train/energy_data", "train/energy_model", "train/energy_gap"}
    expected |= {"mcmc/displacement", "mcmc/movement", "mcmc/grad_norm", "mcmc/saturation"}
    expected |= {"mcmc/displacement_z", "mcmc/grad_norm_z", "train/sse_data", "train/nll_model"}
    assert expected <= logged.keys()
    assert all(math.isfinite(value) for value in logged.values())


def test_samples_are_the_generators_or_a_chains():
    method = dual().float().eval()
    assert method.test_sampler() == (method.sampler, 3)
    start = method.sample(4, steps=0, noise=0)
    assert torch.equal(start, method.decode(as_noise(0).normal((4, LATENT))).clamp(-1, 1))
    frames = []
    with torch.inference_mode():
        revised = method.sample(4, noise=0, watch=lambda step, state: frames.append(state.x.clone()))
    assert len(frames) == 3 and torch.equal(frames[0].clamp(-1, 1), start) and not torch.equal(revised, start)
    other = dual(refine=Langevin(5, 0.3, 1e-2)).float().eval()
    assert other.test_sampler() == (other.refine, 5)
    assert torch.equal(other.sample(4, steps=0, noise=0), start)
    assert not torch.equal(other.sample(4, noise=0), revised)
    alone = dual(refine=Langevin(0)).float().eval()
    assert alone.test_sampler()[1] == 0 and torch.equal(alone.sample(4, noise=0), start)


def test_reconstructions_along_the_chain_are_points_of_one_chain(digits):
    method = dual(latent_sampler=Langevin(40, 0.02, 0.0)).eval()
    assert torch.equal(method.reconstruct(digits, steps=0), method.decode(method.encode(digits).mean))
    frames = []
    with torch.inference_mode():
        last = method.reconstruct(digits, watch=lambda step, state: frames.append(method.decode(state.x)))
    assert len(frames) == 40 and torch.equal(last, method.reconstruct(digits))
    for steps in (0, 1, 17):
        assert torch.equal(method.reconstruct(digits, steps=steps), frames[steps])
    # Without noise the chain descends -log p(x, z): the error falls at every example.
    assert (error(last, digits) < error(frames[0], digits)).all()
    noisy = dual(latent_sampler=Langevin(4, 0.02)).eval()
    assert torch.equal(noisy.reconstruct(digits), noisy.reconstruct(digits))
    assert not torch.equal(noisy.reconstruct(digits), noisy.reconstruct(digits, noise=1))
    blind = dual(z_init="noise").eval()
    start = as_noise(0).normal((8, LATENT), digits)
    assert torch.equal(blind.reconstruct(digits, steps=0), blind.decode(start))


def test_a_reconstruction_is_that_of_eq_21_from_the_mean(digits):
    method = dual()
    mean, _ = method.vae.encoder(digits)
    z = z_chain(method.vae.decoder, mean.detach(), digits, as_noise(0))
    torch.testing.assert_close(method.reconstruct(digits), method.vae.decoder(z).detach(), rtol=1e-10, atol=1e-10)


def test_held_out_data_are_told_by_errors_before_and_after_the_chain(digits):
    method = dual()
    found = method.validate(digits, 4)  # the noise of a batch has its number
    assert set(found) == {"mse_before_chain", "mse", "energy_data"}
    mean, _ = method.vae.encoder(digits)
    z = z_chain(method.vae.decoder, mean.detach(), digits, as_noise(4))
    torch.testing.assert_close(found["mse_before_chain"], error(method.vae.decoder(mean), digits) / 64)
    torch.testing.assert_close(found["mse"], error(method.vae.decoder(z), digits) / 64)
    torch.testing.assert_close(found["energy_data"], method.ebm(digits))


def test_scores(digits):
    method = dual().eval()
    torch.testing.assert_close(method.energy(digits), method.ebm.network(digits).squeeze().detach())
    assert torch.equal(method.score(digits), -method.energy(digits))
    torch.testing.assert_close(method.log_density(digits), -method.energy(digits) / 1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z_init": "prior"}, "unknown z_init 'prior': choose one of inference, noise"),
        ({"pairs": spec(Pairs, updates=0)}, "a chain gives at least 1 update, not 0"),
    ],
)
def test_a_setting_that_is_not_there_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        dual(**settings)
