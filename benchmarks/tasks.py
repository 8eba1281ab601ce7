"""Restoration figures of docs/results.md: trained models of a few configs against the simplest fillings, as tables.

    python benchmarks/tasks.py                       # EC-VAE on digits and coloured glyphs, Dual-MCMC, seeds 0, 1, 2
    python benchmarks/tasks.py ecvae_digits --seeds 10
    python benchmarks/tasks.py --checkpoint some/last.ckpt   # a trained model instead

Finished trainings in runs/bench, which other figures share, are not repeated. The test images of the config's data are
degraded, restored by `ebmzoo restore` with and without the energy in its prior, and compared with the originals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmzoo import data
from ebmzoo.checkpoints import load, read
from ebmzoo.cli.main import main as ebmzoo
from ebmzoo.cli.restoration_scores import psnr
from ebmzoo.cli.restore import degradation_of, parser_of
from ebmzoo.images import from_uint8, save_images, to_uint8
from ebmzoo.report.cells import Cell
from ebmzoo.report.commands import Commands
from ebmzoo.report.results import numbers_of
from ebmzoo.report.runs import Experiment, run
from ebmzoo.tasks import Restorer

ROOT = Path("runs/bench")
CONFIGS = ["ecvae_digits", "ecvae_digits16", "ecvae_glyphs", "dual_mcmc_digits"]
N = 297  # test images at most
FIGURE_5 = {
    "before": "psnr_before_chains_predicted",
    "after z": "psnr_after_z_chain_predicted",
    "after x": "psnr_predicted",
}


def tasks(shape: tuple[int, ...]) -> dict[str, list[str]]:
    """The tasks of a model of such images, as words of the command line."""
    found = {"superres 2x": ["--task", "superres", "--scale", "2"]}
    found |= {name: ["--task", "inpaint", "--mask", name] for name in ("M20", "M30", "M40", "R20", "R30", "R40")}
    return found | ({"colorize": ["--task", "colorize"]} if shape[0] == 3 else {})


def score(x: Tensor, reference: Tensor) -> float:
    """PSNR of what would be written, dB."""
    return psnr(from_uint8(to_uint8(x)), reference).mean().item()


def filled(words: list[str], x: Tensor, mean_image: Tensor) -> dict[str, float]:
    """PSNR of filling holes with the mean of what is visible, and with the mean of the training images."""
    options = parser_of("restore").parse_args([*words, "--ckpt_path", "", "--input", ""])
    operator = degradation_of(options, tuple(x.shape[1:]))(range(len(x)))
    y = operator.degrade(x)
    if options.task != "inpaint":
        return {"nearest" if options.task == "superres" else "grey": score(operator.lift(y), x)}
    visible = (~operator.hidden).expand(len(x), 1, -1, -1)
    mean = (x * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)
    return {
        "mean": score(operator.complete(y, mean.expand_as(x)), x),
        "mean image": score(operator.complete(y, mean_image.expand_as(x)), x),
    }


def restored(checkpoint: Path, inputs: Path, words: list[str], out: Path) -> dict[str, float]:
    """The figures of one restoration, which is not repeated."""
    if not (out / "results.json").is_file():
        given = ["--ckpt_path", str(checkpoint), "--input", str(inputs), "--degrade", "--out", str(out)]
        if ebmzoo(["restore", *given, *words]):
            raise SystemExit(f"restore failed: {' '.join(words)}")
    return {name: number.value for name, number in numbers_of(out).items()}


def measure(checkpoint: Path, out: Path) -> dict[str, dict[str, float]]:
    """All tasks of one model: task to name of a figure to its value."""
    stored: dict[str, Any] = read(checkpoint)["ebmzoo"]["config"]["data"]
    kind = getattr(data, stored["class_path"].rpartition(".")[2])
    module = kind(**stored.get("init_args", {}))
    module.prepare_data()
    module.setup("test")
    test, train = module.reference("test"), module.reference("train")
    x = from_uint8(to_uint8(torch.stack([test[i] for i in range(min(N, len(test)))])))
    mean_image = torch.stack([train[i] for i in range(min(1500, len(train)))]).mean(0)
    if not (out / "inputs").is_dir():
        save_images(x, out / "inputs")
    has_energy = Restorer.of(load(checkpoint)).energy_temperature is not None
    found = {}
    for name, words in tasks(tuple(x.shape[1:])).items():
        with_energy = restored(checkpoint, out / "inputs", words, out / name)
        row = filled(words, x, mean_image)
        row |= {"restored": with_energy["psnr"], "before chains": with_energy["psnr_before_chains"]}
        if "psnr_after_z_chain" in with_energy:
            row["after the z chain"] = with_energy["psnr_after_z_chain"]
            # What Dual-MCMC's figure 5 shows: the predictions themselves, visible pixels included.
            row |= {f"predicted, {words}": with_energy[name] for words, name in FIGURE_5.items()}
        if has_energy:
            off = restored(checkpoint, out / "inputs", [*words, "--no_energy"], out / f"{name} energy off")
            row["energy off"] = off["psnr"]
        found[name] = row | {"ssim": with_energy["ssim"], "|Ax-y|": with_energy["consistency_max"]}
    return found


def table(seeds: list[dict[str, dict[str, float]]]) -> str:
    """Tasks down, figures across."""
    names = list(dict.fromkeys(name for found in seeds for row in found.values() for name in row))
    lines = ["| task | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for task in seeds[0]:
        cells = [
            Cell([found[task][name] for found in seeds]).each(4) if name in seeds[0][task] else "" for name in names
        ]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--checkpoint", nargs="+", type=Path, help="trained models to measure instead")
    options = parser.parse_args()
    if options.checkpoint:
        groups = {"checkpoints": [(path, path.parent.parent / "tasks") for path in options.checkpoint]}
    else:
        groups = {}
        for name in options.configs:
            experiment = Experiment(name, f"configs/{name}.yaml", seeds=options.seeds)
            with Commands() as commands:
                folders = [results.parent for _, _, results in run([experiment], ROOT, commands)]
            groups[name] = [(folder / "checkpoints" / "last.ckpt", folder / "tasks") for folder in folders]
    for name, models in groups.items():
        print(f"\n{name}, PSNR in dB unless the column says otherwise\n")
        print(table([measure(checkpoint, out) for checkpoint, out in models]), flush=True)


if __name__ == "__main__":
    main()
