"""What a run's seed decides on the command line: the order of the data too, and never which data there are."""

import pytest
import torch
import yaml

from ebmzoo.data import Digits
from ebmzoo.methods import VAE


@pytest.fixture
def seen(monkeypatch):
    """The batches that training and validation were given, in this order."""
    batches = {"training_step": [], "validation_step": []}

    def recorded(step, whole):
        def record(self, batch, batch_idx):
            batches[step].append(batch.clone())
            return whole(self, batch, batch_idx)

        return record

    for step in batches:
        monkeypatch.setattr(VAE, step, recorded(step, getattr(VAE, step)))
    return batches


def order(seed, count):
    """The first batches of the digits in the order of a seed, as one tensor."""
    return torch.cat(list(Digits(batch_size=32, seed=seed).train_dataloader())[:count])


@pytest.mark.parametrize(
    ("words", "seed"),
    [
        ([], 3),  # the config's seed_everything
        (["--seed_everything", "0"], 0),
        (["--seed_everything", "1"], 1),
        (["--seed_everything", "1", "--data.seed", "5"], 5),
        (["--seed_everything", "false"], 0),
    ],
)
def test_the_order_of_the_data_is_the_runs_seeds_unless_it_has_its_own(ebmzoo, seen, words, seed):
    answer = ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_steps", "3", "--run_dir", "run", *words)
    assert answer.code == 0, answer.err
    assert torch.equal(torch.cat(seen["training_step"]), order(seed, 3))
    looked_at = torch.cat(seen["validation_step"])
    assert torch.equal(looked_at, Digits().reference("test")[torch.arange(len(looked_at))])


def test_a_configs_own_seed_of_the_data_stays(ebmzoo, seen, here):
    config = yaml.safe_load((here / "vae.yaml").read_text())
    config["data"]["init_args"]["seed"] = 5
    (here / "vae.yaml").write_text(yaml.safe_dump(config))
    assert ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_steps", "2", "--seed_everything", "1").code == 0
    assert torch.equal(torch.cat(seen["training_step"]), order(5, 2))


@pytest.mark.parametrize("words", [[], ["--seed_everything", "9"], ["--config", "vae.yaml"]])
@pytest.mark.thorough
def test_a_resumed_run_goes_on_in_the_order_it_began_with(ebmzoo, seen, words):
    fit = ["--trainer.limit_train_batches", "1.0", "--run_dir", "run", "--trainer.max_steps"]
    assert ebmzoo("fit", "--config", "vae.yaml", "--seed_everything", "1", *fit, "3").code == 0
    answer = ebmzoo("fit", *words, "--ckpt_path", "run/checkpoints/last.ckpt", *fit, "6")
    assert answer.code == 0, answer.err
    assert "changed since the checkpoint" not in answer.err
    assert torch.equal(torch.cat(seen["training_step"]), order(1, 6))


@pytest.mark.thorough
def test_a_runs_own_config_can_be_trained_with_another_seed(ebmzoo, seen):
    assert ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_steps", "2", "--run_dir", "first").code == 0
    seen["training_step"].clear()
    again = ["--config", "first/config.yaml", "--run_dir", "second"]
    assert ebmzoo("fit", *again, "--seed_everything", "4").code == 0
    assert torch.equal(torch.cat(seen["training_step"]), order(4, 2))
