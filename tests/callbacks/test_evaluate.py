import json
import urllib.error

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from ebmzoo.callbacks import EMA, Evaluate, averaged_weights
from ebmzoo.callbacks.evaluate import _keep, fid_name
from ebmzoo.data import Gaussians25
from ebmzoo.figures import Cost, Fidelity, Figures
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.figures.neighbours import nearest_neighbours
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import as_noise
from ebmzoo.metrics import (
    classifier_report,
    config_hash,
    fidelity,
    git_revision,
    mode_coverage,
    versions,
)
from ebmzoo.metrics.digit_classifier import sha256_of
from ebmzoo.precision import decided

from .fakes import Images, Tiny, model, same, trainer, weights

FID = Fidelity(["fid"])


class Record(L.Callback):
    """What a validation logged, and the averaged samples it should have been about."""

    def __init__(self, name, n):
        self.name, self.n, self.values, self.expected = name, n, [], []

    def on_validation_end(self, trainer, pl_module):
        self.values.append(trainer.callback_metrics.get(self.name))
        training = [module.training for module in pl_module.modules()]
        pl_module.eval()
        with averaged_weights(trainer, pl_module):
            samples = torch.cat(list(batches_of_samples(pl_module, self.n, 16, seed=0)))
        for module, mode in zip(pl_module.modules(), training, strict=True):
            module.training = mode
        self.expected.append(fidelity(samples, Images().reference(), metrics=["fid"])["fid"])


def results(path):
    held = json.loads((path / "results.json").read_text())
    return {entry["name"]: entry for entry in held["results"]}, held["run"]


@torch.no_grad()
def samples_of(tiny, n, batch_size, seed=0):
    tiny.eval()
    return torch.cat(list(batches_of_samples(tiny, n, batch_size, seed)))


def test_validation_logs_the_fid_of_averaged_weights(tmp_path):
    record = Record("val/fid_40", 40)
    callbacks = [EMA(0.5), Evaluate(n_val=40, batch_size=16), record]
    best = ModelCheckpoint(tmp_path, monitor="val/fid_40", filename="{epoch}", save_top_k=1)
    trainer(tmp_path, [*callbacks, best], max_epochs=3, enable_checkpointing=True).fit(model(), Images())
    assert len(record.values) == 3 and len({float(value) for value in record.values}) == 3
    for value, expected in zip(record.values, record.expected, strict=True):
        assert float(value) == pytest.approx(expected, rel=1e-4)
    assert best.best_model_score == min(record.values)


@pytest.mark.parametrize(
    ("options", "fresh"),
    [({"every_n_steps": 10}, [0, 2, 4]), ({"every_n_steps": 12}, [0, 3]), ({}, [0, 1, 2, 3, 4])],
)
def test_it_is_measured_when_it_is_due(tmp_path, options, fresh):
    class Count(Tiny):
        drawn = 0

        def sample(self, n, **arguments):
            type(self).drawn += 1
            return super().sample(n, **arguments)

    class Epochs(L.Callback):
        epochs = []

        def on_validation_end(self, trainer, pl_module):
            if Count.drawn:
                self.epochs.append(trainer.current_epoch)
            Count.drawn = 0

    Epochs.epochs = []
    callbacks = [Evaluate(n_val=20, **options), Epochs()]
    trainer(tmp_path, callbacks, max_epochs=5, num_sanity_val_steps=1).fit(Count(), Images())
    assert Epochs.epochs == fresh


def test_training_is_the_same_with_and_without(tmp_path):
    runs = []
    for callbacks in ([], [EMA(0.5), Evaluate(n_val=20)]):
        tiny = model()
        torch.manual_seed(5)
        trainer(tmp_path, callbacks).fit(tiny, Images())
        runs.append({**weights(tiny), **dict(tiny.named_buffers())})
    assert same(*runs)


@pytest.mark.parametrize(
    ("steps", "options", "fids"),
    [(11, {}, [4, 8, 11]), (8, {}, [4, 8]), (11, {"every_n_steps": 100}, [4, 11]), (3, {}, [3])],
)
def test_a_training_that_max_steps_ends_is_validated_there_once_and_is_the_same(tmp_path, steps, options, fids):
    class Steps(L.Callback):
        def __init__(self):
            self.validated, self.measured = [], []

        def on_validation_epoch_end(self, trainer, pl_module):
            self.validated.append(trainer.global_step)
            if "val/fid_20" in trainer.callback_metrics and trainer.callback_metrics["val/fid_20"] not in self.measured:
                self.measured.append(trainer.callback_metrics["val/fid_20"])

    often = {"max_steps": steps, "max_epochs": -1, "val_check_interval": 4, "check_val_every_n_epoch": None}
    evaluate, seen, runs = Evaluate(n_val=20, **options), Steps(), []
    for callbacks in ([], [evaluate, seen]):
        tiny = model()
        torch.manual_seed(5)
        trainer(tmp_path, callbacks, **often).fit(tiny, Images())
        runs.append({**weights(tiny), **dict(tiny.named_buffers())})
    assert same(*runs)
    assert seen.validated == [*range(4, steps, 4), steps] and len(seen.measured) == len(fids)
    assert evaluate.state_dict() == {"last": fids[-1]}


def test_a_diverged_model_does_not_stop_training(tmp_path):
    class Diverged(Tiny):
        def sample(self, n, **arguments):
            return super().sample(n, **arguments) * float("nan")

    record = trainer(tmp_path, [Evaluate(n_val=20)])
    record.fit(Diverged(), Images())
    assert record.callback_metrics["val/fid_20"].isnan()


def test_names_carry_the_number():
    assert [fid_name(n) for n in (500, 1000, 2000, 2500, 50_000)] == [
        *("val/fid_500", "val/fid_1k", "val/fid_2k", "val/fid_2500", "val/fid_50k")
    ]


EXPECTED = {
    *("fid", "kid", "kid_std", "isc", "isc_std", "precision", "recall", "sure_share", "class_share_min"),
    *(f"class_share_{k}" for k in range(10)),
    *("nn_rmse_mean", "nn_rmse_median", "nn_rmse_test_mean", "nn_rmse_test_median"),
    *("nn_feature_mean", "nn_feature_median", "nn_feature_test_mean", "nn_feature_test_median"),
    *("elbo_nats", "iw_bound_100_nats", "mse_per_pixel", "rmse_per_pixel", "psnr", "ssim"),
    *("network_evaluations", "seconds_50_samples"),
}
OF_DATA = {"elbo_nats", "iw_bound_100_nats", "mse_per_pixel", "rmse_per_pixel", "psnr", "ssim"}
NO_SCORE, NO_CHAIN = "out-of-distribution: Tiny has no score", "chain health: Tiny has no chain"


def test_the_whole_evaluation_of_images(tmp_path, capsys):
    tiny = model()
    run = trainer(tmp_path, [Evaluate(n_test=50, batch_size=16, seed=3)])
    run.test(tiny, Images(), verbose=False)
    found, about = results(tmp_path)
    assert set(found) == EXPECTED and about["skipped"] == [NO_SCORE, NO_CHAIN]
    images = to_uint8(samples_of(tiny, 50, 16, seed=3))
    train, test = Images().reference("train"), Images().reference("test")
    expected = fidelity(images, train) | classifier_report(images)
    near = nearest_neighbours(images, to_uint8(train)).distance
    expected |= {"nn_rmse_mean": near.mean().item(), "nn_rmse_median": near.median().item()}
    held_out = nearest_neighbours(to_uint8(test), to_uint8(train)).distance
    expected |= {"nn_rmse_test_mean": held_out.mean().item()}
    with torch.no_grad():
        expected["mse_per_pixel"] = (tiny.reconstruct(test) - test).double().square().mean().item()
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    protocol = found["fid"]["protocol"]
    assert protocol == {
        "n": 50,
        "ema": False,
        "sampler": None,
        "steps": None,
        "step_size": None,
        "temperature": None,
        "seed": 3,
        "reference": "few-digits train",
        "n_reference": 40,
        "extractor": "digits",
        "extractor_sha256": sha256_of(),
        "resize": "area average to 8x8",
        "rounding": "clamp to [-1, 1], (x + 1) * 127.5, round, uint8",
        "settings": {"batch_size": 16},
        "versions": versions(),
        "git": git_revision(),
        "config_hash": config_hash({"class": "Tiny"}),
        "trained_steps": None,
        "statistics": None,
        "precision": decided(),
    }
    recall = found["recall"]["protocol"]
    assert (recall["n"], recall["n_reference"]) == (40, 40)  # as many of each as there are of both
    assert recall["settings"] == {"k": 3, "batch_size": 16}
    assert found["kid"]["protocol"]["settings"]["subset_size"] == 40
    held_out = found["nn_rmse_test_mean"]["protocol"]
    assert (held_out["n"], held_out["sampler"], held_out["settings"]["of"]) == (12, None, "few-digits test")
    printed = capsys.readouterr().out
    assert "sure_share" in printed and "few-digits train (40), digits" in printed
    assert f"each number with its protocol: {tmp_path / 'results.json'}" in printed


def test_results_reproduce_to_the_last_digit_and_merge(tmp_path):
    for seed in (0, 0, 1):
        run = trainer(tmp_path, [Evaluate(n_test=30, seed=seed, figures=[FID])])
        run.test(model(), Images(), verbose=False)
        held = json.loads((tmp_path / "results.json").read_text())["results"]
        fids = [entry["value"] for entry in held if entry["name"] == "fid"]
        if seed == 0:
            assert len(fids) == 1
            first = fids[0]
    assert len(fids) == 2 and fids[0] == first and fids[1] != first


def test_averaged_weights_are_evaluated_and_said(tmp_path, capsys):
    run = trainer(tmp_path, [EMA(0.5), Evaluate(n_val=0, n_test=30, figures=[FID])], max_epochs=1)
    tiny = model()
    run.fit(tiny, Images())
    run.test(tiny, Images(), verbose=False)
    found, about = results(tmp_path)
    assert found["fid"]["protocol"]["ema"] is True and about["weights"] == "averaged (EMA)"
    assert "averaged (EMA) weights" in capsys.readouterr().out
    raw = fidelity(samples_of(tiny, 30, 500), Images().reference(), metrics=["fid"])["fid"]
    run.callbacks[0].swap_in(tiny)
    averaged = fidelity(samples_of(tiny, 30, 500), Images().reference(), metrics=["fid"])["fid"]
    assert found["fid"]["value"] == pytest.approx(averaged, rel=1e-6)
    assert abs(raw - averaged) > 1e-3


class Points(Tiny):
    """Samples of the truth, drawn as a generator draws: from the noise it is handed."""

    image_shape = (2,)
    reconstruct = log_likelihood_bound = None

    def sample(self, n, *, steps=None, noise=None, watch=None):
        return Gaussians25().density.sample(n, as_noise(noise))


def test_the_whole_evaluation_of_points(tmp_path):
    data = Gaussians25(n_train=500, n_test=4000, batch_size=1000)
    points = Points()
    trainer(tmp_path, [Evaluate(n_test=2000)]).test(points, data, verbose=False)
    found, about = results(tmp_path)
    samples = samples_of(points, 2000, 500)
    log_density = data.density.log_prob(samples.double())
    assert found["log_density_mean"]["value"] == pytest.approx(log_density.mean().item(), rel=1e-9)
    assert found["log_density_median"]["value"] == pytest.approx(log_density.median().item(), rel=1e-9)
    assert found["log_density_mean"]["value"] == pytest.approx(-1.10, abs=0.08)
    assert found["log_density_mean_test"]["value"] == pytest.approx(-1.10, abs=0.08)
    covered = mode_coverage(samples, data.density.means, data.density.std)
    assert found["modes_covered"]["value"] == covered.covered == 25
    assert found["mode_kl"]["value"] == covered.kl
    assert found["mode_high_quality_share"]["value"] == covered.high_quality_share
    assert found["mode_least_share"]["value"] == covered.least_share
    inside = (torch.cdist(samples, data.density.means) <= 4 * data.density.std).any(1)
    assert found["log_density_within"]["value"] == pytest.approx(log_density[inside].mean().item(), rel=1e-9)
    assert found["log_density_within"]["protocol"]["n"] == inside.sum() == round(2000 * covered.high_quality_share)
    assert found["mode_kl"]["protocol"]["rounding"] is None
    assert about["skipped"] == [
        "ELBO: Points bounds no likelihood",
        "likelihood: Points has no log-density",
        "reconstruction: Points reconstructs nothing",
        "chain health: Points has no chain",
    ]


def test_missing_inception_weights_stop_a_training_before_it_begins(tmp_path):
    tiny = model()
    evaluate = Evaluate("inception", inception_path=tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at .*none\.pth.*n_val: 0"):
        trainer(tmp_path, [evaluate]).fit(tiny, Images())
    assert tiny.raw == []
    without = Evaluate("inception", inception_path=tmp_path / "none.pth", n_val=0)
    trainer(tmp_path, [without], max_epochs=1).fit(tiny, Images())
    assert len(tiny.raw) == 5


def test_missing_inception_weights_leave_the_rest_of_a_test(tmp_path, monkeypatch, capsys):
    def offline(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    trainer(tmp_path, [Evaluate("inception", n_test=20)]).test(model(), Images(), verbose=False)
    found, about = results(tmp_path)
    cost = {"network_evaluations", "seconds_50_samples"}
    assert set(found) == {name for name in EXPECTED if name.startswith("nn_rmse")} | OF_DATA | cost
    (missing, classifier, features, *rest) = about["skipped"]
    assert rest == [NO_SCORE, NO_CHAIN]
    assert features.startswith("nearest neighbours: Inception weights missing")  # those in pixels are there
    assert missing.startswith("fidelity: Inception weights missing") and "no network" in missing
    assert classifier == (
        "classifier report: it needs an extractor that is a classifier: digits, or a file of ebmzoo extractor"
    )
    printed = capsys.readouterr().out
    assert f"skipped {missing}\n" in printed  # one line, however long


def test_what_cannot_be_sampled_is_said(tmp_path):
    class Diverged(Tiny):
        def sample(self, n, **arguments):
            return super().sample(n, **arguments) * float("nan")

    trainer(tmp_path, [Evaluate(n_test=20)]).test(Diverged(), Images(), verbose=False)
    found, about = results(tmp_path)
    assert set(found) == OF_DATA | {"network_evaluations", "seconds_50_samples"}
    assert about["skipped"] == [
        "all that needs samples: 1280 of 1280 values are NaN, which cannot become pixels",
        NO_SCORE.replace("Tiny", "Diverged"),
        NO_CHAIN.replace("Tiny", "Diverged"),
    ]


@pytest.mark.thorough
def test_too_few_samples_and_no_extractor(tmp_path):
    trainer(tmp_path, [Evaluate(n_test=1)]).test(model(), Images(), verbose=False)
    found, about = results(tmp_path)
    assert "fid" not in found and "nn_rmse_mean" in found
    assert "need at least 4 images" in about["skipped"][0]
    trainer(tmp_path, [Evaluate(None, n_test=5)]).test(model(), Images(), verbose=False)
    _, about = results(tmp_path)
    assert (
        about["skipped"][0]
        == "fidelity: Evaluate has no extractor (inception, of 91 MB, digits, cifar10, a file), or no metrics"
    )


def test_plain_loaders_have_no_reference(tmp_path):
    data = Images()
    trainer(tmp_path, [Evaluate(n_test=5)]).test(model(), data.test_dataloader(), verbose=False)
    found, about = results(tmp_path)
    assert set(found) == {"network_evaluations", "seconds_50_samples"}
    assert about["skipped"] == ["all that compares the model with data: the trainer has no data module", NO_CHAIN]
    run = trainer(tmp_path, [Evaluate(n_val=5)])
    run.fit(model(), data.train_dataloader(), data.val_dataloader())
    assert "val/fid_5" not in run.callback_metrics


def test_a_foreign_results_file_stops_the_test_before_it_begins(tmp_path):
    (tmp_path / "results.json").write_text("mine")
    tiny = model()
    with pytest.raises(ValueError, match="is not a results file"):
        trainer(tmp_path, [Evaluate()]).test(tiny, Images(), verbose=False)
    assert tiny.seen == [] and (tmp_path / "results.json").read_text() == "mine"


def test_another_folder_a_config_and_a_logger(tmp_path):
    class Kept(L.Callback):
        config = {"trainer": {"max_epochs": 3}}

    logger = CSVLogger(tmp_path / "logs")
    callbacks = [Kept(), Evaluate(n_test=20, figures=[FID], out=tmp_path / "there")]
    trainer(tmp_path, callbacks, logger=logger).test(model(), Images(), verbose=False)
    found, _ = results(tmp_path / "there")
    assert found["fid"]["protocol"]["config_hash"] == config_hash(Kept.config)
    logger.save()
    assert "test/fid" in (tmp_path / "logs" / "lightning_logs" / "version_0" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "options",
    [
        *({"n_test": 0}, {"n_test": -5}, {"n_val": 1}, {"batch_size": 0}, {"seed": -1}),
        *({"every_n_steps": 0}, {"extractor": "vgg"}, {"only": ["odd"]}),
    ],
)
def test_what_a_user_can_get_wrong(options):
    (name,) = options
    with pytest.raises(ValueError, match="odd" if name == "only" else name):
        Evaluate(**options)


@pytest.mark.thorough
def test_two_processes_measure_what_one_does(tmp_path):
    numbers = []
    for devices in (1, 2):
        path = tmp_path / str(devices)
        options = {"devices": devices, "strategy": "ddp_fork"} if devices > 1 else {}
        run = L.Trainer(
            default_root_dir=path,
            accelerator="cpu",
            callbacks=[Evaluate(n_val=40, n_test=50, batch_size=16, figures=Figures(fidelity=FID))],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **({"devices": 1} | options),
        )
        tiny = model()
        run.validate(tiny, Images(), verbose=False)
        value = run.callback_metrics["val/fid_40"]
        run.test(tiny, Images(), verbose=False)
        found, _ = results(path)
        numbers.append([float(value), found["fid"]["value"], found["nn_rmse_mean"]["value"]])
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_two_evaluations_of_other_sizes_share_a_trainer_and_keep_their_own_states():
    two = [Evaluate(None, n_val=0, n_test=n, figures=[Cost()]) for n in (8, 12)]
    L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=two)
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[two[0], two[0]])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_arrays_that_cannot_be_read_are_replaced_and_whole_ones_kept(tmp_path, share):
    path = tmp_path / "arrays.npz"
    _keep({"old": torch.arange(1000.0)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    _keep({"new": torch.tensor([1.0, 2.0])}, path)
    with np.load(path) as file:
        held = {name: values.tolist() for name, values in file.items()}
    old = {"old": torch.arange(1000.0).tolist()} if share == 1 else {}
    assert held == {**old, "new": [1.0, 2.0]}
    assert [file.name for file in tmp_path.iterdir()] == ["arrays.npz"]
