"""What a training says of itself: to loggers, to bars, to callbacks that monitor it, and when it says nothing."""

import csv

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader

from ebmzoo.callbacks import NetworkEvaluations, Progress
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin
from ebmzoo.methods import ECVAE, VAE, reports
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from .conftest import quiet_trainer

SMALL = {"width": 8, "depth": 1}
BASE = spec(GaussianVAE, encoder=spec(MLPEncoder, **SMALL), decoder=spec(MLPDecoder, **SMALL), latent_dim=4)
HALVED = {"vae_optimizer": spec(SGD, lr=1e-3), "vae_schedule": spec(ExponentialLR, gamma=0.5)}


class Rows(Logger):
    """Remembers the rows of each step."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append({"step": step, **metrics})


class Seen(Callback):
    """Remembers what a bar has after each iteration."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        self.found.append(dict(trainer.progress_bar_metrics))


def train(steps, *callbacks, make=ECVAE, every=50, **settings):
    """The rows of a training of so many iterations on batches of 6."""
    torch.manual_seed(0)
    if make is ECVAE:
        settings = {"energy": spec(MLPEnergy, **SMALL), "sampler": Langevin(2, 0.1), **HALVED, **settings}
    model, logger = make((1, 8, 8), BASE, **settings), Rows()
    batches = [torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    bar = any(isinstance(callback, TQDMProgressBar) for callback in callbacks)
    keeps = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    options = {"enable_checkpointing": keeps, "enable_progress_bar": bar, "log_every_n_steps": every}
    options |= {"max_steps": steps, "max_epochs": -1, "logger": logger, "callbacks": list(callbacks)}
    quiet_trainer(**options).fit(model, DataLoader(batches, batch_size=None))
    return logger.rows


def test_a_run_shorter_than_the_interval_leaves_its_last_iteration():
    (row,) = train(7, NetworkEvaluations())
    *_, other = train(7, NetworkEvaluations(), every=1)
    assert row["step"] == 6 and row["epoch"] == 1
    dear = {name for name in other if name.startswith(("mcmc/", "train/grad_norm_"))}
    assert other.keys() - row.keys() == dear != set()
    for name in row.keys() - {"time/steps_per_second", "time/examples_per_second"}:
        assert row[name] == pytest.approx(other[name], rel=1e-6), name
    assert row["train/network_evaluations"] == 7 * 6 * (2 + 4 + 8)


def test_loggers_get_the_iterations_they_take_and_the_last_one_once():
    assert [row["step"] for row in train(6, every=3)] == [2, 5]
    assert [row["step"] for row in train(8, every=3)] == [2, 5, 7]
    assert train(4, every=0) == []


def test_the_values_of_a_run_that_stops_are_those_of_its_last_iteration():
    class Stops(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 5

    *_, row = train(9, Stops(), every=3)
    _, _, _, _, other = train(5, every=1)
    assert [row["step"], row["train/loss_vae"]] == [4, other["train/loss_vae"]]
    assert row["train/kl"] == other["train/kl"] and row["lr/vae"] == other["lr/vae"]


@pytest.mark.parametrize("name", ["train/loss_vae", "train/lambda", "mcmc/displacement", "train/grad_norm_energy"])
def test_a_monitor_finds_each_iterations_own_value(name, tmp_path):
    keeps = ModelCheckpoint(tmp_path, "{step}", monitor=name, every_n_train_steps=2, save_top_k=-1)
    train(7, keeps)
    expected = [row[name] for row in train(7, every=1)]
    found = {path.rsplit("=", 1)[1].removesuffix(".ckpt"): value.item() for path, value in keeps.best_k_models.items()}
    assert found == pytest.approx({str(step): expected[step - 1] for step in (2, 4, 6)})


def test_early_stopping_on_a_loss_sees_the_last_of_each_epoch():
    class Judges(EarlyStopping):
        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            scores.append(self.best_score.item())

    scores = []
    train(15, Judges("train/loss_vae", patience=9, check_on_train_epoch_end=True))
    losses = [row["train/loss_vae"] for row in train(15, every=1)]
    assert scores == pytest.approx([min(losses[4 : k + 1 : 5]) for k in (4, 9, 14)])


def test_learning_rates_are_those_that_the_iteration_takes():
    rows = train(3, every=1)
    assert [row["lr/vae"] for row in rows] == [1e-3, 5e-4, 2.5e-4]
    assert [row["lr/energy"] for row in rows] == [1e-4] * 3
    assert [row["lr/vae"] for row in train(2, make=VAE, every=1, optimizer=spec(Adam, lr=0.25))] == [0.25] * 2


def test_speed_is_that_of_training_without_validation(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(reports.time, "perf_counter", lambda: clock[0])

    class Takes(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            clock[0] += 0.5
            if trainer.global_step == 3:  # as the trainer calls them
                pl_module.on_validation_start()
                clock[0] += 100
                pl_module.on_validation_end()

    rows = train(6, Takes(), every=4)
    assert [row["step"] for row in rows] == [3, 5]
    assert [row["time/steps_per_second"] for row in rows] == pytest.approx([2, 2])
    assert [row["time/examples_per_second"] for row in rows] == pytest.approx([12, 12])


def test_lightnings_bar_shows_the_losses_from_the_first_iteration():
    seen = Seen()
    train(2, TQDMProgressBar(), seen)
    first = train(1, every=1)[0]
    shown = ("train/loss_vae", "train/energy_gap", "train/lambda")
    assert {name: seen.found[0][name] for name in shown} == pytest.approx({name: first[name] for name in shown})


def test_our_bar_shows_each_iterations_own_values(capsys):
    train(7, Progress())
    losses = [f"loss_vae={row['train/loss_vae']:.4g}" for row in train(7, every=1)]
    lines = [text for text in capsys.readouterr().out.splitlines() if text.startswith("step ")]
    assert len(lines) == 7 and all(loss in text for loss, text in zip(losses, lines, strict=True))


def test_nothing_is_logged_where_nobody_looks(monkeypatch):
    logged = []
    monkeypatch.setattr(ECVAE, "log", lambda self, name, *_, **__: logged.append((self.global_step, name)))
    train(7, every=3)
    steps = {step for step, _ in logged}
    assert steps == {3, 6}  # the third iteration and the sixth, each of them told after its first update, which counts
    logged.clear()
    train(7, EarlyStopping("train/kl", check_on_train_epoch_end=False, strict=False))
    assert [name for _, name in logged] == ["train/kl"] * 7


def test_the_command_lines_short_run_has_a_file(tmp_path, monkeypatch):
    from ebmzoo.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["--model", "VAE", "--model.vae", "GaussianVAE", "--model.vae.encoder", "MLPEncoder"]
    words += ["--model.vae.decoder", "MLPDecoder", "--data", "Digits"]
    words += ["--trainer.max_steps", "3", "--trainer.limit_val_batches", "0", "--run_dir", "run"]
    main(["fit", *words, "--trainer.accelerator", "cpu", "--seed_everything", "0"])
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["epoch"], row["step"], row["lr/vae"]) == ("0", "2", "0.001")
    assert float(row["train/loss_vae"]) > 0 and float(row["time/steps_per_second"]) > 0
