"""What users of comparable tools met, tried here: `docs/complaints.md` has the threads."""

import csv
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import ebmzoo as package
from ebmzoo.checkpoints import read
from ebmzoo.data import Rows
from ebmzoo.metrics import fidelity


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def validations(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {row["step"]: row["val/elbo"] for row in csv.DictReader(file) if row["val/elbo"]}


@pytest.mark.thorough
def test_validation_does_not_change_the_training(ebmzoo, here):
    fit = ["fit", "--config", "ecvae.yaml", "--trainer.max_epochs", 1]
    often = ["--trainer.val_check_interval", 2, "--trainer.limit_val_batches", 2]
    often += ["--trainer.callbacks+=Evaluate", "--trainer.callbacks.n_val=20"]
    assert ebmzoo(*fit, "--run_dir", "without", "--trainer.limit_val_batches", 0).code == 0
    assert ebmzoo(*fit, "--run_dir", "with", *often).code == 0
    a, b = (read(here / name / "checkpoints" / "last.ckpt") for name in ("without", "with"))
    assert len(validations(here / "with")) == 2
    assert same(a["state_dict"], b["state_dict"]) and same(a["ema"], b["ema"])


@pytest.mark.thorough
def test_a_resume_within_an_epoch_validates_on_everything(ebmzoo, here):
    """Lightning's loop took its place within the last validation for one that was still to be ended."""
    fit = ["fit", "--config", "vae.yaml", "--trainer.val_check_interval", 2, "--trainer.limit_val_batches", 3]
    keep = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"]
    keep += ["--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}"]
    assert ebmzoo(*fit, "--run_dir", "whole", *keep).code == 0
    whole = validations(here / "whole")
    assert list(whole) == ["1", "3", "5", "7"]
    assert ebmzoo(*fit, "--run_dir", "cut", "--ckpt_path", "whole/checkpoints/step=3.ckpt").code == 0
    assert validations(here / "cut") == {step: whole[step] for step in ("3", "5", "7")}


@pytest.mark.thorough
def test_a_finished_run_that_is_resumed_stays_as_it_is(ebmzoo, here):
    fit = ["fit", "--config", "vae.yaml", "--run_dir", "run", "--resume", "auto", "--trainer.max_epochs", 1]
    assert ebmzoo(*fit).code == 0
    last, metrics = here / "run" / "checkpoints" / "last.ckpt", here / "run" / "metrics.csv"
    before, rows = read(last), metrics.read_text()
    assert ebmzoo(*fit).code == 0
    after = read(last)
    assert after["global_step"] == before["global_step"] == 4 and metrics.read_text() == rows
    assert same(after["state_dict"], before["state_dict"])
    answer = ebmzoo(*fit[:-1], 0)
    assert answer.code == 2 and "current_epoch=1" in answer.err.splitlines()[-1]


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_a_data_set_reaches_workers_that_are_spawned(tmp_path, flip):
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    images = package.ImageFolder(tmp_path, size=8, holdout=0.25, batch_size=2, flip=flip)
    for data in (images, package.Digits(batch_size=2), package.StackedDigits(batch_size=2)):
        dataset, rows = data.train_dataloader().dataset, Rows(torch.tensor([0, 2]), epoch=3)
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[rows], dataset[rows])


def test_fid_does_not_depend_on_the_batch_size():
    data = package.Digits()
    samples, reference = data.reference("test").data[:60], data.reference("train").data[:200]
    found = [fidelity(samples, reference, metrics=["fid"], batch_size=size)["fid"] for size in (1, 7, 60)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-7)
