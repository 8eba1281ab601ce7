"""Every config is a complete experiment: it parses, its parts can be made, and the small ones train."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from ebmzoo.checkpoints import read
from ebmzoo.cli.configs import load_all
from ebmzoo.cli.doctor import Doctor
from ebmzoo.cli.main import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
OFFLINE = {"Digits", "Gaussians25", "StackedDigits", "Glyphs", "Toy2D"}


def content(path):
    return yaml.safe_load(path.read_text())


SMALL = [path for path in CONFIGS if content(path)["data"]["class_path"] in OFFLINE]
LARGE = [path for path in CONFIGS if path not in SMALL]
NARROW = [path for path in LARGE if path.stem.endswith("_cifar_small")]  # large images, networks for a CPU


def test_there_are_small_and_large_ones():
    names = {path.stem for path in CONFIGS}
    assert {"ecvae_digits", "vae_digits", "ecvae_digits16", "vae_digits16"} <= names
    assert {"ecvae_gaussians25", "vae_gaussians25", "ecvae_cifar", "ecvae_stl10", "ecvae_imagenet32"} <= names
    assert {"ecvae_church64", "ecvae_celeba64"} <= names
    assert len(SMALL) >= 6 and len(LARGE) >= 5


QUICK = ("ecvae_digits", "vaebm_gaussians25")  # images and points; two steps of every other one take seconds


@pytest.mark.parametrize(
    "path",
    [path if path.stem in QUICK else pytest.param(path, marks=pytest.mark.thorough) for path in SMALL],
    ids=lambda path: path.stem,
)
def test_small_configs_take_two_steps(path, tmp_path):
    run, config = tmp_path / "run", content(path)
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] == "Pictures":  # of few: some draw thousands of long chains
            callback["init_args"] = {**callback.get("init_args", {}), "n": 4, "n_points": 50}
    (tmp_path / path.name).write_text(yaml.safe_dump(config))
    short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    assert main(["fit", f"--config={tmp_path / path.name}", f"--run_dir={run}", *short]) == 0
    assert read(run / "checkpoints" / "last.ckpt")["global_step"] == 2


class Made(Doctor):
    """What the command line makes of a config, without memory, and nothing done with it."""

    def fit(self, model, datamodule, ckpt_path=None):
        pass


@cache
def parser():
    """The command line's, once: to make it takes longer than what is asked of it here."""
    made = Made([f"--config={CONFIGS[0]}"])
    load_all()  # it knew the names of its own config
    return made._parser("fit")


# Of the large ones, one of each method; the others are of the same classes.
SEEN = [
    one
    if one in SMALL or one in NARROW or one.stem.endswith("_cifar")
    else pytest.param(one, marks=pytest.mark.thorough)
    for one in CONFIGS
]


@pytest.mark.parametrize("path", SEEN, ids=lambda path: path.stem)
def test_all_configs_parse_and_can_be_made(path):
    with torch.device("meta"):
        made = parser().instantiate_classes(parser().parse_path(path))
    method = made.model
    assert type(method).__name__ == content(path)["model"]["class_path"]
    assert method.image_shape == made.data.image_shape
    assert len(made.trainer.callbacks) == len(content(path)["trainer"]["callbacks"])
    assert path in SMALL or (sum(p.numel() for p in method.parameters()) > 2e6) == (path not in NARROW)
    assert {name for name, player in method.players().items() if not player[0]} == set()
    assert not method.advice()  # no law that is known speaks against what is shipped


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_the_method_is_explained(path):
    # A number without a word beside it helps nobody: each setting of the method itself has a comment, or is a class.
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    start = lines.index("model:")
    settings = [line for line in lines[start:] if line.startswith("    ") and not line.startswith("     ")]
    bare = [line for line in settings if ":" in line and not line.rstrip().endswith(":") and "#" not in line]
    allowed = ("kl_weight: 1.0", "latent_dim: 16", "batch_size", "num_workers", "pin_memory", "root", "- class_path")
    assert not [line for line in bare if not line.strip().startswith(allowed)], bare
