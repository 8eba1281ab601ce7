"""What a resumed training finds as it was, random states and broken epochs, and the optimiser settings that hold."""

import copy
import math
import random

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR

from ebmzoo.data import Digits
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin
from ebmzoo.methods import ECVAE
from ebmzoo.methods.resuming import _mend_epochs, _random_state, _restore_random_state, gathered, put_into
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from .conftest import quiet_trainer

ENCODER, DECODER, ENERGY = [spec(kind, width=8, depth=1) for kind in (MLPEncoder, MLPDecoder, MLPEnergy)]
BASE = spec(GaussianVAE, encoder=ENCODER, decoder=DECODER, latent_dim=2)
LR, T = 1e-3, 8


def test_random_numbers_go_on_where_they_were():
    torch.manual_seed(3)
    random.seed(4)
    torch.rand(5), random.gauss(0, 1)  # which keeps the second of a pair for the next call
    state = _random_state()
    expected = torch.rand(3), random.gauss(0, 1), random.random()
    torch.manual_seed(0)
    random.seed(0)
    _restore_random_state(state)
    assert torch.equal(torch.rand(3), expected[0]) and (random.gauss(0, 1), random.random()) == expected[1:]


def test_a_random_state_is_tensors_and_plain_data(tmp_path):
    torch.save(gathered(_random_state()), tmp_path / "rng")
    (again,) = torch.load(tmp_path / "rng", weights_only=True)  # of the one process that there is
    torch.manual_seed(1)
    _restore_random_state(again)
    assert torch.equal(again["torch"], torch.get_rng_state())


@pytest.mark.parametrize(
    ("batches", "last", "completed"),
    [(3, False, 1), (3, True, 2), (0, False, 2)],  # within an epoch; at its end; before a batch of the next
)
def test_an_epoch_that_was_broken_off_is_not_counted(batches, last, completed):
    loop = {
        "epoch_progress": {"current": {"ready": 2, "processed": 2, "completed": 2}},
        "epoch_loop.batch_progress": {"current": {"ready": batches}, "is_last_batch": last},
    }
    _mend_epochs(loop)
    found = loop["epoch_progress"]["current"]
    assert found == {"ready": 2, "processed": completed, "completed": completed}


def test_an_epoch_that_still_runs_is_left_alone():
    loop = {
        "epoch_progress": {"current": {"ready": 2, "processed": 1, "completed": 1}},
        "epoch_loop.batch_progress": {"current": {"ready": 3}, "is_last_batch": False},
    }
    _mend_epochs(loop)
    assert loop["epoch_progress"]["current"] == {"ready": 2, "processed": 1, "completed": 1}


# -- other optimiser settings: they hold, as if they had always been so, and nothing else changes --------------------


def ecvae(vae=None, energy=None, **settings):
    optimizers = {"vae_optimizer": vae or spec(Adam, lr=LR), "energy_optimizer": energy or spec(Adam, lr=LR)}
    return ECVAE((1, 8, 8), BASE, ENERGY, sampler=Langevin(steps=1), **optimizers, **settings)


def cosine(t_max):
    return {name: spec(CosineAnnealingLR, T_max=t_max) for name in ("vae_schedule", "energy_schedule")}


def trained(tmp_path, model, steps=4):
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(model, Digits(batch_size=16))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    return torch.load(tmp_path / "a.ckpt", weights_only=True)


def resumed(tmp_path, model, steps):
    """Learning rate and betas of each player after so many steps in all."""
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(model, Digits(batch_size=16), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    return [(group["lr"], *group["betas"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]


def test_a_changed_setting_is_that_players_alone(tmp_path):
    trained(tmp_path, ecvae())
    other = ecvae(energy=spec(Adam, lr=LR / 4, betas=(0.5, 0.9)))
    assert resumed(tmp_path, other, steps=6) == [(LR, 0.9, 0.999), (LR / 4, 0.5, 0.9)]


@pytest.mark.parametrize("done", [4, 8])
def test_a_longer_schedule_is_as_if_it_had_always_been_so(tmp_path, done):
    """At the end of the shorter one the rate was 0, and rose to its beginning again where the old length went on."""
    trained(tmp_path, ecvae(**cosine(T)), steps=done)
    rates = resumed(tmp_path, ecvae(**cosine(2 * T)), steps=10)
    assert [rate for rate, *_ in rates] == pytest.approx([LR / 2 * (1 + math.cos(math.pi * 10 / (2 * T)))] * 2)


def test_a_changed_rate_under_a_schedule_keeps_a_guards_halvings(tmp_path):
    checkpoint = trained(tmp_path, ecvae(**cosine(T)))
    for state, schedule in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
        for group in state["param_groups"]:
            group["lr"], group["initial_lr"] = group["lr"] / 2, group["initial_lr"] / 2
        schedule["base_lrs"] = [LR / 2]
    put_into(checkpoint, ecvae(vae=spec(Adam, lr=3 * LR), **cosine(T)).players())
    groups = [state["param_groups"][0] for state in checkpoint["optimizer_states"]]
    assert [group["initial_lr"] for group in groups] == pytest.approx([3 * LR / 2, LR / 2])
    assert [group["lr"] for group in groups] == pytest.approx([3 * LR / 4, LR / 4])  # half way down the cosine
    assert [schedule["base_lrs"][0] for schedule in checkpoint["lr_schedulers"]] == pytest.approx([3 * LR / 2, LR / 2])


def test_what_was_not_changed_stays_bit_for_bit(tmp_path):
    checkpoint = trained(tmp_path, ecvae(**cosine(T)))
    same = copy.deepcopy(checkpoint)
    put_into(same, ecvae(**cosine(T)).players())
    older = {**copy.deepcopy(checkpoint), "ebmzoo": {}}  # says nothing of its settings
    put_into(older, ecvae(vae=spec(Adam, lr=1.0), **cosine(T)).players())
    for kept in (same, older):
        assert kept["lr_schedulers"] == checkpoint["lr_schedulers"]
        groups = [[state["param_groups"] for state in one["optimizer_states"]] for one in (kept, checkpoint)]
        assert groups[0] == groups[1]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"energy": spec(SGD, lr=0.1)}, "trained energy by Adam without a schedule: it cannot go on by SGD"),
        (
            {"vae_schedule": spec(ExponentialLR, gamma=0.9)},
            "cannot go on by Adam with ExponentialLR: their",
        ),
    ],
)
def test_another_kind_is_refused_in_one_line(tmp_path, other, words):
    checkpoint = trained(tmp_path, ecvae(), steps=1)
    with pytest.raises(ValueError, match=words):
        put_into(checkpoint, ecvae(**other).players())
