"""Commands run in this process, and two tiny runs made by the command line itself."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from ebmzoo.cli.main import main

VAE = """\
seed_everything: 3
trainer:
  max_epochs: 2
  limit_train_batches: 4
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: VAE
  init_args:
    vae:
      class_path: GaussianVAE
      init_args:
        encoder: {class_path: MLPEncoder, init_args: {width: 16, depth: 1}}
        decoder: {class_path: MLPDecoder, init_args: {width: 16, depth: 1}}
        latent_dim: 4
data:
  class_path: Digits
  init_args: {batch_size: 32}
"""

ECVAE = (
    VAE.replace("class_path: VAE", "class_path: ECVAE")
    .replace(
        "        latent_dim: 4\n",
        """\
        latent_dim: 4
        sigma: 0.7
    energy: {class_path: MLPEnergy, init_args: {width: 16, depth: 1}}
    sampler: {class_path: Langevin, init_args: {steps: 2, step_size: 0.1, temperature: 1.0e-5}}
    refine: {class_path: Langevin, init_args: {steps: 3, step_size: 0.1, temperature: 1.0e-5}}
""",
    )
    .replace("trainer:\n", "trainer:\n  callbacks: [{class_path: EMA, init_args: {decay: 0.5}}]\n")
)


class Answer(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def ebmzoo(capfd):
    """Run one command."""

    def run(*words):
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder of its own for each test, with the two configs of this file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vae.yaml").write_text(VAE)
    (tmp_path / "ecvae.yaml").write_text(ECVAE)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folders of two finished runs, by name; tests only read them."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        for name, config in (("vae", VAE), ("ecvae", ECVAE)):
            Path(f"{name}.yaml").write_text(config)
            assert main(["fit", "--config", f"{name}.yaml"]) == 0
    finally:
        os.chdir(before)
    return {name: folder / "runs" / name / "version_0" for name in ("vae", "ecvae")}


@pytest.fixture
def checkpoint(trained):
    """The last checkpoint of each of the two runs, by name."""
    return {name: folder / "checkpoints" / "last.ckpt" for name, folder in trained.items()}
