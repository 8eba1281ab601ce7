"""The guard: what it names, what it leaves alone, and what a rollback changes."""

import json
import math

import pytest
import torch
from lightning import seed_everything
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from ebmzoo.callbacks import Diverged, Guard
from ebmzoo.callbacks.guard import Divergence, Limits
from ebmzoo.data import Digits, Gaussians25
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin
from ebmzoo.methods import ECVAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from ..faults import BadBatch, Fault, FrozenChain, LoudEnergy
from ..processes import trainer, two_processes


@pytest.fixture(autouse=True)
def fresh_faults():
    Fault.done.clear()


def complaints(looks, images=True, **limits):
    signs = Divergence(images, Limits(**limits))
    return [signs.complaint(look) for look in looks]


HEALTHY = {
    "train/energy_data": 1.0,
    "train/energy_model": 1.2,
    "train/energy_gap": -0.2,
    "train/grad_norm_energy": 3.0,
    "mcmc/movement": 0.06,
    "mcmc/saturation": 0.5,
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"train/lambda": math.nan}, "train/lambda is nan"),
        ({"train/energy_data": -math.inf}, "train/energy_data is -inf"),
        ({"train/energy_data": -2e4}, "the energy's scale is 2e+04, more than 1e+04"),
        ({"train/energy_model": 130.0}, "the energy's scale is 130, and was 1.2 at most before"),
        ({"train/energy_gap": -25.0}, "the energy gap is 25, and was 0.2 at most before"),
        ({"train/grad_norm_energy": 2e6}, "train/grad_norm_energy is 2e+06, more than 1e+06"),
        ({"train/grad_norm_energy": 3001.0}, "train/grad_norm_energy is 3e+03, and was 3 at most before"),
    ],
)
def test_what_is_named_at_once(wrong, words):
    *before, last = complaints([*[HEALTHY] * 20, HEALTHY | wrong])
    assert before == [None] * 20
    assert last == words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mcmc/movement": 0.0}, "the chain is frozen: mcmc/movement is 0"),
        ({"mcmc/movement": 9e-6}, "the chain is frozen: mcmc/movement is 9e-06"),
        ({"mcmc/saturation": 0.99}, "the chain is saturated: 99.0% of its values"),
        ({"train/energy_gap": 0.0}, "the energy is flat: train/energy_gap is 0 where train/energy_data is 1"),
        (
            {"train/energy_gap": 2e-11, "train/energy_data": 3e-12, "train/energy_model": 4e-8},
            "the energy has died: its scale is 4e-08, and was 1.2 before",
        ),
    ],
)
def test_what_is_named_when_it_lasts(wrong, words):
    looks = [HEALTHY, HEALTHY | wrong, HEALTHY | wrong, HEALTHY, *[HEALTHY | wrong] * 3]
    *before, last = complaints(looks)
    assert before == [None] * 6
    assert last.startswith(words)


def test_what_is_left_alone():
    beginning = [HEALTHY | {"train/energy_data": 1e-3 * 10**i, "train/energy_model": 0.0} for i in range(5)]
    small = [HEALTHY | {"train/energy_gap": 1e-5}, HEALTHY | {"train/energy_gap": 1.0}]
    points = [HEALTHY | {"mcmc/saturation": 1.0}] * 5
    assert not any(complaints(beginning) + complaints(small * 10) + complaints(points, images=False))
    assert not any(complaints([HEALTHY] * 20 + [HEALTHY | {"train/energy_model": 130.0}], growth=1000.0))


def test_a_gradient_is_held_against_the_first_for_its_unit_is_the_losss():
    # Dual-MCMC's generator at 32 px: a squared error of 3,072 values, times 50 / (2 * 0.3^2).
    *before, last = complaints([{"train/grad_norm_generator": g} for g in (1.6e5, 1.2e6, 9e6, 1.5e8, 1.7e8)])
    assert before == [None] * 4
    assert last == "train/grad_norm_generator is 1.7e+08, more than 1.6e+08"


def ecvae(rate=1e-3, **settings):
    torch.manual_seed(0)
    sampler = Langevin(steps=5, step_size=2.0, temperature=5e-5, grad_clamp=0.1, bounds=(-1.2, 1.2))
    networks = {"encoder": spec(MLPEncoder, width=32, depth=1), "decoder": spec(MLPDecoder, width=32, depth=1)}
    vae = spec(GaussianVAE, **networks, latent_dim=8, sigma=0.2, kl_weight=0.1)
    energy, adam = spec(MLPEnergy, width=32, depth=2), spec(Adam, lr=rate, betas=[0.0, 0.9])
    return ECVAE((1, 8, 8), vae, energy, sampler=sampler, energy_optimizer=adam, **settings)


def train(method, *callbacks, folder, steps=200, data=None, **settings):
    fit = trainer(
        settings.pop("world", 1), max_steps=steps, callbacks=list(callbacks), default_root_dir=folder, **settings
    )
    torch.manual_seed(1)
    fit.fit(method, data or Digits(batch_size=64))
    return fit


@pytest.mark.thorough
def test_a_healthy_run_is_left_alone_and_not_changed(tmp_path):
    watched, alone = ecvae(), ecvae()
    train(watched, Guard(rollbacks=1, checkpoint_every=20), folder=tmp_path, steps=65)
    train(alone, folder=tmp_path, steps=65)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert not (tmp_path / "results.json").exists()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "guard_healthy.ckpt",
        "guard_newest.ckpt",
    ]
    steps = [
        torch.load(path, weights_only=True)["global_step"] for path in sorted((tmp_path / "checkpoints").iterdir())
    ]
    assert steps == [40, 60]


FAULTS = {
    "a NaN in a batch": (BadBatch(), {}, "the batch of data of step 30 holds values that are not finite", 40),
    "energies times 10,000": (LoudEnergy(), {}, r"(energy|grad_norm)\S* .*is \S+, (more than|and was)", 40),
    "a learning rate times 100": (None, {"rate": 0.3}, "energy|grad_norm|saturated", 200),
    "a frozen chain": (FrozenChain(), {}, "the chain is frozen: mcmc/movement is", 70),
}


@pytest.mark.parametrize(("fault", "settings", "words", "by"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(tmp_path, fault, settings, words, by):
    with pytest.raises(Diverged, match=words) as caught:
        train(ecvae(**settings), *([fault] if fault else []), Guard(), folder=tmp_path)
    assert caught.value.step <= by
    assert not caught.value.again and caught.value.checkpoint is None
    (entry,) = json.loads((tmp_path / "results.json").read_text())["run"]["guard"]
    assert entry == {"step": caught.value.step, "reason": caught.value.reason, "action": "stopped"}


@pytest.mark.thorough
def test_points_have_no_edge(tmp_path):
    torch.manual_seed(0)
    vae = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=4, sigma=0.7)
    method = ECVAE((2,), vae, MLPEnergy, sampler=Langevin(3, 0.02, 0.04))
    train(method, Guard(), folder=tmp_path, steps=40, data=Gaussians25(batch_size=64))


@pytest.mark.thorough
def test_what_a_rollback_changes(tmp_path):
    def make():
        return ecvae(vae_schedule=spec(CosineAnnealingLR, T_max=100), vae_optimizer=spec(SGD, lr=1e-5))

    guard = Guard(rollbacks=2, checkpoint_every=20)
    with pytest.raises(Diverged) as caught:
        train(make(), BadBatch(step=70), guard, folder=tmp_path)
    trouble = caught.value
    assert trouble.again and trouble.checkpoint == tmp_path / "checkpoints" / "guard_healthy.ckpt"
    assert torch.load(trouble.checkpoint, weights_only=True)["global_step"] == 40
    # What came after it belongs to what diverged: the next attempt cannot call it healthy, nor a resume take it.
    assert not (tmp_path / "checkpoints" / "guard_newest.ckpt").exists()
    assert trouble.history[-1]["action"] == "rolled back" and trouble.history[-1]["steps_times"] == 0.5

    again = Guard(rollbacks=2, checkpoint_every=20)
    again.go_on(trouble.history)
    method = make()
    fit = trainer(max_steps=41, callbacks=[again], default_root_dir=tmp_path)
    fit.fit(method, Digits(batch_size=64), ckpt_path=trouble.checkpoint, weights_only=True)
    assert method.sampler.step_size == 1.0 and method.hparams["sampler"]["init_args"]["step_size"] == 1.0
    assert [o.param_groups[0]["lr"] for o in fit.optimizers] == pytest.approx(
        [0.5e-5 * (1 + math.cos(math.pi * 41 / 100)) / 2, 0.5e-3]
    )
    state = again.state_dict()
    assert state["applied"] == 1 and state["history"] == trouble.history
    fit.save_checkpoint(tmp_path / "after.ckpt")
    # Resumed from a checkpoint of after the rollback, nothing is halved a second time.
    resumed, method = Guard(rollbacks=2), make()
    fit = trainer(max_steps=42, callbacks=[resumed], default_root_dir=tmp_path)
    fit.fit(method, Digits(batch_size=64), ckpt_path=tmp_path / "after.ckpt", weights_only=True)
    assert method.sampler.step_size == 1.0
    assert fit.optimizers[1].param_groups[0]["lr"] == pytest.approx(0.5e-3)


def test_no_rollback_has_the_seed_of_another_run_or_rollback(tmp_path):
    seeds = []
    for run in (0, 1, 7919, 2**32 - 1):
        for attempt in (0, 1):
            seed_everything(run, verbose=False)
            guard = Guard(rollbacks=2)
            guard.go_on([{"action": "began anew"}] * attempt)
            fit = trainer(default_root_dir=tmp_path / f"{run}-{attempt}", callbacks=[guard])
            with pytest.raises(Diverged) as caught:
                guard.setup(fit, None, "fit")
                guard._raise(fit, "a test")
            seeds.append(caught.value.history[-1]["seed"])
            seed_everything(seeds[-1], verbose=False)  # which takes 32 bits
    assert len({*seeds, 0, 1, 7919, 2**32 - 1}) == len(seeds) + 4


def test_schedules_within_schedules_are_halved_too(tmp_path):
    from ebmzoo.callbacks.guard import _all_of

    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    parts = [LinearLR(optimizer), CosineAnnealingLR(optimizer, T_max=10)]
    assert _all_of(SequentialLR(optimizer, parts, milestones=[5]))[-2:] == parts


def bad_on_one(rank, folder):
    guard = Guard()
    try:
        train(ecvae(), *([BadBatch(step=12)] if rank == 1 else []), guard, folder=folder, steps=60, world=2)
    except Diverged as trouble:
        return {"step": trouble.step, "reason": trouble.reason}


@pytest.mark.thorough
def test_all_processes_stop_together_for_what_one_has_seen(tmp_path):
    a, b = two_processes(bad_on_one, str(tmp_path))
    assert a == b == {"step": 20, "reason": "the batch of data of step 12 holds values that are not finite"}


def test_numbers_out_of_range():
    with pytest.raises(ValueError, match="Guard needs"):
        Guard(every_n_steps=0)
