"""Checkpoints and early stopping go by figures of the very weights that they judge, through every resume."""

import math
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ebmzoo.callbacks import EMA, Evaluate, LastCheckpoint, monitored
from ebmzoo.callbacks import monitors as module
from ebmzoo.callbacks.last import Terminated
from ebmzoo.checkpoints import read
from ebmzoo.data import Digits
from ebmzoo.factories import spec
from ebmzoo.methods import VAE
from ebmzoo.networks import MLPDecoder, MLPEncoder
from ebmzoo.parts import GaussianVAE

NETWORK = {"width": 4, "depth": 1}


def make():
    torch.manual_seed(0)
    return VAE(
        (1, 8, 8),
        spec(GaussianVAE, encoder=spec(MLPEncoder, **NETWORK), decoder=spec(MLPDecoder, **NETWORK), latent_dim=2),
    )


def figure(weights):
    """A number that no two states of a training share."""
    return float(sum(value.double().sum() for name, value in weights.items() if name.startswith("vae.decoder")))


class Figure(L.Callback):
    """Measures at validations: the figure of the weights, or what a list says, every so many validations."""

    val_name = "val/figure"

    def __init__(self, values=None, every=1):
        self.values, self.every, self.seen, self.validations = values, every, [], 0

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validations += 1
        if self.validations % self.every:
            return
        value = self.values[len(self.seen)] if self.values else figure(dict(pl_module.named_parameters()))
        self.seen.append((trainer.global_step, value))
        pl_module.log("val/figure", torch.tensor(value, dtype=torch.float64))


def train(tmp_path, callbacks, steps=20, resume=None, **settings):
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=callbacks,
        **{"val_check_interval": 4, "check_val_every_n_epoch": None, **settings},
    )
    trainer.fit(make(), Digits(batch_size=300), ckpt_path=resume)
    return trainer


EVERY = {"every_n_train_steps": 4}
SETTINGS = {
    "as it comes": {},
    "every validation's iteration": EVERY,
    "iterations between validations": {"every_n_train_steps": 3},
    "with the newest beside it": {**EVERY, "save_last": True},
    "at the ends of epochs": {"save_on_train_epoch_end": True},
    "every second epoch": {"every_n_epochs": 2},
    "by time": {"train_time_interval": timedelta(0)},
    "weights alone": {**EVERY, "save_weights_only": True},
    "the largest": {**EVERY, "mode": "max"},
    "when something fails": {**EVERY, "save_on_exception": True},
}


@pytest.mark.parametrize(
    ("settings", "every"),
    [*((settings, 1) for settings in SETTINGS.values()), ({}, 2), (EVERY, 2), ({"every_n_train_steps": 3}, 2)],
    ids=[*SETTINGS, *("measured every second time" for _ in range(3))],
)
def test_the_figure_of_a_kept_checkpoint_is_that_of_its_weights(tmp_path, settings, every):
    saver = monitored(
        ModelCheckpoint(tmp_path, "{step}-{val/figure:.9f}", "val/figure", **{"save_top_k": -1} | settings)
    )
    train(tmp_path, [EMA(decay=0.5), measured := Figure(every=every), saver])
    assert saver.best_k_models
    for path, score in saver.best_k_models.items():
        checkpoint = read(path)
        own = figure({**checkpoint["state_dict"], **checkpoint["ema"]})
        assert own == pytest.approx(float(score), rel=1e-12)
        assert path.endswith(f"step={checkpoint['global_step']}-val_figure={own:.9f}.ckpt")
    kept = {read(path)["global_step"] for path in saver.best_k_models}
    if settings.get("every_n_train_steps", 4) == 4 and "epoch" not in str(settings):
        assert kept == {step for step, _ in measured.seen}
    best = min if saver.mode == "min" else max
    assert saver.best_model_path == best(saver.best_k_models, key=saver.best_k_models.get)


def test_a_name_that_was_not_measured_with_these_weights_is_nan(tmp_path):
    saver = monitored(
        ModelCheckpoint(tmp_path, "{step}-{val/figure:.1f}-{never:.1f}", every_n_train_steps=3, save_top_k=-1)
    )
    train(tmp_path, [Figure([1.0, 2.0]), saver], steps=9)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"step={step}-val_figure=nan-never=nan.ckpt" for step in (3, 6, 9)
    }


def test_a_time_between_checkpoints_is_looked_at(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))  # seconds: ten an iteration
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    saver = monitored(ModelCheckpoint(tmp_path, "{step}", train_time_interval=timedelta(seconds=35), save_top_k=-1))
    train(tmp_path, [saver], steps=14)
    assert sorted(int(path.stem.removeprefix("step=")) for path in tmp_path.iterdir()) == [4, 8, 12]


def test_patience_counts_measurements_and_the_stop_is_said(tmp_path, capsys):
    stopping = monitored(EarlyStopping("val/figure", patience=2))
    trainer = train(tmp_path, [Figure([5.0, 4.0, 4.5, 4.2, 3.0], every=2), stopping], steps=100)
    assert trainer.global_step == 4 * 2 * 4  # the fourth measurement is the second in a row that is not better
    out = capsys.readouterr().out
    assert "stopping early at step 32: Monitored metric val/figure did not improve in the last 2 records" in out


@pytest.mark.parametrize(
    "callback", [EarlyStopping("val/figurre"), ModelCheckpoint(monitor="val/figurre")], ids=["stopping", "checkpoint"]
)
def test_a_monitor_that_nothing_measures_is_one_line(tmp_path, callback):
    name = type(callback).__name__
    with pytest.raises(
        ValueError, match=f"^{name} goes by 'val/figurre', which nothing measures: there are .*val/figure"
    ):
        train(tmp_path, [Figure(), monitored(callback)])


def test_a_value_of_training_is_seen_where_it_was_logged(tmp_path):
    saver = monitored(ModelCheckpoint(tmp_path, "{step}", "train/loss_vae", every_n_train_steps=6, save_top_k=-1))
    train(tmp_path, [saver], log_every_n_steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {"step=6.ckpt", "step=12.ckpt", "step=18.ckpt"}


class Stop(L.Callback):
    """Leaves after a batch, before the validation that follows it, as a signal does; the state is saved."""

    def __init__(self, step, last):
        self.step, self.last = step, last

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.last.save(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Terminated(15, self.step, str(self.last.path))


@pytest.mark.parametrize("stop", [7, 8])
@pytest.mark.parametrize("every", [1, 2])
def test_monitors_go_on_after_a_resume_as_if_nothing_had_been(tmp_path, stop, every):
    def run(name, resume=None, stop=None):
        folder = tmp_path / name
        last = LastCheckpoint(folder / "last.ckpt")
        best = monitored(ModelCheckpoint(folder, "{step}", "val/figure", save_top_k=2, mode="max"))
        stopping = monitored(EarlyStopping("val/figure", mode="max", patience=100))
        # by its weights and not by a count of validations, which a checkpoint does not hold
        measure = Figure(every=1)
        if every == 2:
            measure.on_validation_epoch_end = lambda trainer, pl_module: (
                None if trainer.global_step % 8 else Figure.on_validation_epoch_end(measure, trainer, pl_module)
            )
        callbacks = [measure, best, stopping, last, *([Stop(stop, last)] if stop else [])]
        if stop:
            with pytest.raises(Terminated):
                train(folder, callbacks, resume=resume)
        else:
            train(folder, callbacks, resume=resume)
        return measure.seen, best, stopping

    whole, best, stopping = run("whole")
    begun, _, _ = run("cut", stop=stop)
    ended, again, stopped = run("cut", resume=tmp_path / "cut" / "last.ckpt")
    assert begun + ended == whole
    assert [step for step, _ in whole] == list(range(4 * every, 21, 4 * every))
    assert sorted(map(float, again.best_k_models.values())) == sorted(map(float, best.best_k_models.values()))
    assert float(again.best_model_score) == float(best.best_model_score)
    assert stopped.wait_count == stopping.wait_count and float(stopped.best_score) == float(stopping.best_score)
    assert math.isfinite(float(stopped.best_score)) and all(a < b for (a, _), (b, _) in pairwise(whole))


@pytest.mark.parametrize(("n_val", "measured"), [(0, "no Evaluate measures any FID here"), (50, "val/fid_50")])
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping], ids=["ModelCheckpoint", "EarlyStopping"])
def test_a_fid_that_nothing_will_measure_is_refused_before_the_training(tmp_path, kind, n_val, measured):
    seen = Figure()
    callbacks = [seen, Evaluate(n_val=n_val), monitored(kind(monitor="val/fid_2k"))]
    line = f"^{kind.__name__} goes by val/fid_2k, and .*{measured}.*--trainer.callbacks.{kind.__name__} null"
    with pytest.raises(ValueError, match=line):
        train(tmp_path, callbacks)
    assert not seen.seen
