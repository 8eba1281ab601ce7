"""The doctor: exact counts on a config whose numbers are known, and what is missing, by its exact path."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"


def lines(answer):
    return {line.split()[0]: line.partition(" ")[2].strip() for line in answer.out.splitlines() if line.strip()}


def test_it_counts_parameters_memory_and_evaluations(ebmzoo, here):
    answer = ebmzoo("doctor", "--config", "ecvae.yaml")
    assert answer.code == 0
    found = lines(answer)
    assert found["what"] == "ECVAE on digits-8 (1, 8, 8), batches of 32"
    # Linear layers: encoder 64-16-8, decoder 4-16-64, energy 64-16-1.
    encoder, decoder, energy = 64 * 16 + 16 + 16 * 8 + 8, 4 * 16 + 16 + 16 * 64 + 64, 64 * 16 + 16 + 16 + 1
    assert found["parameters"].startswith(
        f"{encoder + decoder + energy:,}: vae {encoder + decoder:,}, energy {energy:,}"
    )
    # Two chain steps and the update of two halves, each with a gradient; the decoder for the chain and for the bound.
    assert found["evaluations"].endswith("vae.encoder 2, vae.decoder 4, ebm 8")
    assert found["data"] == "1,500 train, 297 test"
    assert found["precision"].startswith("32-true")
    assert answer.out.splitlines()[-1] == "ready: nothing is missing"
    assert not (here / "runs").exists()


def test_it_names_what_is_missing(ebmzoo, here):
    words = ["doctor", "--config", "ecvae.yaml", "--data", "CIFAR10", "--data.root", "nowhere"]
    answer = ebmzoo(*words)
    assert answer.code == 2
    assert "CIFAR-10 not found: there is neither nowhere/cifar-10-batches-py" in answer.err.splitlines()[-1]
    assert "missing: CIFAR-10 not found" in lines(answer)["data"]
    assert "ECVAE on cifar10 (3, 32, 32)" in answer.out
    answer = ebmzoo("doctor", "--config", "ecvae.yaml", "--trainer.accelerator", "gpu")
    assert answer.code == 2 and "the config asks for a GPU, and there is none" in answer.err


def test_a_longer_chain_costs_more_evaluations(ebmzoo):
    answer = ebmzoo("doctor", "--config", "ecvae.yaml", "--model.sampler.steps", 7)
    assert lines(answer)["evaluations"].endswith("ebm 18")


def test_out_of_memory_is_answered_with_what_to_change(ebmzoo, here):
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--model.energy.width", 10**9)
    assert answer.code == 2
    line = answer.err.splitlines()[-1]
    assert "out of memory (tried to allocate 256000000000 bytes): lower --data.batch_size" in line
    assert not (here / "runs").exists()


@pytest.mark.thorough
def test_of_two_stages_the_second_is_counted(ebmzoo):
    answer = ebmzoo("doctor", "--config", CONFIGS / "ecflow_digits.yaml", "--model.sampler.steps", 15)
    # A chain's 15 steps and the update of two halves; the flow draws once and scores the data; each with a gradient.
    assert lines(answer)["evaluations"].endswith("flow 4, ebm 34")


def test_it_gives_advice_where_a_law_is_known(ebmzoo, here):
    loud = ebmzoo("doctor", "--config", CONFIGS / "vaebm_digits.yaml", "--model.vae.sigma", 0.3)
    assert "the decoder's sigma 0.3 stays in x" in lines(loud)["advice"] and loud.code == 0
