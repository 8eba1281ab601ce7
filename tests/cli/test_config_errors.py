"""What of a config the parser does not take: its place, its class, and what the place takes."""

import pytest

TREES = {
    "trainer: {max_epoch: 3}\n": "trainer has no setting 'max_epoch': did you mean max_epochs",
    "trainer: {callbacks: [EMA, {class_path: EMA, init_args: {decay: z}}]}\n": (
        "trainer.callbacks.decay: expected float, not 'z'"
    ),
    "trainer: {logger: [CSVLoger]}\n": "trainer.logger: no class 'CSVLoger' here: did you mean",
    "model: {class_path: EBM, init_args: {energy: {class_path: [[]]}}}\ndata: Digits\n": (
        "model.energy: class_path is the name of a class, not '[[]]'"
    ),
    "model: 3\ndata: Digits\n": "model: expected Method, not '3'",
    "model: {class_path: VAE, init_args: [1]}\ndata: Digits\n": "model: init_args is a list: give settings under it",
    "model: {class_path: VAE, init_args: {vae: {class_path: GaussianVAE, init_args: {latent_dim: 2}}}}\n": (
        "model.vae: GaussianVAE needs encoder, decoder"
    ),
    "model: {class_path: EBM, init_args: {energy: {class_path: Energy, init_args: {network: MLPEnergy, penalties: "
    "[{class_path: EnergyL2, init_args: {wieght: 1}}]}}}}\ndata: Digits\n": (
        "model.energy.penalties: EnergyL2 has no setting 'wieght': did you mean weight?"
    ),
}
WORDS = {
    ("--trainer.callbacks+=Evaluate", "--trainer.callbacks.figures.neighbours.crop=x"): (
        "trainer.callbacks.figures.neighbours.crop: expected int, not 'x'"
    ),
    ("--resume", "yes"): "resume: expected one of auto, not 'yes'",
    ("--trainer.max_epochs",): "--trainer.max_epochs needs a value",
    ("--model", "os.path.join"): "model: no class 'join' here: there are BiDVL, ",
    ("--data", "CIFAR10", "--data.batch_size", "many"): "data.batch_size: expected int, not 'many'",
    ("--model.energy", "Langevin"): "none that energy takes: there are ConvEnergy, DualMCMCEnergy, Energy, MLPEnergy,",
    ("--model.refine", "MAL"): "no class 'MAL' here: did you mean MALA?",
    ("--data", "ECVAE"): "none that data takes: there are CIFAR10, ",
    ("--model.energy_optimizer.lr", "fast"): "model.energy_optimizer.lr: expected float, not 'fast'",
}


@pytest.mark.parametrize(("tree", "line"), TREES.items())
def test_of_a_config(ebmzoo, here, tree, line):
    (here / "bad.yaml").write_text(tree)
    answer = ebmzoo("fit", "--config", "bad.yaml")
    assert answer.code == 2 and answer.err.splitlines()[-1].startswith(f"ebmzoo: error: {line}")


@pytest.mark.parametrize(("words", "line"), WORDS.items())
def test_of_words_over_a_config(ebmzoo, words, line):
    answer = ebmzoo("fit", "--config", "ecvae.yaml", *words)
    assert answer.code == 2 and line in answer.err.splitlines()[-1]


def test_of_two_configs_the_later_one_is_refused(ebmzoo, here):
    (here / "over.yaml").write_text("model: {init_args: {vae: {init_args: {latent_dim: few}}}}\n")
    answer = ebmzoo("fit", "--config", "vae.yaml", "--config", "over.yaml")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "ebmzoo: error: model.vae.latent_dim: expected int, not 'few'"
