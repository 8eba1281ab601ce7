"""Parts of the evaluation, chosen from the command line."""

import json

EVALUATE = [
    "--trainer.callbacks+=Evaluate",
    *("--trainer.callbacks.n_test", 40, "--trainer.callbacks.n_val", 0, "--trainer.callbacks.batch_size", 20),
]


def results(folder):
    held = json.loads((folder / "results.json").read_text())
    return {entry["name"]: entry for entry in held["results"]}, held["run"]


def test_only_some_parts_of_an_early_checkpoint(ebmzoo, checkpoint, here):
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--run_dir", "out", "--only", "ood,likelihood", *EVALUATE)
    assert answer.code == 0, answer.err
    found, about = results(here / "out")
    assert {"elbo_nats", "ood_auroc_glyphs-letters-like-digits-8", "ood_auroc_constants"} < set(found)
    assert not {"fid", "psnr", "network_evaluations"} & set(found) and about["skipped"] == []
    assert found["elbo_nats"]["protocol"]["trained_steps"] == 8  # two epochs of four batches
    assert (here / "out" / "score_ood.png").is_file()


def test_long_runs_are_asked_for(ebmzoo, checkpoint, here):
    words = ["test", "--ckpt_path", checkpoint["ecvae"], "--run_dir", "out", "--only", "chains", *EVALUATE]
    assert ebmzoo(*words).code == 0
    assert "energy_chain_x100" not in results(here / "out")[0]
    assert ebmzoo(*words, "--long_run").code == 0
    found, _ = results(here / "out")
    assert found["energy_chain_x100"]["protocol"]["steps"] == 200  # two steps in training


def test_what_a_user_can_get_wrong(ebmzoo, checkpoint):
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--only", "odd", *EVALUATE)
    assert answer.code == 2 and "--only odd: did you mean ood?" in answer.err
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], "--long_run")
    assert answer.code == 2 and "add it to trainer.callbacks" in answer.err
    options = [*EVALUATE, "--trainer.callbacks.ood", "[strange]"]
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], *options)
    assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1


def test_other_sets_are_data_modules_of_the_config(ebmzoo, checkpoint, here):
    sets = '[{"class_path": "Glyphs", "init_args": {"size": 8, "n_test": 20}}, "uniform noise"]'
    options = [*EVALUATE, f"--trainer.callbacks.ood={sets}", "--only", "ood", "--run_dir", "out"]
    answer = ebmzoo("test", "--ckpt_path", checkpoint["vae"], *options)
    assert answer.code == 0, answer.err
    found, _ = results(here / "out")
    assert {"ood_auroc_glyphs-letters-8", "ood_auroc_uniform_noise"} < set(found)
    assert "ood_auroc_constants" not in found
