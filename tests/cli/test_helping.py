"""Help speaks of this tool: its verbs, its files, its classes."""

import pytest

WORDS = {
    "fit": "Train a method from a config, or go on from a checkpoint.",
    "validate": "The validation figures of a checkpoint.",
    "test": "The whole evaluation of a checkpoint: results.json and pictures.",
    "predict": "Score, energy and reconstruction of every example: predictions.npz.",
}


@pytest.mark.parametrize("verb", WORDS)
def test_a_verb_says_what_it_does_here(ebmzoo, verb):
    answer = ebmzoo(verb, "--help")
    text = " ".join(answer.out.split())
    assert answer.code == 0 and WORDS[verb] in text
    begin = "--config CONFIG" if verb == "fit" else "--ckpt_path CHECKPOINT"
    assert answer.out.startswith(f"usage: ebmzoo {verb} {begin} [--SETTING VALUE ...]\n")
    assert "full optimization routine" not in text and "separated from fit" not in text
    assert "registry" not in text.rpartition("--ckpt_path CKPT_PATH")[2]
    assert "A file, or the name of a shipped config" in text and "a local file." in text
    assert "torch.nn." not in text and "lightning.pytorch.callbacks.ModelCheckpoint" in text


def test_a_method_lists_the_classes_that_its_places_take(ebmzoo):
    answer = ebmzoo("fit", "--model.help", "ECVAE")
    text = " ".join(answer.out.split())
    assert answer.code == 0 and "torch.nn." not in text and "torch.jit" not in text
    _, _, energy = text.rpartition("--model.energy ENERGY")
    listed = energy.partition("classes: ")[2].partition(")")[0].split(", ")
    assert {"Energy", "MLPEnergy", "VAEBMEnergy"} <= set(listed) and "ECVAE" not in listed
    _, _, vae = text.rpartition("--model.vae VAE")
    assert vae.partition("classes: ")[2].partition(")")[0].split(", ") == ["GaussianVAE", "HierarchicalVAE"]
    _, _, refine = text.rpartition("--model.refine REFINE")
    assert {"Langevin", "MALA", "HMC"} <= set(refine.partition("classes: ")[2].partition(")")[0].split(", "))
    assert "torch.optim.Adam" in text
