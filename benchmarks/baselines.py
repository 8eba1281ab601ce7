"""The figures of docs/results.md for the baselines beside EC-VAE: trained, tested and printed as tables.

    python benchmarks/baselines.py [group ...]

Finished runs in runs/bench are not repeated; those of VAE and EC-VAE are shared with foundation.py.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from bench import ROOT, bench

from ebmzoo.report.runs import Experiment

DIGITS = ["fid", "recall", "precision", "sure_share", "class_share_min", "fit_cpu_s"]
POINTS = [
    "modes_covered",
    "mode_high_quality_share",
    "mode_least_share",
    "mode_kl",
    "log_density_mean",
    "fit_cpu_s",
]
VAE = {
    "model.vae": "GaussianVAE",
    "model.vae.latent_dim": 16,
    "model.vae.encoder": "MLPEncoder",
    "model.vae.decoder": "MLPDecoder",
    "model.vae.sigma": 0.3,
}
ALONE = {"model.elbo_weight": 0.0, "model.vae_optimizer.lr": 1e-4}


def from_vae(name: str, config: str, overrides: dict[str, object]) -> list[Experiment]:
    """One row whose every seed begins with the VAE of that seed, which the group "digits" has trained."""
    return [
        Experiment(
            name,
            config,
            {**overrides, "model.vae_ckpt": ROOT / "vae_digits" / f"seed_{seed}" / "checkpoints" / "last.ckpt"},
            seeds=[seed],
        )
        for seed in (0, 1, 2)
    ]


GROUPS: dict[str, list[Experiment]] = {
    "digits": [
        Experiment(name, f"configs/{name}.yaml")
        for name in ("vae_digits", "ecvae_digits", "cooperative_digits", "wgan_digits", "ebm_digits")
    ],
    "digits, a GAN": [Experiment("gan_digits", "configs/gan_digits.yaml")],
    "digits, from a trained VAE": [
        *from_vae("ebm_digits from the VAE", "configs/ebm_digits.yaml", VAE),
        *from_vae("wgan_digits without the ELBO", "configs/wgan_digits.yaml", ALONE),
    ],
    # EC-VAE's figure 4.
    "gaussians25": [
        Experiment(f"{name}_gaussians25", f"configs/{name}_gaussians25.yaml") for name in ("vae", "ecvae", "gan")
    ],
    "gaussians25, the others": [
        Experiment(f"{name}_gaussians25", f"configs/{name}_gaussians25.yaml") for name in ("cooperative", "wgan", "ebm")
    ],
}


def gap(experiment: Experiment, seed: int, results: Path) -> str | None:
    """The largest |E(data) − E(model)| of an EBM's training, and whether all of its energies were finite."""
    if not experiment.name.startswith("ebm"):
        return None
    with (results.parent / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/energy_gap")]
    gaps = [float(row["train/energy_gap"]) for row in rows]
    finite = all(math.isfinite(float(row[f"train/energy_{of}"])) for row in rows for of in ("data", "model"))
    largest = max(abs(value) for value in gaps)
    return f"{experiment.name} seed {seed}: largest |gap| {largest:.3g}, energies finite: {finite}"


if __name__ == "__main__":
    of_points = dict.fromkeys(("gaussians25", "gaussians25, the others"), POINTS)
    bench(__doc__, GROUPS, {"": DIGITS, **of_points}, remark=gap)
