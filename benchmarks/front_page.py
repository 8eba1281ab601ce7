"""The pictures of README.md and of docs/methods, from finished runs on digits, or of the small configs on CIFAR-10.

    for name in ecvae vaebm denoising_ebm dual_mcmc bidvl vae; do ebmzoo fit --config ${name}_digits; done
    python benchmarks/front_page.py --runs runs --out docs/pictures
    python benchmarks/front_page.py --runs runs --out docs/pictures --suffix cifar_small

Of each method's newest run: samples, for its own page and for the table of the README; states of its chain, if it has
one; the streaming FID over iterations, or a loss where training measures no FID. Of small networks on CIFAR-10 samples,
and the FID of all over minutes of training. A run that is missing, or has not reached its last iteration, is named and
left out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import ebmzoo
from ebmzoo.checkpoints import read
from ebmzoo.data import digits
from ebmzoo.figures.chains import chain_frames, chain_titles
from ebmzoo.figures.look import chain_steps
from ebmzoo.figures.plots import curves
from ebmzoo.images import grid, strips
from ebmzoo.mcmc import PerImageNoise

METHODS = ["ecvae", "vaebm", "denoising_ebm", "dual_mcmc", "bidvl", "vae", "ebm", "wgan", "gan", "flow", "ecflow"]
FID = ("val/fid_2k", "FID of 2,000 samples")
CURVES = {"denoising_ebm": ("train/loss_denoiser", "loss of the denoiser")}  # of what is not judged by FID in training
SEED = 0


def main(words: Sequence[str] | None = None) -> None:
    """Make all pictures that there are runs for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs' folders (runs)")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder of the pictures")
    parser.add_argument("--suffix", choices=["digits", "cifar_small"], default="digits", help="of the configs (digits)")
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {}
    for method in METHODS:
        run, found = newest(options.runs / f"{method}_{options.suffix}")
        print(f"{method}: {found}", flush=True)
        if run is not None:
            runs[method] = run
    for name, picture in (of_digits if options.suffix == "digits" else of_cifar)(runs):
        save(picture, options.out / f"{name}.png")


def of_digits(runs: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """The data, and all pictures of each run."""
    yield "data", in_a_table(digits("train")[0])
    for method, run in runs.items():
        yield from pictures(method, run).items()


def of_cifar(runs: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """Samples of each run, and the curves of all."""
    for method, run in runs.items():
        model: Any = ebmzoo.load(run / "checkpoints" / "last.ckpt")
        yield f"cifar_{method}", grid(model.sample(20, noise=noise(20, model)), columns=10, padding=2, scale=2)
    yield "cifar_curves", together(runs)


def newest(folder: Path) -> tuple[Path | None, str]:
    """The newest run in a folder, or none, and a word on it."""
    found = sorted(folder.rglob("checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        return None, f"left out, no run in {folder}"
    run = found[-1].parent.parent
    last = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"]
    step = read(found[-1])["global_step"]
    return (run, f"{run}") if step >= last else (None, f"left out, {run} is at {step:,} of {last:,} iterations")


def pictures(method: str, run: Path) -> dict[str, Tensor]:
    """The pictures of one run by name, uint8 ``(3, H, W)``."""
    model: Any = ebmzoo.load(run / "checkpoints" / "last.ckpt")
    samples = model.sample(96, noise=noise(96, model))
    made = {method: in_a_table(samples), f"{method}_samples": grid(samples, columns=16, padding=3, scale=4)}
    if steps := chain_steps(model):
        made[f"{method}_chain"] = film(model, steps)
    key, label = CURVES.get(method, FID)
    iterations, values = learning_curve(run / "metrics.csv", key)
    made[f"{method}_curve"] = curves({"": values}, iterations, "iterations", label, f"{method}_digits in training")
    return made


def noise(n: int, model: Any) -> PerImageNoise:
    """Noise of n images, the same for each method that asks for as much of it."""
    return PerImageNoise.of_rows(SEED, range(n), model.device)


def in_a_table(images: Tensor) -> Tensor:
    """Two short rows of images."""
    return grid(images[:20], columns=10, padding=3, scale=3)


def film(model: Any, steps: int) -> Tensor:
    """Ten states of four chains, a row each."""
    states = chain_frames(model, 4, steps, 10, noise(4, model))
    return strips(states, padding=3, scale=6, titles=chain_titles(len(states), steps, 10))


def learning_curve(path: Path, key: str) -> tuple[list[int], Tensor]:
    """Iterations of a run's metrics.csv in which a value was logged, and the values."""
    with path.open(newline="") as file:
        logged = [(int(row["step"]) + 1, float(row[key])) for row in csv.DictReader(file) if row[key]]
    return [step for step, _ in logged], torch.tensor([value for _, value in logged])


def together(runs: Mapping[str, Path]) -> Tensor:
    """The streaming FID of all runs over minutes of training, validations not counted, uint8 ``(3, H, W)``."""
    figure = Figure((7.0, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel="minutes of training", ylabel="Fréchet distance of 1,000 samples (cifar10)")
    for method, run in runs.items():
        iterations, values = learning_curve(run / "metrics.csv", "val/fid_1k")
        until, speed = learning_curve(run / "metrics.csv", "time/steps_per_second")
        minutes = np.cumsum(np.diff(until, prepend=0) / speed.numpy()) / 60
        axes.plot(np.interp(iterations, until, minutes), values.numpy(), marker="o", label=method)
    axes.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)


def save(picture: Tensor, path: Path) -> None:
    """Write a small PNG: one channel of what is grey, a palette of what is not."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    small = image.convert("L") if bool((picture == picture[:1]).all()) else image.quantize(256)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
