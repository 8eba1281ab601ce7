"""Why Dual-MCMC's restorations gained little: noise and length of the z chain, and an x chain that goes too far.

    python -m benchmarks.causes.dual_mcmc_restoration --checkpoint runs/dual_mcmc_digits/version_0/checkpoints/last.ckpt
    python -m benchmarks.causes.dual_mcmc_restoration --quick

PSNR of the predictions themselves on the test digits, as in the paper's figure 5.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

import ebmzoo
from benchmarks.causes.dual_mcmc_slope import made
from ebmzoo.cli.restoration_scores import psnr
from ebmzoo.data.digits import digits
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.mcmc import as_noise
from ebmzoo.tasks import Degradation, Inpaint, Restorer, centre_mask, scattered_mask

SHAPE = (1, 8, 8)
Z_CHAINS = {
    "10 steps, T 1 (training's)": (10, 1.0),
    "10, T 0": (10, 0.0),
    "100, T 1": (100, 1.0),
    "100, T 0": (100, 0.0),
}
X_STEPS = (0, 2, 4, 8, 15)


def masks(n: int) -> dict[str, Degradation]:
    """Centred squares and scattered blocks of figure 5."""
    squares = {f"M{px}": Inpaint(centre_mask(SHAPE, px)) for px in (20, 30)}
    blocks = {f"R{share}": Inpaint(scattered_mask(SHAPE, share / 100, as_noise(0), n)) for share in (20, 40)}
    return squares | blocks


def decibels(prediction: Tensor, x: Tensor) -> float:
    """Mean PSNR of what would be written."""
    return psnr(from_uint8(to_uint8(prediction)), x).mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Print the tables, and return them: rows by mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="of dual_mcmc_digits")
    parser.add_argument("--quick", action="store_true", help="an untrained tiny model and 8 images")
    options = parser.parse_args(arguments)
    if not options.quick and not options.checkpoint:
        parser.error("--checkpoint or --quick")
    model = made(15, {}, 2.0, 5e-5, 16).eval() if options.quick else ebmzoo.load(options.checkpoint)
    x = from_uint8(to_uint8(digits("test")[0][: 8 if options.quick else 297]))
    level = {split: model.energy(digits(split)[0]).mean().item() for split in ("train", "test")}
    print(f"E of training digits {level['train']:.4f}, of test digits {level['test']:.4f}, ", end="")
    print(f"of the generator's {model.energy(model.sample(1000, steps=0, noise=0)).mean().item():.4f}\n")
    shipped = Restorer.of(model)
    sampler = model.test_sampler()[0]
    found: dict[str, dict[str, Any]] = {}
    columns = ["inferred", *Z_CHAINS, *[f"{k} x steps" for k in X_STEPS], "E before", "E after", "defaults"]
    print(f"| mask | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for mask, operator in masks(len(x)).items():
        restored = partial(_restored, model, operator, x)
        row = [decibels(restored(replace(shipped, steps=0, x_sampler=None)).latent, x)]
        for steps, temperature in Z_CHAINS.values():
            chain = replace(shipped, steps=steps, temperature=temperature, x_sampler=None)
            row.append(decibels(restored(chain).latent, x))
        energies = []
        for steps in X_STEPS:
            prediction = restored(replace(shipped, x_sampler=sampler, x_steps=steps)).prediction
            energies.append(model.energy(prediction).mean().item())
            row.append(decibels(prediction, x))
        row += [energies[0], energies[-1], decibels(restored(shipped).prediction, x)]
        found[mask] = dict(zip(columns, row, strict=True))
        cells = [f"{value:.4f}" if name.startswith("E ") else f"{value:.2f}" for name, value in found[mask].items()]
        print(f"| {mask} | {' | '.join(cells)} |", flush=True)
    return found


def _restored(model: Any, operator: Degradation, x: Tensor, restorer: Restorer) -> Any:
    return restorer(model, operator, operator.degrade(x), noise=0)


if __name__ == "__main__":
    main()
