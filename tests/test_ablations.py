"""The papers' ablations in docs/methods are overrides of shipped configs: each is understood, and trains."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from ebmzoo import optim  # noqa: F401 - gives the classes their short names
from ebmzoo.checkpoints import read
from ebmzoo.cli.configs import load_all
from ebmzoo.cli.main import main
from ebmzoo.methods import Method

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
BASE = re.compile(r"[Oo]verrides? of (?:any )?`(\w+)(?:_\*`|`)")


def ablations():
    """(config, row, words) of every table row whose cell is an override, under the config named last above it."""
    base, found = "", []
    for line in [line for page in PAGES for line in page.read_text().splitlines()]:
        named = BASE.search(line)
        if named:
            base = named[1] if (ROOT / "configs" / f"{named[1]}.yaml").is_file() else f"{named[1]}_cifar"
        if line.startswith("|") and (override := re.search(r"\| `(--model\.[^`]+)` \|", line)):
            found.append(pytest.param(base, shlex.split(override[1]), id=f"{base}: {line.split('|')[1].strip()}"))
    return found


# What makes the large configs small enough for two steps on a CPU, in the same structure.
SMALL = {
    "ecvae": {
        "vae.init_args.latent_dim": 8,
        "vae.init_args.encoder.init_args": {"width": 8},
        "vae.init_args.decoder.init_args": {"width": 4},
        "energy.init_args.network.init_args": {"width": 8, "head": 16},
    },
    "vaebm": {
        "vae_steps": 1,
        "kl_warmup": 0,
        "vae.init_args": {"width": 16, "latents": 2, "cells": 1},
    },
    "ebm": {"energy.init_args.network.init_args": {"width": 8, "head": 16}},
    "wgan": {"energy.init_args.network.init_args": {"width": 8, "head": 16}},
    "bidvl": {
        "latent_dim": 8,
        **{f"{part}.init_args": {"width": 8} for part in ("encoder", "decoder", "energy.init_args.network")},
    },
}


def small(base, tmp_path, words):
    """The config of an ablation on few generated images, without callbacks that need downloads; written to a file."""
    config = yaml.safe_load((ROOT / "configs" / f"{base}.yaml").read_text())
    few = {"size": 32, "channels": 3, "n_train": 40, "n_test": 8, "batch_size": 2}
    config["data"] = {"class_path": "Glyphs", "init_args": few}
    config["trainer"].update(
        max_steps=2, accelerator="cpu", devices=1, precision="32-true", callbacks=None, limit_val_batches=0
    )
    config["trainer"]["enable_progress_bar"] = False
    model = config["model"]["init_args"]
    for key, value in SMALL.get(base.rsplit("_", 1)[0], {}).items():
        *path, last = key.split(".")
        place = model
        for part in path:
            place = place[part]
        place[last] = {**place[last], **value} if isinstance(value, dict) else value
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    if "FILE" in words:
        words = [word for word in words if word != "FILE"]
        words[words.index("--model.vae_ckpt")] = f"--model.vae_ckpt={tmp_path / 'vae.ckpt'}"
    return file, words


@cache
def parser():
    """What the command line knows of a method: its other words take longer than the law does."""
    load_all()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "model")
    return parser


def parsed(base, words=()):
    """The model of a config as the command line understands it with more words."""
    model = yaml.safe_load((ROOT / "configs" / f"{base}.yaml").read_text())["model"]
    model["init_args"]["image_shape"] = [3, 32, 32]
    return parser().parse_args([f"--model={json.dumps(model)}", *words])


without = cache(parsed)


def test_every_method_of_a_paper_has_some():
    bases = {parameters.values[0] for parameters in ablations()}
    assert {"ecvae_cifar", "vaebm_cifar", "bidvl_cifar", "ebm_cifar", "wgan_cifar"} <= bases
    assert parsed("bidvl_cifar") == without("bidvl_cifar")  # what differs below are the words


@pytest.mark.parametrize(("base", "words"), ablations())
def test_an_ablation_is_understood(base, words):
    assert parsed(base, words) != without(base)


def first_of_each_base():
    """All of them, but the first of each base alone is quick."""
    known, found = set(), []
    for one in ablations():
        base, _ = one.values
        found.append(pytest.param(*one.values, id=one.id, marks=[pytest.mark.slow] if base in known else []))
        known.add(base)
    return found


@pytest.mark.parametrize(("base", "words"), first_of_each_base())
@pytest.mark.thorough
def test_an_ablation_can_be_made_at_the_papers_size(base, words):
    with torch.device("meta"):
        model = parser().instantiate_classes(parsed(base, words)).model
    assert sum(p.numel() for p in model.parameters()) > 1e6


@pytest.mark.slow
@pytest.mark.parametrize(("base", "words"), ablations())
def test_an_ablation_takes_two_steps(base, words, tmp_path, capsys):
    config, words = small(base, tmp_path, words)
    command = ["fit", f"--config={config}", f"--run_dir={tmp_path / 'run'}", *words]
    if any(word.startswith("--model.vae_ckpt") for word in words):
        assert main([*command, "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)["model"]
        printed["init_args"]["image_shape"] = [3, 32, 32]
        model = parser().instantiate_classes(parser().parse_object({"model": printed})).model
        torch.save({"state_dict": model.state_dict()}, tmp_path / "vae.ckpt")
    assert main(command) == 0
    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2
