"""The energy-based model in x: two iterations, chains and their starts by hand, in float64, to 1e-10."""

import copy
import math

import pytest
import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import EBM
from ebmzoo.parts import Energy
from ebmzoo.parts.objectives import EnergyL2

from .by_hand import ENERGY, LATENT, SHAPE, descended, gradients, made, trained_vae, unmoved, vae_of
from .conftest import quiet_trainer

SHORT = Langevin(3, 0.2, 1e-2, grad_clamp=0.05, bounds=(-0.9, 0.9), noise_first=True)


def ebm(energy=ENERGY, **settings):
    return made(EBM, energy, **{"sampler": SHORT, "energy_optimizer": spec(SGD, lr=1.0), **settings})


def chain_by_hand(energy, x, noise):
    """Three steps of SHORT: s = 0.2, T = 1e-2."""
    for _ in range(3):
        x = (x + math.sqrt(0.2 * 1e-2) * noise.normal(x.shape, x)).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = (x - 0.1 * gradient.clamp(-0.05, 0.05)).clamp(-0.9, 0.9)
    return x.detach()


def test_two_iterations_by_hand(fit, digits):
    of = spec(Energy, network=ENERGY, data_noise=0.1, penalties=[EnergyL2(0.2)])
    method = ebm(of, fresh_probability=0.3)
    energy = copy.deepcopy(method.ebm)
    fit(method, [digits, digits.flip(0)])

    noise, kept = as_noise(5), None
    for x in (digits, digits.flip(0)):
        start = -0.9 + 1.8 * noise.uniform(x.shape, x)
        if kept is not None:
            old, rows = noise.uniform((8,), x) < 0.7, noise.integers(8, (8,), like=x)
            assert 0 < old.sum() < 8
            start = torch.where(old[:, None, None, None], kept[rows], start)
        end = chain_by_hand(energy, start, noise)
        kept = end if kept is None else torch.cat([kept, end])
        data, model = energy(x + 0.1 * noise.normal(x.shape, x)), energy(end)
        loss = data.mean() - model.mean() + 0.2 * (data**2 + model**2).mean()
        last, expected = energy, gradients(loss, energy)
        energy = descended(energy, loss)
    torch.testing.assert_close(method.replay.leaves[0], kept, rtol=1e-10, atol=1e-10)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    for a, b in zip(method.ebm.parameters(), energy.parameters(), strict=True):
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
    ends, loss = [], method.ebm.loss
    method.ebm.loss = lambda data, negatives, noise: (ends.append(negatives), loss(data, data, noise))[1]
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


def test_it_samples_by_its_test_chain_and_scores(digits):
    method = ebm(refine=Langevin(4, 0.2, 1e-2)).eval()
    assert method.test_sampler() == (method.refine, 4) and ebm().test_sampler() == (SHORT, 3)
    torch.testing.assert_close(method.score(digits), -method.ebm.network(digits))
    torch.testing.assert_close(method.log_density(digits), -100 * method.ebm.network(digits))
    with pytest.raises(ValueError, match="temperature 0 has learnt no density"):
        ebm(sampler=Langevin(3, 0.1, 0.0)).log_density(digits)
    method, frames = method.float(), []
    with torch.inference_mode():
        last = method.sample(3, noise=1, watch=lambda step, state: frames.append(state.x.clone()))
    start = method.sample(3, noise=1, steps=0)
    assert len(frames) == 4 and torch.equal(frames[0], start) and not torch.equal(last, start)
    torch.testing.assert_close(start, -0.9 + 1.8 * as_noise(1).uniform((3, *SHAPE)))


def test_chains_from_a_trained_vae(fit, digits, tmp_path):
    vae = trained_vae(tmp_path / "vae.ckpt")
    settings = {"vae": vae_of(), "vae_ckpt": str(tmp_path / "vae.ckpt"), "energy_optimizer": spec(SGD, lr=1e-3)}
    method = ebm(**settings)
    trainer = fit(method, [digits] * 2)
    assert unmoved(vae, method.vae) and list(method.players()) == ["energy"]
    start = copy.deepcopy(method).float().sample(5, noise=1, steps=0)
    expected = vae.decoder(as_noise(1).normal((5, LATENT)).double()).detach().float()
    torch.testing.assert_close(start, expected)
    assert set(method.validate(digits, as_noise(0))) == {"energy_data"}  # the VAE is given
    trainer.save_checkpoint(tmp_path / "ebm.ckpt")
    (tmp_path / "vae.ckpt").unlink()
    resumed = ebm(**settings)
    again = quiet_trainer(max_epochs=2)
    again.fit(resumed, DataLoader([digits] * 2, batch_size=None), ckpt_path=tmp_path / "ebm.ckpt")
    assert unmoved(vae, resumed.vae) and len(resumed.replay) == 32
    with pytest.raises(FileNotFoundError, match=r"no stage-one checkpoint at .*vae.ckpt \(vae_ckpt") as error:
        fit(ebm(**settings), [digits])
    assert "vae_steps" not in str(error.value)
    with pytest.raises(ValueError, match="need both"):
        ebm(vae=vae_of())
