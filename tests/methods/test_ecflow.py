"""EC-Flow: losses, chain and dual step against the paper's formulas written out, in float64, to 1e-10."""

import copy

import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from ebmzoo.data import Digits
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECFlow, Flow
from ebmzoo.networks import Glow, MLPEnergy
from ebmzoo.parts import Calibration

from .by_hand import ENERGY, SHAPE, assert_moved, error, gradients, langevin, log_normal, made, moved, unmoved
from .conftest import quiet_trainer
from .test_flow import GLOW, LEVELS, assert_close_to_scale, stirred

CHAIN = (3, 0.2, 1e-2)


def ecflow(**settings):
    defaults = {
        "calibration": spec(Calibration, weight=2.5, rate=0.1, margin=1.5),
        "levels": LEVELS,
        "sampler": Langevin(*CHAIN),
        "sigma": 0.4,
        "flow_optimizer": spec(SGD, lr=1.0),
        "energy_optimizer": spec(SGD, lr=1.0),
    }
    method = made(ECFlow, GLOW, ENERGY, **{**defaults, **settings})
    stirred(method.flow.network)
    return method


def test_losses_chain_and_dual_step(fit, digits):
    method = ecflow(condition_weight=50.0)
    before = copy.deepcopy(method)
    fit(method, [digits])

    noise, flow = as_noise(5), before.flow.network
    x = digits + 0.125 * (noise.uniform(digits.shape, digits) - 0.5)
    generated = flow.sample(noise.normal((8, 64), digits))
    origin = generated.detach()
    revised = langevin(lambda x: before.ebm(x) + 1e-2 * 50.0 * 0.5 * error(x, origin), origin, noise, *CHAIN)
    assert_moved(before.ebm, method.ebm, before.ebm(x).mean() - before.ebm(revised).mean())
    z, log_det = flow(x)
    d = error(generated, revised)
    loss = (2.5 * d / (2 * before.log_sigma.exp() ** 2) - log_normal(z, 0.0, 1.0) - log_det).mean()
    assert_close_to_scale(moved(flow, method.flow.network), gradients(loss, flow))
    expected = 2.5 + 0.1 * (d.mean() / (3 * 0.2 * 1e-2 * 64) - 1.5) / 1.5
    torch.testing.assert_close(method.calibration.weight, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(before.log_sigma.exp().item(), 0.4)


def test_it_begins_as_the_flow(fit, digits):
    method = ecflow(flow_steps=2, flow_optimizer=spec(SGD, lr=1e-4))
    plain = made(Flow, GLOW, levels=LEVELS, optimizer=spec(SGD, lr=1e-4))
    plain.flow.load_state_dict(method.flow.state_dict())
    energy = copy.deepcopy(method.ebm)
    for model in (method, plain):
        model.noise = as_noise(3)
        fit(model, [digits, digits])
    for a, b in zip(method.flow.parameters(), plain.flow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert unmoved(energy, method.ebm)


def test_samples_are_the_flows_or_its_chains_at_the_datas_levels():
    method = ecflow().eval().float()
    start = method.flow.network.sample(as_noise(0).normal((4, 64))).detach()
    levels = 8 * (method.sample(4, noise=0) + 1)
    torch.testing.assert_close(levels, (8 * (start.clamp(-1, 1) + 1)).round(), rtol=0, atol=1e-4)
    noise = as_noise(0)
    noise.normal((4, 64))
    end = langevin(lambda x: method.ebm(x) + 1e-2 * 0.5 * error(x, start), start, noise, *CHAIN)
    revised = method.sample(4, steps=3, noise=0)
    torch.testing.assert_close(8 * (revised + 1), (8 * (end.clamp(-1, 1) + 1)).round(), rtol=0, atol=1e-3)
    assert not torch.equal(8 * (revised + 1), levels)


def test_held_out_data_are_dequantised_once_for_the_density_and_once_for_the_energy(digits):
    method = ecflow().eval()
    found, noise = method.validate(digits, as_noise(2)), as_noise(2)
    assert set(found) == {"bits_per_dim", "energy_data"}
    bound = method.log_likelihood_bound(digits, noise=noise)
    torch.testing.assert_close(found["bits_per_dim"], method.flow.bits_per_dim(bound))
    noisy = digits + 0.125 * (noise.uniform(digits.shape, digits) - 0.5)
    torch.testing.assert_close(found["energy_data"], method.energy(noisy))


def test_a_flow_takes_its_first_scales_from_data_and_not_from_its_samples(monkeypatch):
    method = ECFlow(SHAPE, spec(Glow, levels=1, steps=1, width=8), MLPEnergy, levels=LEVELS, sampler=Langevin(2, 0.1))
    generate, known = method.flow.generate, []

    def watched(*args, **call):
        known.append(bool(method.flow.network.initialised))
        return generate(*args, **call)

    monkeypatch.setattr(method.flow, "generate", watched)
    quiet_trainer(max_steps=1).fit(method, DataLoader([next(iter(loaded()))], batch_size=None))
    assert known == [True]


def loaded():
    data = Digits(batch_size=30)
    data.setup("fit")
    return data.train_dataloader()
