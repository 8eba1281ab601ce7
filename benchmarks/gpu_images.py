"""Colour images of 32 px on one GPU, within a deadline: an extractor, a VAE and an EC-VAE, then the other methods.

    sh benchmarks/gpu_images.sh --data data/cifar10 --out runs/gpu_images      # the published files
    sh benchmarks/gpu_images.sh --data my_images --extractor my.safetensors    # train/CLASS/ and test/CLASS/ in it
    sh benchmarks/gpu_images.sh --data my_images.yaml                          # the data of a config
    sh benchmarks/gpu_images.sh --data my_images --tiny                        # on a CPU: that it runs, not how well

Each method trains as `configs/METHOD_cifar_small.yaml` has it, with larger networks and batches on a GPU, for
the same number of seconds: an equal share of what the deadline leaves. One that no longer fits is named and not begun.
Table, page and grids lie in the folder `--out` after each method, whenever the script is stopped; the same command goes
on. CIFAR-10's published files are held in memory, a folder's images are read again and again: with those the deadline
reaches less far.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ebmzoo.cli.benchmark import run_shown
from ebmzoo.cli.compare import present
from ebmzoo.report import suites
from ebmzoo.report.commands import Commands
from ebmzoo.report.compare import compare
from ebmzoo.report.results import load, numbers_of
from ebmzoo.report.runs import finished, read

SUITE, SEED = "images32", 0
METHODS = ("vae", "ecvae", "bidvl", "dual_mcmc", "denoising_ebm", "vaebm")
ROOT = Path(__file__).parent.parent
START = 25.0  # seconds of a method beside its training (trials, imports, figures), until one has been seen


def data_of(folder: Path) -> dict[str, Any]:
    """Data for a config: CIFAR-10's published files, images in ``train`` and ``test`` or without; a config's own."""
    if folder.is_file():
        return dict(yaml.safe_load(folder.read_text())["data"])
    batches = folder / "cifar-10-batches-py"
    if batches.is_dir() or (folder / "test_batch").is_file():
        return {"class_path": "CIFAR10", "init_args": {"root": str(folder)}}
    apart = (folder / "train").is_dir() and (folder / "test").is_dir()
    places = {"root": str(folder / "train"), "test_root": str(folder / "test")} if apart else {"root": str(folder)}
    workers = 8 if torch.cuda.is_available() else 0
    return {"class_path": "ImageFolder", "init_args": {**places, "size": 32, "num_workers": workers}}


def enlarged(config: Mapping[str, Any], width: int, batch: int | None, extractor: str) -> dict[str, Any]:
    """A config with every width times a number, another batch size, and another file of its feature network."""

    def wider(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: inner * width if key == "width" else wider(inner) for key, inner in value.items()}
        return [wider(inner) for inner in value] if isinstance(value, list) else value

    found = {**config, "model": wider(config["model"])}
    if batch is not None:
        found["data"] = {**config["data"], "init_args": {**config["data"]["init_args"], "batch_size": batch}}
    for callback in found["trainer"]["callbacks"]:
        if callback["class_path"] == "Evaluate":
            callback["init_args"]["extractor"] = extractor
    return found


def main(arguments: Sequence[str]) -> int:
    """Train, test and compare as many methods as fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of CIFAR-10's files or of labelled images, or a config"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_images"), help="folder of all that is made")
    parser.add_argument("--seconds", type=float, default=480, help="until the deadline (480)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="in this order (all)")
    parser.add_argument("--extractor", help="a file of ebmzoo extractor, or cifar10, in place of training one")
    parser.add_argument("--width", type=int, help="times the configs' widths (4 on a GPU, else 1)")
    parser.add_argument("--batch_size", type=int, help="(128 on a GPU, else the configs')")
    parser.add_argument("--tiny", action="store_true", help="two iterations each, of the configs' networks")
    options = parser.parse_args(arguments)
    gpu = torch.cuda.is_available() and not options.tiny
    width, batch = (
        options.width or (4 if gpu else 1),
        options.batch_size or (128 if gpu else 8 if options.tiny else None),
    )
    out, deadline = options.out, time.monotonic() + options.seconds
    (out / "sources").mkdir(parents=True, exist_ok=True)
    extractor, data = options.extractor or str(out / "extractor.safetensors"), out / "data.yaml"
    data.write_text(yaml.safe_dump({"data": data_of(options.data)}))
    with Commands(1, 8 if gpu else 1) as commands:
        if not options.extractor and not Path(extractor).is_file():
            words = ["ebmzoo", "extractor", "--config", str(data), "--data.flip", "0.5", "--out", extractor]
            words += ["--epochs", "1", "--width", "1", "--batch_size", "8"] if options.tiny else []
            code, _ = commands(words, out / "extractor.log")
            print((out / "extractor.log").read_text().strip().splitlines()[-1], flush=True)
            if code:
                return 1
        for name in options.methods:
            source = yaml.safe_load((ROOT / "configs" / f"{name}_cifar_small.yaml").read_text())
            config = enlarged(source, width, batch, extractor)
            config = suites.small(config, 8) if options.tiny else config
            (out / "sources" / f"{name}_cifar_small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return _methods(options, out, data, deadline, commands)


def _methods(options: argparse.Namespace, out: Path, data: Path, deadline: float, commands: Commands) -> int:
    beside, left_out, folders = START, [], []
    seconds = (deadline - time.monotonic()) / len(options.methods) - beside
    budget, amount = ("iterations", 2.0) if options.tiny else ("seconds", float(round(max(seconds, 1.0))))
    if (out / "plan.json").is_file():  # the same command goes on
        amount = read(out / "plan.json")["amount"]
    for name in options.methods:
        began, folder = time.monotonic(), out / f"{name}_cifar_small" / f"seed_{SEED}"
        if not finished(folder) and not options.tiny and began + beside + amount > deadline:
            left_out.append(name)
            continue
        found = {name: out / "sources" / f"{name}_cifar_small.yaml"}
        plans = suites.plan(SUITE, found, out, budget, amount, "paper", commands, data=data)
        only = {"only": "generation,chains"}
        experiments = [replace(one, test=only) for one in suites.experiments(plans, SUITE, [SEED])]
        run_shown(experiments, out, commands, {one.name: plans[name].evaluations for one in experiments})
        if finished(folder):
            folders.append(folder)
            present(compare(load(folders), separate=True), out, f"sh benchmarks/gpu_images.sh {' '.join(sys.argv[1:])}")
        beside = max(beside, time.monotonic() - began - amount)
    print(f"{len(folders)} of {len(options.methods)} methods in {out}, {amount:g} {budget} of training each")
    if left_out:
        print(f"not begun, the deadline was too near: {', '.join(left_out)}")
    fids = {folder.parent.name: numbers_of(folder)["fid"].value for folder in folders}
    if {"vae_cifar_small", "ecvae_cifar_small"} <= fids.keys():
        print(f"EC-VAE's one step: {fids['ecvae_cifar_small']}, a VAE: {fids['vae_cifar_small']}")
    return int(not folders)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
