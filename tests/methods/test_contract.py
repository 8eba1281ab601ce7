"""What every method promises: what it answers, determinism, exact resume, rebuilding."""

from functools import cache, partial
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from ebmzoo import methods
from ebmzoo.callbacks import EMA, Evaluate, LastCheckpoint, MonitoredCheckpoint
from ebmzoo.data import Digits
from ebmzoo.mcmc import PerImageNoise
from ebmzoo.methods import BoundsLikelihood, Encodes, Method, Reconstructs, Scores

from .cases import METHODS, PROTOCOLS, RARELY, SHAPE, assert_identical, copied, kept, seeded, state
from .conftest import quiet_trainer


@pytest.fixture(params=METHODS, ids=str)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return partial(seeded, name)


def test_every_method_of_the_shelf_is_in_the_list():
    shelf = {kind for name in methods.__all__ if issubclass(kind := getattr(methods, name), Method)} - {Method}
    assert {type(METHODS[name]()) for name in METHODS} == shelf


def test_an_image_does_not_depend_on_its_batch(make):
    method = make().eval()
    with torch.no_grad():
        together = method.sample(4, noise=PerImageNoise.of_rows(0, range(4)))
        alone = method.sample(1, noise=PerImageNoise.of_rows(0, [2]))
    assert (together[2] - alone[0]).abs().max() <= 1e-5 < (together[2] - together[1]).abs().max()


def test_contract(name, make):
    method = make().eval()
    x = torch.rand(5, *SHAPE) * 2 - 1
    assert {protocol for protocol in PROTOCOLS if isinstance(method, protocol)} == METHODS[name].can
    assert method.sample(3, noise=1).shape == (3, *SHAPE)
    assert torch.equal(method.sample(3, noise=1), method.sample(3, noise=1))
    assert not method.sample(3, noise=1).requires_grad
    if isinstance(method, Scores):
        assert method.score(x).shape == (5,)
        # Neither its place in the batch nor the others decide an example's score.
        torch.testing.assert_close(method.score(x.flip(0)).flip(0)[1:3], method.score(x[1:3]), rtol=1e-4, atol=1e-4)
    if isinstance(method, Encodes):
        assert [part.shape for part in method.encode(x)] == [(5, 4), (5, 4)]
    if isinstance(method, Reconstructs):
        assert method.reconstruct(x).shape == x.shape
    if not isinstance(method, BoundsLikelihood):
        return
    one, many = (method.log_likelihood_bound(x, samples, noise=0).mean() for samples in (1, 50))
    assert many > one


def test_samples_with_no_steps_are_what_the_chains_begin_with(make):
    method = make().eval()
    sampler, steps = method.test_sampler()
    sampler, frames = sampler or method.sampler, []
    start = method.sample(3, noise=1, steps=0)
    if sampler is None:
        with pytest.raises(ValueError, match=f"{type(method).__name__} samples in one step: it has no chain"):
            method.sample(3, steps=2)
        assert torch.equal(start, method.sample(3, noise=1))
        return
    with torch.inference_mode():
        last = method.sample(3, noise=1, steps=2, watch=lambda step, state: frames.append((step, state.x.clone())))
    assert [step for step, _ in frames] == [0, 1] and frames[0][1].shape == start.shape
    if not getattr(sampler, "noise_first", False):  # else the first frame has its noise already
        torch.testing.assert_close(frames[0][1].clamp(-1, 1), start)
    assert not torch.equal(last, start) and not torch.equal(frames[1][1], frames[0][1])
    assert torch.equal(method.sample(3, noise=1), method.sample(3, noise=1, steps=steps))


# -- training ---------------------------------------------------------------------------------------------------------

STEPS = 11  # five an epoch
# After an epoch, at an epoch's last step, in the middle of an epoch, and on to the end.
STOPS = [({"max_epochs": 1}, 5), ({"max_steps": 10}, 10), ({"max_steps": STEPS}, STEPS)]
MIDDLE = [({"max_steps": 7}, 7), ({"max_steps": STEPS}, STEPS)]


@cache
def whole(name):
    """The state after a training that nothing interrupts, and its two clocks; not to be changed."""
    trainer = quiet_trainer(max_steps=STEPS, callbacks=[EMA(decay=0.9)], **RARELY)
    method = seeded(name)
    torch.manual_seed(7)
    trainer.fit(method, Digits(batch_size=300))
    return copied(state(trainer)), trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx


def test_one_training_step_is_one_clock_step(name):
    _, clock, index = whole(name)
    assert clock == STEPS
    assert index + 1 == STEPS


@pytest.mark.slow  # a resume that begins again and comes to the same end holds it as well
def test_the_same_seed_twice_is_identical(name):
    assert_identical(whole(name)[0], whole.__wrapped__(name)[0])


@pytest.mark.parametrize(
    ("name", "stops"),
    [(name, MIDDLE) for name in METHODS]
    + [("ecvae", STOPS), *(pytest.param(name, STOPS, marks=pytest.mark.slow) for name in METHODS if name != "ecvae")],
)
def test_stopping_and_resuming_changes_nothing(name, stops, tmp_path):
    def run(settings, checkpoint=None):
        method = seeded(name)
        saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=settings.get("max_steps"))
        trainer = quiet_trainer(**settings, **RARELY, callbacks=[EMA(decay=0.9), saver], enable_checkpointing=True)
        torch.manual_seed(7 if checkpoint is None else 99)  # whatever a new process did before
        trainer.fit(method, Digits(batch_size=300), ckpt_path=checkpoint)
        return trainer

    stopped = None
    for settings, steps in stops:
        trainer = run(settings, stopped)
        assert trainer.global_step == steps
        stopped = (tmp_path / "last.ckpt").rename(tmp_path / f"{steps}.ckpt")
    assert_identical(whole(name)[0], state(trainer))


def test_what_is_kept_is_in_the_state_that_a_resume_is_held_to():
    """Pairs and chains of the list's methods: names that `state` would not find would go untested."""
    for name in METHODS:
        method = seeded(name)
        assert {f"{name}.buffer" if name == "pairs" else name for name in kept(method)} == {
            name for name, _ in method._buffers_kept()
        }
    found = {name for each in METHODS for name in whole(each)[0] if name.startswith(("pairs", "replay"))}
    assert found == {"pairs0", "pairs1", "pairs2", "pairs3", "replay0"}


@pytest.mark.parametrize(
    "name", ["ecvae", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "ecvae")]
)
def test_what_monitors_read_survives_a_resume(name, tmp_path):
    """Inside an epoch, before a validation and after one: the figures, and which of them is kept as the best."""

    def run(folder, steps, checkpoint=None):
        last = LastCheckpoint(folder / "last.ckpt")
        best = MonitoredCheckpoint(dirpath=folder, filename="{step}", monitor="val/fid_20")
        figures = Figures("val/fid_20")
        callbacks = [Evaluate(n_val=20), figures, best, last]
        trainer = quiet_trainer(
            max_steps=steps,
            val_check_interval=4,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            **RARELY,
            callbacks=callbacks,
            enable_checkpointing=True,
        )
        method = seeded(name)
        torch.manual_seed(7 if checkpoint is None else 99)
        trainer.fit(method, Digits(batch_size=300), ckpt_path=checkpoint)
        return figures.seen, best

    whole, kept = run(tmp_path / "whole", 12)
    seen = {}
    cut, stopped = tmp_path / "cut", None
    for steps in (7, 9, 12):
        more, best = run(cut, steps, stopped)
        stopped, seen = cut / "last.ckpt", seen | more
    # Each training has a figure of its end besides; those that both have are the same.
    assert list(whole) == [4, 8, 12] and list(seen) == [4, 7, 8, 9, 12]
    assert {step: seen[step] for step in whole} == whole
    for saver, figures in ((kept, whole), (best, seen)):
        assert float(saver.best_model_score) == min(figures.values())
        assert Path(saver.best_model_path).name == f"step={min(figures, key=figures.get)}.ckpt"


class Figures(Callback):
    """Notes what monitors see after each validation."""

    def __init__(self, name):
        self.name, self.seen = name, {}

    def on_validation_end(self, trainer, pl_module):
        self.seen[trainer.global_step] = float(trainer.callback_metrics[self.name])


def test_checkpoints_hold_tensors_and_primitives_only(make, tmp_path):
    batch = torch.rand(6, *SHAPE) * 2 - 1
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(make(), DataLoader([batch, batch], batch_size=None))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["ebmzoo"]["class_path"].startswith("ebmzoo.methods.")
    parts = checkpoint["hyper_parameters"]
    parts = {**parts, **(parts.get("vae") or {}).get("init_args", {})}
    if "network" in parts.get("energy", {}).get("init_args", {}):
        parts["energy"] = parts["energy"]["init_args"]["network"]
    named = {"decoder": "MLPDecoder", "generator": "MLPDecoder", "encoder": "MLPEncoder", "energy": "MLPEnergy"}
    found = {name: parts[name]["class_path"] for name in named if name in parts}
    assert found == {name: f"ebmzoo.networks.mlp.{named[name]}" for name in found}
    assert found or parts["flow"]["class_path"] == "ebmzoo.networks.flow.Glow"
