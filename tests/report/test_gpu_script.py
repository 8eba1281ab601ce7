"""The script that measures on a GPU runs where there is none, in tiny sizes, and prints all of its table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import gpu_images
from ebmzoo.images import save_png

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_table_in_tiny_sizes():
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu.sh"), "--tiny"], capture_output=True, text=True, env=environment, check=True
    )
    assert "bf16" in done.stdout and "GB/s" in done.stdout and "precision of all: bf16-mixed" in done.stdout
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows] == [
        "ecvae_cifar",
        "vaebm_cifar",
        "dual_mcmc_cifar",
        "denoising_ebm_cifar",
        "ebm_cifar",
        "bidvl_cifar",
        "Table 7, c=128, b512: a step",
    ]
    assert all(float(row[2]) > 0 for row in rows), done.stdout


@pytest.fixture
def folder(tmp_path):
    """Two classes of 24 training and 8 test images of 32 px: dark noise and bright noise."""
    chance = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("test", 8)):
        for name, low in (("dark", 0), ("bright", 128)):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for k in range(count):
                pixels = torch.randint(low, low + 128, (3, 32, 32), dtype=torch.uint8, generator=chance)
                save_png(pixels, place / f"{k}.png")
    return tmp_path / "images"


BOTH = pytest.param(("vae",), marks=pytest.mark.thorough), pytest.param(gpu_images.METHODS, marks=pytest.mark.slow)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("methods", BOTH)
def test_images_are_trained_and_compared_in_tiny_sizes(folder, tmp_path, methods):
    words = ["--data", str(folder), "--tiny", "--out", str(tmp_path / "out"), "--methods", *methods]
    command = ["sh", str(ROOT / "benchmarks/gpu_images.sh"), *words]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"{len(methods)} of {len(methods)} methods in" in done.stdout and "accuracy" in done.stdout
    assert ("EC-VAE's one step: " in done.stdout) == ("ecvae" in methods)
    table, page = ((tmp_path / "out" / f"compare.{kind}").read_text() for kind in ("md", "html"))
    assert "FID (train-32)" in table and page.count('alt="samples of') == len(methods)
    for name in methods:
        assert f"| {name}_cifar_small" in table
        assert (tmp_path / "out" / f"{name}_cifar_small" / "seed_0" / "checkpoints" / "last.ckpt").is_file()


def test_what_the_deadline_does_not_allow_is_not_begun(folder, tmp_path, capsys):
    words = ["--data", str(folder), "--out", str(tmp_path / "out"), "--seconds", "20", "--extractor", "cifar10"]
    assert gpu_images.main(words) == 1
    said = capsys.readouterr().out
    assert "0 of 6 methods in" in said and "too near: vae, ecvae, bidvl, dual_mcmc, denoising_ebm, vaebm" in said


def test_networks_grow_and_settings_stay():
    config = yaml.safe_load((ROOT / "configs/ecvae_cifar_small.yaml").read_text())
    found = gpu_images.enlarged(config, 4, 128, "own.safetensors")
    model = found["model"]["init_args"]
    assert model["vae"]["init_args"]["encoder"]["init_args"] == {"width": 64}
    assert model["vae"]["init_args"]["decoder"]["init_args"] == {"width": 12}
    assert model["energy"]["init_args"]["network"]["init_args"] == {"width": 64, "blocks": 1, "scales": 2, "head": 256}
    assert model["sampler"] == config["model"]["init_args"]["sampler"]
    assert found["data"]["init_args"] == {**config["data"]["init_args"], "batch_size": 128}
    (evaluate,) = [one for one in found["trainer"]["callbacks"] if one["class_path"] == "Evaluate"]
    assert evaluate["init_args"]["extractor"] == "own.safetensors"


def test_one_argument_says_which_images(tmp_path):
    for name, root in (("cifar/cifar-10-batches-py", "cifar"), ("split/train", "split"), ("plain/cats", "plain")):
        (tmp_path / name).mkdir(parents=True)
        found = gpu_images.data_of(tmp_path / root)
        assert found["class_path"] == ("CIFAR10" if root == "cifar" else "ImageFolder")
    (tmp_path / "split/test").mkdir()
    places = gpu_images.data_of(tmp_path / "split")["init_args"]
    assert (places["root"], places["test_root"]) == (str(tmp_path / "split/train"), str(tmp_path / "split/test"))
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"data": places}))
    assert gpu_images.data_of(own) == places
