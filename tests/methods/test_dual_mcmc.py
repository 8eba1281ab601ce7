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
from ebmzoo.objectives import EnergyL2

SHAPE, LATENT = (1, 8, 8), 3
PARTS = {
    "encoder": spec(MLPEncoder, width=7, depth=1),
    "decoder": spec(MLPDecoder, width=7, depth=1),
    "energy": spec(MLPEnergy, width=6, depth=1),
}
NETWORKS = ("encoder", "decoder", "energy_network")


def dual(**settings):
    torch.manual_seed(0)
    defaults = {
        "latent_dim": LATENT,
        "sampler": Langevin(3, 0.2, 1e-2),
        "latent_sampler": Langevin(2, 0.05),
        "sigma": 0.4,
        "energy_optimizer": spec(SGD, lr=1.0),
        "generator_optimizer": spec(SGD, lr=1.0),
        "inference_optimizer": spec(SGD, lr=1.0),
    }
    return DualMCMC(SHAPE, **PARTS, **{**defaults, **settings})


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
    mean, log_variance = (part.detach() for part in before.encoder(x))
    inferred = xi if z_init == "noise" else mean + (0.5 * log_variance).exp() * xi
    revised_x = x_chain(before.energy_network, before.decoder(z).detach(), noise)
    return z, revised_x, z_chain(before.decoder, inferred, x, noise)


def energy_loss(before, x, revised_x):
    return before.energy_network(x).mean() - before.energy_network(revised_x).mean()


def generator_loss(before, x, z, revised_x, revised_z, weight):
    """Eq. 18 without its constants: minus log p(x, z) of both pairs."""
    of_data = (x - before.decoder(revised_z)).square().sum((1, 2, 3))
    of_model = (revised_x - before.decoder(z)).square().sum((1, 2, 3))
    return (of_data / (2 * 0.4**2) + weight * of_model / (2 * 0.4**2)).mean()


def inference_loss(before, x, z, revised_x, revised_z, weight):
    """Eq. 19: minus log q of both pairs."""
    of_data, of_model = (
        Normal(mean, (0.5 * log_variance).exp()) for mean, log_variance in map(before.encoder, (x, revised_x))
    )
    return -of_data.log_prob(revised_z).sum(1).mean() - weight * of_model.log_prob(z).sum(1).mean()


def assert_moved_by(before, after, name, loss):
    """With plain SGD at rate one, the gradient of an update is what the parameters lost."""
    old, new = (list(getattr(method, name).parameters()) for method in (before, after))
    expected = torch.autograd.grad(loss, old)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for b, a, gradient in zip(old, new, expected, strict=True):
        torch.testing.assert_close((b - a).detach(), gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (50.0, 0.1)], ids=["the paper's weights", "the code's weights"])
@pytest.mark.parametrize("z_init", ["inference", "noise"])
def test_losses_and_chains(fit, digits, weights, z_init):
    of_generator, of_inference = weights
    method = dual(z_init=z_init, generator_weight=of_generator, inference_weight=of_inference).double()
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    z, revised_x, revised_z = both_chains(before, digits, as_noise(5), z_init)
    assert_moved_by(before, method, "energy_network", energy_loss(before, digits, revised_x))
    pairs = (digits, z, revised_x, revised_z)
    assert_moved_by(before, method, "decoder", generator_loss(before, *pairs, of_generator))
    assert_moved_by(before, method, "encoder", inference_loss(before, *pairs, of_inference))


def test_the_paper_weighs_both_pairs_equally():
    assert (DualMCMC(SHAPE, **PARTS).generator_weight, DualMCMC(SHAPE, **PARTS).inference_weight) == (1.0, 1.0)


def test_fresh_chains_run_under_what_was_updated_before(fit, digits):
    method = dual(fresh_chains=True).double()
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise, model = as_noise(5), copy.deepcopy(before)
    _, revised_x, _ = both_chains(model, digits, noise)
    assert_moved_by(before, method, "energy_network", energy_loss(before, digits, revised_x))
    model.energy_network = method.energy_network
    z, revised_x, revised_z = both_chains(model, digits, noise)
    assert_moved_by(before, method, "decoder", generator_loss(before, digits, z, revised_x, revised_z, 1.0))
    model.decoder = method.decoder
    z, revised_x, revised_z = both_chains(model, digits, noise)
    assert_moved_by(before, method, "encoder", inference_loss(before, digits, z, revised_x, revised_z, 1.0))


def test_data_noise_and_penalties_reach_the_energy_alone(fit, digits):
    method = dual(data_noise=0.1, penalties=[EnergyL2(0.2)]).double()
    method.noise = as_noise(5)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise = as_noise(5)
    z, revised_x, revised_z = both_chains(before, digits, noise)
    noisy = digits + 0.1 * noise.normal(digits.shape, digits)
    energies = before.energy_network(noisy), before.energy_network(revised_x)
    loss = energies[0].mean() - energies[1].mean() + 0.2 * (energies[0] ** 2 + energies[1] ** 2).mean()
    assert_moved_by(before, method, "energy_network", loss)
    assert_moved_by(before, method, "decoder", generator_loss(before, digits, z, revised_x, revised_z, 1.0))


def test_the_generator_learns_several_times_from_the_last_pairs(fit, digits):
    batches = [digits, digits.flip(0)]
    rate = spec(SGD, lr=0.01)
    still = spec(SGD, lr=0.0)
    optimizers = {"energy_optimizer": still, "generator_optimizer": rate, "inference_optimizer": still}
    method = dual(generator_steps=2, pair_memory=12, generator_weight=3.0, **optimizers).double()
    method.noise = as_noise(5)
    model = copy.deepcopy(method)
    trainer = fit(method, batches)
    assert trainer.global_step == 2  # one clock step an iteration, however many updates

    noise, kept = as_noise(5), []
    for x in batches:
        kept = [*kept, *zip(x, *both_chains(model, x, noise), strict=True)][-12:]
        x_kept, z, revised_x, revised_z = (torch.stack(part) for part in zip(*kept, strict=True))
        for _ in range(2):
            loss = generator_loss(model, x_kept, z, revised_x, revised_z, 3.0)
            gradients = torch.autograd.grad(loss, list(model.decoder.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.decoder.parameters(), gradients, strict=True):
                    parameter.sub_(0.01 * gradient)
    for expected, actual in zip(model.decoder.parameters(), method.decoder.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_chains_leave_networks_as_they_were(digits):
    norms = {"encoder": spec(MLPEncoder, width=7, norm="batch"), "decoder": spec(MLPDecoder, width=7, norm="batch")}
    energy = spec(MLPEnergy, width=6, spectral_norm=True, activation="relu")
    method = DualMCMC(SHAPE, **norms, energy=energy, latent_dim=LATENT).train()
    state = copy.deepcopy(method.state_dict())
    x = digits.float()
    first = method._revise(x)
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in method.parameters())
    assert not first.x.state.requires_grad and not first.latent.state.requires_grad


def test_what_is_logged(fit, digits, monkeypatch):
    method, logged = dual().double(), {}
    monkeypatch.setattr(method, "log", lambda name, value, **_: logged.update({name: float(value)}))
    fit(method, [digits])
    players = ("energy", "generator", "inference")
    expected = {f"train/{kind}_{player}" for player in players for kind in ("loss", "grad_norm")}
    expected |= {"train/energy_data", "train/energy_model", "train/energy_gap"}
    expected |= {"mcmc/displacement", "mcmc/movement", "mcmc/grad_norm", "mcmc/saturation"}
    assert expected <= logged.keys()
    assert all(math.isfinite(value) for value in logged.values())


def test_samples_are_the_generators_or_a_chains():
    method = dual().eval()
    assert method.test_sampler() == (method.sampler, 3)
    start = method.sample(4, steps=0, noise=0)
    assert torch.equal(start, method.decode(as_noise(0).normal((4, LATENT))))
    frames = []
    with torch.inference_mode():
        revised = method.sample(4, noise=0, callback=lambda step, x, energy: frames.append(x.clone()))
    assert len(frames) == 3 and torch.equal(frames[0], start) and not torch.equal(revised, start)
    other = dual(refine=Langevin(5, 0.3, 1e-2)).eval()
    assert other.test_sampler() == (other.refine, 5)
    assert torch.equal(other.sample(4, steps=0, noise=0), start)
    assert not torch.equal(other.sample(4, noise=0), revised)
    alone = dual(refine=Langevin(0)).eval()
    assert alone.test_sampler()[1] == 0 and torch.equal(alone.sample(4, noise=0), start)


def test_reconstructions_along_the_chain_are_points_of_one_chain(digits):
    x = digits.float()
    method = dual(latent_sampler=Langevin(40, 0.02, 0.0)).eval()
    assert torch.equal(method.reconstruct(x, steps=0), method.decode(method.encode(x)[0]))
    frames = []
    with torch.inference_mode():
        last = method.reconstruct(x, callback=lambda step, z, energy: frames.append(method.decode(z)))
    assert len(frames) == 40 and torch.equal(last, method.reconstruct(x))
    for steps in (0, 1, 17):
        assert torch.equal(method.reconstruct(x, steps=steps), frames[steps])
    # Without noise the chain descends -log p(x, z): the error falls at every example.
    assert ((last - x).square().sum((1, 2, 3)) < (frames[0] - x).square().sum((1, 2, 3))).all()
    noisy = dual(latent_sampler=Langevin(4, 0.02)).eval()
    assert torch.equal(noisy.reconstruct(x), noisy.reconstruct(x))
    assert not torch.equal(noisy.reconstruct(x), noisy.reconstruct(x, noise=1))
    blind = dual(z_init="noise").eval()
    assert torch.equal(blind.reconstruct(x, steps=0), blind.decode(as_noise(0).normal((8, LATENT))))


def test_scores():
    method = dual().eval()
    x = torch.rand(5, *SHAPE)
    assert torch.equal(method.score(x), -method.energy(x))
    torch.testing.assert_close(method.log_density(x), -method.energy(x) / 1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z_init": "prior"}, "unknown z_init 'prior': choose one of inference, noise"),
        ({"generator_steps": 0}, "generator_steps must be at least 1, not 0"),
    ],
)
def test_a_setting_that_is_not_there_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        dual(**settings)
