"""Parts of the evaluation, chosen from the command line."""

import json

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image

from ebmzoo.data.digits import digits
from ebmzoo.images import to_uint8
from ebmzoo.metrics import find_extractor, frechet_distance, load_digit_classifier
from tests.metrics.test_fidelity import Rows

EVALUATE = [
    "--trainer.callbacks+=Evaluate",
    *("--trainer.callbacks.n_test", 40, "--trainer.callbacks.n_val", 0, "--trainer.callbacks.batch_size", 20),
]


def results(folder):
    held = json.loads((folder / "results.json").read_text())
    return {entry["name"]: entry for entry in held["results"]}, held["run"]


@pytest.mark.thorough
def test_only_some_parts_of_an_early_checkpoint(ebmzoo, checkpoint, here):
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--run_dir", "out", "--only", "ood,likelihood", *EVALUATE)
    assert answer.code == 0, answer.err
    found, about = results(here / "out")
    assert {"elbo_nats", "ood_auroc_glyphs-letters-like-digits-8", "ood_auroc_constants"} < set(found)
    assert not {"fid", "psnr", "network_evaluations"} & set(found) and about["skipped"] == []
    assert found["elbo_nats"]["protocol"]["trained_steps"] == 8  # two epochs of four batches
    assert (here / "out" / "score_ood.png").is_file()


def by_hand(samples, reference, **options):
    """torch-fidelity itself, on bytes."""
    find_extractor("digits")  # registers it
    options |= {"feature_extractor": "ebmzoo-digits", "cuda": False, "cache": False, "verbose": False}
    return torch_fidelity.calculate_metrics(input1=Rows(samples), input2=Rows(reference), save_cpu_ram=True, **options)


@pytest.mark.thorough
def test_anybody_can_measure_the_saved_samples_again(ebmzoo, checkpoint, here):
    options = [*EVALUATE, "--trainer.callbacks.n_test", 300, "--only", "generation", "--save_samples"]
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--run_dir", "out", *options)
    assert answer.code == 0, answer.err
    found = {name: entry["value"] for name, entry in results(here / "out")[0].items()}
    files = sorted((here / "out" / "samples").glob("*.png"))
    assert [path.name for path in files] == [f"{k:05d}.png" for k in range(300)]
    samples = torch.stack([torch.from_numpy(np.array(Image.open(path)))[None] for path in files])
    train = to_uint8(digits("train")[0])
    hand = by_hand(samples, train, fid=True, kid=True, isc=True, kid_subset_size=300)
    spread = torch.linspace(0, len(train) - 1, 300, dtype=torch.float64).round().long()
    hand |= by_hand(samples, train[spread], prc=True)
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "kid_std": "kernel_inception_distance_std",
        "isc": "inception_score_mean",
        "isc_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(hand[theirs], rel=1e-6), ours
    network = load_digit_classifier().double()
    exact = frechet_distance(network.features(samples), network.features(train))
    assert found["fid"] == pytest.approx(exact, rel=1e-5)


@pytest.mark.thorough
def test_long_runs_are_asked_for(ebmzoo, checkpoint, here):
    words = ["test", "--ckpt_path", checkpoint["ecvae"], "--run_dir", "out", "--only", "chains", *EVALUATE]
    assert ebmzoo(*words).code == 0
    assert "energy_chain_x30" not in results(here / "out")[0]
    assert ebmzoo(*words, "--long_run").code == 0
    found, _ = results(here / "out")
    assert found["energy_chain_x30"]["protocol"]["steps"] == 60  # two steps in training


def test_what_a_user_can_get_wrong(ebmzoo, checkpoint):
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--only", "odd", *EVALUATE)
    assert answer.code == 2 and "--only odd: did you mean ood?" in answer.err
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--long_run")
    assert answer.code == 2 and "--only, --long_run, --save_samples tell Evaluate: add it" in answer.err
    for option, value, words in (
        ("ood.sets", "[strange]", "strange"),
        ("neighbours.crap", 4, "no setting 'crap': did you mean crop?"),
        ("neighbors.crop", 4, "did you mean neighbours?"),
        ("cost.n", 1, "n of at least 2, not 1"),
    ):
        options = [*EVALUATE, f"--trainer.callbacks.figures.{option}", value]
        answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], *options)
        assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1 and words in answer.err


@pytest.mark.thorough
def test_other_sets_are_data_modules_of_the_config(ebmzoo, checkpoint, here):
    sets = '[{"class_path": "Glyphs", "init_args": {"size": 8, "n_test": 20}}, "uniform noise"]'
    options = [*EVALUATE, f"--trainer.callbacks.figures.ood.sets={sets}", "--only", "ood", "--run_dir", "out"]
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], *options)
    assert answer.code == 0, answer.err
    found, _ = results(here / "out")
    assert {"ood_auroc_glyphs-letters-8", "ood_auroc_uniform_noise"} < set(found)
    assert "ood_auroc_constants" not in found


@pytest.mark.thorough
def test_settings_of_figures_go_by_their_names(ebmzoo, checkpoint, here):
    options = [*EVALUATE, "--trainer.callbacks.Evaluate.figures.cost.n", 3, "--only", "generation", "--run_dir", "out"]
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], *options, "--trainer.callbacks.figures.fidelity", "null")
    assert answer.code == 0, answer.err
    found, _ = results(here / "out")
    assert {"seconds_3_samples", "sure_share"} < set(found) and "fid" not in found


@pytest.mark.thorough
def test_a_run_that_is_trained_on_keeps_them(ebmzoo, checkpoint, here):
    options = [*EVALUATE, "--trainer.callbacks.figures.neighbours.crop=6", "--trainer.callbacks.figures.ood=null"]
    words = ["--config", "vae.yaml", "--run_dir", "run", "--trainer.max_epochs", 1, *options]
    answer = ebmzoo("fit", *words)
    assert answer.code == 0, answer.err
    # The checkpoint's own config names the figures' classes; what is said of one leaves the others.
    last = here / "run" / "checkpoints" / "last.ckpt"
    only = ["--only", "memorisation,ood,likelihood", "--trainer.callbacks.figures.bounds.draws", "[3]"]
    answer = ebmzoo("test", "--ckpt_path", last, *only)
    assert answer.code == 0, answer.err
    found, _ = results(here / "run")
    assert found["nn_rmse_mean"]["protocol"]["settings"]["crop"] == 6 and "iw_bound_3_nats" in found
    assert not any(name.startswith("ood_") for name in found)
    # And a list says exactly which.
    answer = ebmzoo("test", "--ckpt_path", last, "--run_dir", "out", "--trainer.callbacks.figures", "[Reconstruction]")
    assert answer.code == 0, answer.err
    assert "psnr" in results(here / "out")[0] and "elbo_nats" not in results(here / "out")[0]
