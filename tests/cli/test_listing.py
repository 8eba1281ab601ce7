"""What there is, by name: configs from wherever one stands, and one to edit."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from ebmzoo import methods
from ebmzoo.cli.configs import config_path, shipped, with_paths
from ebmzoo.cli.errors import UserError
from ebmzoo.cli.listing import KINDS

TOP = Path(__file__).parents[2] / "configs"


def test_the_shipped_configs_are_those_of_the_repository():
    assert {name: path.read_text() for name, path in shipped().items()} == {
        path.stem: path.read_text() for path in TOP.glob("*.yaml")
    }


def test_a_config_goes_by_name_and_a_file_wins(here):
    for given in ("vae_digits", "vae_digits.yaml", "configs/vae_digits.yaml"):
        assert Path(config_path(given)).read_text() == (TOP / "vae_digits.yaml").read_text()
    (here / "vae_digits").write_text("mine")
    assert config_path("vae_digits") == "vae_digits"
    with pytest.raises(UserError, match="no config at ecvae_cifa .*, and none of that name: did you mean ecvae_cifar"):
        config_path("ecvae_cifa")
    words = ["--config", "ecvae_digits", "-c=vae_digits", "--other", "ecvae_digits", "--config"]
    found = with_paths(words)
    assert [Path(found[1]).stem, Path(found[2].partition("=")[2]).stem] == ["ecvae_digits", "vae_digits"]
    assert found[3:] == words[3:]


def test_a_config_trains_by_its_name_in_an_empty_folder(ebmzoo, here):
    short = ["--trainer.max_steps", 1, "--trainer.limit_val_batches", 0, "--trainer.callbacks", "null"]
    assert ebmzoo("fit", "--config", "bidvl_digits", *short).code == 0
    assert (here / "runs" / "bidvl_digits" / "version_0" / "config.yaml").is_file()


def test_everything_is_listed(ebmzoo):
    answer = ebmzoo("list")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if line.strip()]
    firsts = {line[0] for line in lines}
    assert shipped().keys() <= firsts
    assert {name for name in methods.__all__ if name in ("ECVAE", "VAEBM", "Langevin")} <= firsts
    assert {"Langevin", "MALA", "MLPEnergy", "Digits", "ImageFolder", "Evaluate"} <= firsts
    assert {kind for kind in KINDS if kind != "configs"} <= firsts
    (row,) = [line for line in ebmzoo("list", "configs").out.splitlines() if line.startswith("ecvae_cifar ")]
    assert row.split()[1] == "CIFAR10" and "EC-VAE on CIFAR-10" in row


def test_a_config_is_copied_to_be_edited(ebmzoo, here):
    answer = ebmzoo("list", "--copy", "vae_digits")
    assert answer.code == 0 and "ebmzoo fit --config vae_digits.yaml" in answer.out
    assert (here / "vae_digits.yaml").read_text() == (TOP / "vae_digits.yaml").read_text()
    assert yaml.safe_load((here / "vae_digits.yaml").read_text())["model"]["class_path"] == "VAE"
    for words, line in (
        (["--copy", "vae_digits"], "vae_digits.yaml exists"),
        (["--copy", "vae_digit"], "did you mean vae_digits"),
        (["--out", "x.yaml"], "give --copy NAME"),
        (["config"], "configs"),
    ):
        answer = ebmzoo("list", *words)
        assert answer.code == 2 and line in answer.err.splitlines()[-1]


def test_ones_own_images_are_laid_over_a_config(ebmzoo, here):
    """A second config of five lines: the data are its own, all else is the first one's."""
    (here / "photos").mkdir()
    for k in range(40):
        Image.new("L", (9, 8), 6 * k).save(here / "photos" / f"{k}.png")
    (here / "my_images.yaml").write_text(
        "data:\n  class_path: ImageFolder\n  init_args:\n    root: photos\n    size: 8\n    channels: 1\n"
    )
    fit = ["fit", "--config", "vae.yaml", "--config", "my_images.yaml", "--run_dir", "run", "--trainer.max_epochs", 1]
    assert ebmzoo(*fit).code == 0
    config = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert config["data"]["class_path"] == "ebmzoo.ImageFolder"
    assert config["data"]["init_args"]["batch_size"] == 32 and config["model"]["class_path"] == "ebmzoo.VAE"
