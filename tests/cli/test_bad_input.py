"""Everything a user can get wrong: exit code 2, one line that says what, and nothing written or lost."""

import pytest
import torch

FIT = ["fit", "--config", "vae.yaml"]
ECVAE = ["fit", "--config", "ecvae.yaml"]

WORDS = {
    # key, type, class
    "misspelt setting": (
        [*FIT, "--model.vae.latentdim", "3"],
        "GaussianVAE has no setting 'latentdim': did you mean latent_dim?",
    ),
    "misspelt inner setting": (
        [*FIT, "--model.vae.encoder.widht", "3"],
        "MLPEncoder has no setting 'widht': did you mean",
    ),
    "wrong type": ([*FIT, "--model.vae.latent_dim", "x"], "model.vae.latent_dim: expected int, not 'x'"),
    "wrong inner type": (
        [*FIT, "--model.optimizer.lr", "fast"],
        "model.optimizer.lr: expected float, not 'fast'",
    ),
    "wrong trainer type": ([*FIT, "--trainer.max_epochs", "x"], "trainer.max_epochs: expected int, not 'x'"),
    "misspelt trainer setting": ([*FIT, "--trainer.maxepochs", "3"], "did you mean max_epochs"),
    "misspelt option": ([*FIT, "--modell", "VAE"], "no option --modell: did you mean model?"),
    "misspelt part of a method": (
        [*FIT, "--model.vae.enkoder.width", "3"],
        "model.vae: GaussianVAE has no setting 'enkoder'",
    ),
    "misspelt setting of a base class": (
        [*FIT, "--data.batch_siz", "3"],
        "data: Digits has no setting 'batch_siz': did you mean batch_size?",
    ),
    "abbreviated option": (
        [*FIT, "--trainer.max_step", "3"],
        "trainer has no setting 'max_step': did you mean max_steps",
    ),
    "stray word": ([*FIT, "extra"], "'extra' belongs to no option"),
    "misspelt method": ([*FIT, "--model", "VAEE"], "no class 'VAEE' here: did you mean VAE or"),
    "misspelt data": ([*FIT, "--data", "Digit"], "no class 'Digit' here: did you mean Digits?"),
    "misspelt network": ([*FIT, "--model.vae.encoder", "MLPEncodr"], "did you mean MLPEncoder"),
    "misspelt sampler": ([*ECVAE, "--model.sampler", "Langevi"], "did you mean Langevin or"),
    "sampler of another kind": (
        [*ECVAE, "--model.sampler", "MALA"],
        "model.sampler: MALA is a class of this package, but none that sampler takes: there are AnnealedLangevin",
    ),
    "misspelt optimiser": ([*FIT, "--model.optimizer", "Adamm"], "did you mean Adam or"),
    "misspelt logger": ([*FIT, "--trainer.logger", "WandbLoger"], "did you mean WandbLogger?"),
    "misspelt callback": ([*FIT, "--trainer.callbacks+=ModelChekpoint"], "did you mean ModelCheckpoint"),
    "data as a method": (
        [*FIT, "--model", "Digits"],
        "model: Digits is a class of this package, but none that model takes",
    ),
    "missing networks": (["fit", "--model", "VAE", "--data", "Digits"], "VAE needs vae"),
    "nothing given": (["fit"], "no data and no model given: use --config NAME"),
    "impossible number": ([*ECVAE, "--model.sampler.steps", "-3"], "steps and proposals are counts, not -3"),
    "impossible size": ([*FIT, "--data.size", "9"], "9"),
    "impossible precision": ([*FIT, "--trainer.precision", "17"], "trainer.precision: expected one of"),
    # what Lightning has and does not go with methods that step their optimisers themselves
    "another averaging": (
        [*FIT, "--trainer.callbacks+=EMAWeightAveraging"],
        "EMAWeightAveraging writes averaged weights that no verb knows as such: take EMA",
    ),
    "clipping by the trainer": ([*FIT, "--trainer.gradient_clip_val", "0.5"], "--model.grad_clip 0.5"),
    "accumulation": ([*FIT, "--trainer.accumulate_grad_batches", "2"], "take a larger --data.batch_size"),
    "no validation interval": ([*FIT, "--trainer.val_check_interval", "0"], "val_check_interval must be positive"),
    "validation beyond the data": (
        [*FIT, "--trainer.val_check_interval", "99"],
        "must be less than or equal to the number of the training batches (4); --trainer.limit_val_batches 0",
    ),
    "strategy that cuts networks": ([*FIT, "--trainer.strategy", "fsdp"], "strategy fsdp is not one of those that"),
    "strategy of a class": (
        [*FIT, "--trainer.strategy={class_path: lightning.pytorch.strategies.FSDPStrategy}"],
        "strategy FSDPStrategy is not one of those that",
    ),
    "negative steps": ([*FIT, "--trainer.max_steps", "-2"], "`max_steps` must be a non-negative integer or -1"),
    "devices that are none": ([*FIT, "--trainer.accelerator", "cpu", "--trainer.devices", "-1"], "an int > 0"),
    "abstract callback": ([*FIT, "--trainer.callbacks+=BaseFinetuning"], "in lightning.pytorch.callbacks.finetuning"),
    "default that is no plain data": (
        [*FIT, "--trainer.callbacks+=Timer"],
        "cannot be written to a config: give it as 'step'",
    ),
    "optimiser with a closure": ([*FIT, "--model.optimizer", "LBFGS"], "LBFGS evaluates its loss several times a step"),
    "two names for the folder": ([*FIT, "--trainer.default_root_dir", "x"], "set --run_dir instead"),
    # configs
    "missing config": (["fit", "--config", "nope.yaml"], "no config at nope.yaml"),
    "folder as config": (["fit", "--config", "."], "no config at ."),
    # checkpoints
    "missing checkpoint": (["test", "--ckpt_path", "nope.ckpt"], "no checkpoint at nope.ckpt"),
    "keyword as checkpoint": (["test", "--ckpt_path", "best"], "no checkpoint at best"),
    "url": (
        ["test", "--ckpt_path", "https://example.org/a.ckpt"],
        "is a URL: checkpoints are read from local files",
    ),
    "missing checkpoint to resume": ([*FIT, "--ckpt_path", "nope.ckpt"], "no checkpoint at nope.ckpt"),
    "config as checkpoint": (["test", "--ckpt_path", "vae.yaml"], "not a checkpoint, or a broken one"),
    "folder as checkpoint": (["test", "--ckpt_path", "."], ". is a folder: give the checkpoint file"),
}


def refused(answer, words, folder, files):
    assert answer.code == 2
    line = [line for line in answer.err.splitlines() if line.startswith("ebmzoo: error: ")]
    assert len(line) == 1
    assert words in line[0]
    # Apart from that line there may be Lightning's notice of the seed.
    others = [other for other in answer.err.splitlines() if other not in line]
    assert all(other.startswith("Seed set") for other in others), others
    assert sorted(path.name for path in folder.rglob("*")) == files


@pytest.mark.parametrize(("words", "line"), WORDS.values(), ids=WORDS)
@pytest.mark.thorough
def test_one_clear_line_and_nothing_written(ebmzoo, here, words, line):
    refused(ebmzoo(*words), line, here, ["ecvae.yaml", "vae.yaml"])


CONFIGS = {
    "unknown key": ("trainr: {}\n", "has the unknown key 'trainr': did you mean trainer?"),
    "empty": ("", "is not a config: it has no keys"),
    "a list": ("- 1\n", "is not a config: it has no keys"),
    "a key twice": (
        "data: {class_path: Digits}\nmodel:\n  class_path: VAE\n  class_path: EBM\n",
        "bad.yaml, line 4: class_path is given twice, first in line 3",
    ),
    "a key twice in a line": ("data: {class_path: Digits, class_path: Glyphs}\n", "line 1: class_path is given twice"),
    "not yaml": ("model: VAE\n data: :\n", "line 2: not yaml"),
    "empty init_args": ("model: {class_path: VAE, init_args: }\ndata: Digits\n", "init_args is empty"),
    "beside init_args": (
        "model: {class_path: VAE, init_arg: {}}\ndata: Digits\n",
        "takes class_path and init_args",
    ),
    "class elsewhere": (
        "model: {class_path: ebmzoo.methods.VEA}\ndata: Digits\n",
        "no class 'VEA' here: did you mean VAE",
    ),
    "unknown module": ("model: {class_path: foo.bar.Baz}\ndata: Digits\n", "no module 'foo' on Python's path"),
    "misspelt penalty": (
        "model: {class_path: EBM, init_args: {energy: {class_path: Energy, init_args: {network: MLPEnergy, "
        "penalties: [{class_path: EnergyL3}]}}}}\ndata: Digits\n",
        "did you mean EnergyL2?",
    ),
    "binary": (b"\xff\xfe\x00\x01", "is not a text file"),
}


@pytest.mark.parametrize(("content", "line"), CONFIGS.values(), ids=CONFIGS)
def test_bad_configs(ebmzoo, here, content, line):
    config = here / "bad.yaml"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(ebmzoo("fit", "--config", "bad.yaml"), line, here, ["bad.yaml", "ecvae.yaml", "vae.yaml"])


@pytest.mark.thorough
def test_a_checkpoint_of_another_method(ebmzoo, here, checkpoint):
    for words in (["fit", "--config", "vae.yaml"], ["test", "--config", "vae.yaml"]):
        answer = ebmzoo(*words, "--ckpt_path", checkpoint["ecvae"])
        refused(answer, "is a checkpoint of ECVAE, not of VAE", here, ["ecvae.yaml", "vae.yaml"])


def test_a_checkpoint_with_other_networks(ebmzoo, here, checkpoint):
    answer = ebmzoo("fit", "--ckpt_path", checkpoint["vae"], "--model.vae.encoder.width", "32")
    refused(answer, "do not fit this model", here, ["ecvae.yaml", "vae.yaml"])


def test_a_checkpoint_of_other_images(ebmzoo, here, checkpoint):
    answer = ebmzoo("fit", "--ckpt_path", checkpoint["vae"], "--data.size", "16")
    refused(answer, "was trained on images (1, 8, 8), these are (1, 16, 16)", here, ["ecvae.yaml", "vae.yaml"])


def test_a_truncated_checkpoint(ebmzoo, here, checkpoint):
    whole = checkpoint["vae"].read_bytes()
    (here / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for words in (["test"], ["sample"], ["fit", "--config", "vae.yaml"]):
        answer = ebmzoo(*words, "--ckpt_path", "cut.ckpt")
        refused(
            answer,
            "cut.ckpt is not a checkpoint, or a broken one",
            here,
            ["cut.ckpt", "ecvae.yaml", "vae.yaml"],
        )


def test_a_foreign_checkpoint(ebmzoo, here):
    torch.save({"weights": torch.zeros(2)}, here / "foreign.ckpt")
    answer = ebmzoo("test", "--ckpt_path", "foreign.ckpt")
    refused(answer, "has no state_dict", here, ["ecvae.yaml", "foreign.ckpt", "vae.yaml"])


def test_the_runs_folder_cannot_be_written(ebmzoo, here):
    (here / "runs").write_text("a file")
    answer = ebmzoo("fit", "--config", "vae.yaml")
    refused(answer, "cannot write to runs/vae: runs is a file; choose", here, ["ecvae.yaml", "runs", "vae.yaml"])
    answer = ebmzoo("fit", "--config", "vae.yaml", "--run_dir", "runs/here")
    refused(answer, "cannot write to runs/here", here, ["ecvae.yaml", "runs", "vae.yaml"])


def test_missing_data_leaves_no_folder(ebmzoo, here):
    answer = ebmzoo("fit", "--config", "vae.yaml", "--data", "CIFAR10", "--data.root", "nowhere")
    assert answer.code == 2
    assert "nowhere" in answer.err.splitlines()[-1]
    assert not (here / "runs").exists()


def test_an_optimiser_that_refuses_to_step(ebmzoo):
    answer = ebmzoo(*FIT, "--model.optimizer", "SparseAdam")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("ebmzoo: error: SparseAdam does not support dense gradients")
