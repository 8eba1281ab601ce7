"""fit, validate, test, predict: what they leave, what a checkpoint alone is enough for, and who wins."""

import csv
import json
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback

import ebmzoo as package
from ebmzoo.checkpoints import read


def weights(path, key="state_dict"):
    return read(path)[key]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(found):
    """Rows without the speed, which no two runs share."""
    return [{name: text for name, text in row.items() if not name.startswith("time/")} for row in found]


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_is_one_folder(trained):
    folder = trained["vae"]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.csv", "checkpoints/last.ckpt"} <= files
    assert [row["step"] for row in rows(folder) if row["train/loss_vae"]] == [str(step) for step in range(8)]
    assert sum(bool(row["val/elbo"]) for row in rows(folder)) == 2


def test_the_saved_config_makes_the_same_run_again(ebmzoo, trained, checkpoint, here):
    config = trained["vae"] / "config.yaml"
    assert ebmzoo("fit", "--config", config).code == 0
    again = here / "runs" / "vae" / "version_0"
    assert_same(weights(again / "checkpoints" / "last.ckpt"), weights(checkpoint["vae"]))
    assert (again / "config.yaml").read_text() == config.read_text()
    assert [row["train/loss_vae"] for row in rows(again)] == [row["train/loss_vae"] for row in rows(trained["vae"])]


@pytest.mark.thorough
def test_each_run_gets_a_number(ebmzoo, here):
    for _ in range(2):
        assert ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_epochs", 1).code == 0
    assert sorted(path.name for path in (here / "runs" / "vae").iterdir()) == ["version_0", "version_1"]


def test_a_run_without_a_config_is_named_after_method_and_data(ebmzoo, here):
    words = [
        "--model",
        "VAE",
        "--model.vae",
        "GaussianVAE",
        "--model.vae.encoder",
        "MLPEncoder",
        "--model.vae.decoder",
        "MLPDecoder",
        "--data",
        "Digits",
    ]
    assert ebmzoo("fit", *words, "--trainer.fast_dev_run", "true").code == 0
    assert (here / "runs" / "vae_digits" / "version_0").is_dir()


def test_the_checkpoint_holds_the_whole_config(trained, checkpoint):
    about = read(checkpoint["ecvae"])["ebmzoo"]
    assert about["class_path"] == "ebmzoo.methods.ecvae.ECVAE"
    assert about["config"] == yaml.safe_load((trained["ecvae"] / "config.yaml").read_text())
    assert about["config"]["seed_everything"] == 3
    assert about["config"]["model"]["init_args"]["sampler"]["init_args"]["steps"] == 2


def test_hyper_parameters_are_plain_data(checkpoint):
    stored = weights(checkpoint["ecvae"], "hyper_parameters")
    assert json.loads(json.dumps(stored)) == stored
    assert stored["image_shape"] == [1, 8, 8]
    assert stored["vae"]["init_args"]["encoder"]["class_path"].endswith("MLPEncoder")
    assert stored["sampler"]["init_args"]["steps"] == 2


def test_validate_needs_the_checkpoint_alone(ebmzoo, trained, checkpoint):
    code, out, _ = ebmzoo("validate", "--ckpt_path", checkpoint["vae"], "--no_ema")
    assert code == 0
    last = [row["val/elbo"] for row in rows(trained["vae"]) if row["val/elbo"]][-1]
    assert last in out
    assert "raw weights" in out


def test_evaluating_leaves_the_training_record_alone(ebmzoo, trained, checkpoint, tmp_path):
    before = (trained["vae"] / "metrics.csv").read_bytes(), (trained["vae"] / "config.yaml").read_bytes()
    assert ebmzoo("validate", "--ckpt_path", checkpoint["vae"]).code == 0
    assert before == (
        (trained["vae"] / "metrics.csv").read_bytes(),
        (trained["vae"] / "config.yaml").read_bytes(),
    )
    assert not (tmp_path / "runs").exists()


def test_test_needs_the_checkpoint_alone(ebmzoo, checkpoint, tmp_path):
    code, out, _ = ebmzoo("test", "--ckpt_path", checkpoint["ecvae"], "--run_dir", tmp_path / "elsewhere")
    assert code == 0
    assert f"run folder: {tmp_path / 'elsewhere'}" in out


@pytest.mark.parametrize("ema", [True, False])
def test_predict_writes_every_example_in_order(ebmzoo, checkpoint, tmp_path, ema):
    folder = tmp_path / "predicted"
    words = ["--ckpt_path", checkpoint["ecvae"], "--run_dir", folder, "--data.batch_size", 50]
    code, out, _ = ebmzoo("predict", *words, *([] if ema else ["--no_ema"]))
    assert code == 0
    assert f"{checkpoint['ecvae']}: {'averaged (EMA)' if ema else 'raw'} weights" in out
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    model, data = package.load(checkpoint["ecvae"], ema=ema), package.Digits(batch_size=50)
    assert model.ema_active is ema
    data.setup("predict")
    x = torch.cat(list(data.predict_dataloader()))
    with torch.no_grad():
        expected = {"energy": model.energy(x), "reconstruction": model.reconstruct(x), "score": -model.energy(x)}
    assert set(found.files) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-5, atol=1e-6)
    assert found["reconstruction"].shape == (len(x), 1, 8, 8)
    assert len(np.unique(found["energy"])) > len(x) // 2


def test_averaged_weights_are_not_the_raw_ones(checkpoint):
    stored = read(checkpoint["ecvae"])
    assert stored["ema"].keys() <= stored["state_dict"].keys()
    matrices = {name: value for name, value in stored["ema"].items() if value.ndim > 1}
    assert {name.partition(".")[0] for name in matrices} == {"vae", "ebm"}
    assert not any(torch.equal(value, stored["state_dict"][name]) for name, value in matrices.items())


def test_the_command_line_wins_over_the_checkpoint(ebmzoo, checkpoint, here):
    words = ["--ckpt_path", checkpoint["ecvae"], "--trainer.max_epochs", 3, "--model.sampler.steps", 99]
    assert ebmzoo("fit", *words).code == 0
    last = here / "runs" / "ecvae" / "version_0" / "checkpoints" / "last.ckpt"
    stored = weights(last, "hyper_parameters")
    assert stored["sampler"]["init_args"]["steps"] == 99
    assert stored["vae"]["init_args"]["latent_dim"] == 4
    assert read(last)["global_step"] == 12


@pytest.mark.thorough
def test_a_config_wins_over_the_checkpoint(ebmzoo, checkpoint, here):
    text = (here / "ecvae.yaml").read_text().replace("steps: 2", "steps: 5").replace("max_epochs: 2", "max_epochs: 3")
    (here / "other.yaml").write_text(text)
    assert ebmzoo("fit", "--config", "other.yaml", "--ckpt_path", checkpoint["ecvae"]).code == 0
    last = here / "runs" / "other" / "version_0" / "checkpoints" / "last.ckpt"
    assert weights(last, "hyper_parameters")["sampler"]["init_args"]["steps"] == 5


def test_resume_equals_training_without_a_stop(ebmzoo, here, trained):
    assert ebmzoo("fit", "--config", "ecvae.yaml", "--trainer.max_epochs", 1, "--run_dir", "cut").code == 0
    last = here / "cut" / "checkpoints" / "last.ckpt"
    assert ebmzoo("fit", "--ckpt_path", last, "--trainer.max_epochs", 2, "--run_dir", "cut").code == 0
    whole = trained["ecvae"] / "checkpoints" / "last.ckpt"
    assert_same(weights(last), weights(whole))
    assert_same(weights(last, "ema"), weights(whole, "ema"))
    # The one folder now tells the whole story: rows of before the stop, then those of after it.
    assert timeless(rows(here / "cut")) == timeless(rows(trained["ecvae"]))


@pytest.mark.thorough
def test_a_config_that_was_printed_is_a_config(ebmzoo, here, checkpoint):
    for verb, words in (("fit", ["--trainer.max_epochs", 1]), ("test", ["--ckpt_path", checkpoint["vae"]])):
        code, printed, _ = ebmzoo(verb, "--config", "vae.yaml", *words, "--print_config")
        assert code == 0
        (here / f"{verb}.yaml").write_text(printed)
        assert ebmzoo(verb, "--config", f"{verb}.yaml", "--run_dir", verb).code == 0
    assert weights(here / "fit" / "checkpoints" / "last.ckpt", "global_step") == 4


def test_a_folder_with_another_run_is_not_written_to(ebmzoo, trained, here):
    files = {path: path.stat().st_mtime_ns for path in trained["vae"].rglob("*")}
    code, _, err = ebmzoo("fit", "--config", "vae.yaml", "--run_dir", trained["vae"])
    assert code == 2
    assert "is not empty" in err
    assert {path: path.stat().st_mtime_ns for path in trained["vae"].rglob("*")} == files


def test_a_checkpoint_of_a_plain_trainer_needs_data_only(ebmzoo, tmp_path):
    import lightning

    from ebmzoo.networks import MLPDecoder, MLPEncoder
    from ebmzoo.parts import GaussianVAE

    vae = package.VAE((1, 8, 8), partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_steps=1, accelerator="cpu", **quiet, enable_checkpointing=False)
    trainer.fit(vae, package.Digits())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    code, _, err = ebmzoo("validate", "--ckpt_path", "plain.ckpt")
    assert (code, err.count("no data given")) == (2, 1)
    code, out, _ = ebmzoo("validate", "--ckpt_path", "plain.ckpt", "--data", "Digits", "--trainer.accelerator", "cpu")
    assert code == 0
    assert "val/elbo" in out


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluating_needs_a_checkpoint(ebmzoo, verb):
    code, _, err = ebmzoo(verb, "--config", "vae.yaml")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"ebmzoo: error: {verb} what? give --ckpt_path")


class Terminated(Callback):
    """What a cluster does to a run."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminated_run_does_not_look_like_a_finished_one(ebmzoo):
    code, out, _ = ebmzoo("fit", "--config", "vae.yaml", f"--trainer.callbacks+={__name__}.Terminated")
    assert code == 128 + signal.SIGTERM
    assert "next: ebmzoo test" not in out


class Measuring(Callback):
    """A measurement that takes its time, and is terminated in it."""

    ended = False

    def on_test_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGTERM)
        Measuring.ended = True


def test_an_evaluation_that_is_terminated_ends_in_its_measurement(ebmzoo, here):
    assert ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_steps", 1, "--run_dir", "run").code == 0
    before, Measuring.ended = signal.getsignal(signal.SIGTERM), False
    code, out, _ = ebmzoo(
        "test", "--ckpt_path", "run/checkpoints/last.ckpt", f"--trainer.callbacks+={__name__}.Measuring"
    )
    assert (code, Measuring.ended, out.splitlines()[-1]) == (128 + signal.SIGTERM, False, "terminated")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def double(ebmzoo, here):
    """A checkpoint in double precision."""
    words = ["--trainer.precision", "64-true", "--trainer.max_epochs", 1]
    assert ebmzoo("fit", "--config", "ecvae.yaml", *words, "--run_dir", "double").code == 0
    return here / "double" / "checkpoints" / "last.ckpt"


@pytest.mark.thorough
def test_double_precision_holds_in_predictions_and_exports(ebmzoo, here, double):
    path = double
    model = package.load(path)
    assert {p.dtype for p in model.parameters()} == {torch.float64}

    def energies(*more):
        assert ebmzoo("predict", "--ckpt_path", path, "--run_dir", here / "found", *more).code == 0
        with np.load(here / "found" / "predictions.npz") as found:
            return torch.from_numpy(found["energy"])

    data = package.Digits()
    data.setup("predict")
    x = torch.cat(list(data.predict_dataloader()))
    with torch.no_grad():
        double = model.energy(x.double())
        single = model.float().energy(x)
    torch.testing.assert_close(energies(), double.float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(energies("--trainer.precision", "32-true"), single, rtol=0, atol=1e-6)
    assert ebmzoo("export", "--ckpt_path", path, "--out", "c.safetensors").code == 0
    exported = package.load("c.safetensors").state_dict()
    assert all(torch.equal(exported[name], value) for name, value in package.load(path).state_dict().items())


@pytest.mark.slow
def test_double_precision_holds_through_the_verbs(ebmzoo, double):
    for verb, *words in (
        ("validate",),
        ("test",),
        ("sample", "--n", 2, "--chain", "--out", "a.png"),
        ("sample", "--n", 2, "--interpolate", 3, "--out", "b.png"),
    ):
        assert ebmzoo(verb, "--ckpt_path", double, *words).code == 0
    single = ["--trainer.precision", "32-true", "--trainer.max_epochs", 2]
    assert ebmzoo("fit", "--ckpt_path", double, *single).code == 0
