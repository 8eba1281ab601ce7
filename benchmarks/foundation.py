"""The figures of docs/results.md for VAE and EC-VAE on digits: trained, tested and printed as tables.

    make bench            # or: python benchmarks/foundation.py [group ...]

Finished runs in runs/bench are not repeated. Two runs at a time, one thread each: two threads of such small networks
wait for each other more than they work.
"""

from __future__ import annotations

import csv
from pathlib import Path

from bench import bench

from ebmzoo.report.runs import Experiment

DIGITS = [
    "fid",
    "recall",
    "precision",
    "sure_share",
    "class_share_min",
    "nn_rmse_mean",
    "nn_rmse_test_mean",
    "fit_cpu_s",
]


def fixed(weight: float) -> dict[str, object]:
    """EC-VAE with a fixed λ."""
    return {"model.calibration.rate": 0.0, "model.calibration.weight": weight}


GROUPS: dict[str, list[Experiment]] = {
    # Which decoder σ the baseline has is settled on seed 0 alone, then fixed in its config.
    "vae sigma": [
        Experiment(f"vae_digits sigma {sigma}", "configs/vae_digits.yaml", {"model.vae.sigma": sigma}, seeds=[0])
        for sigma in (0.1, 0.2, 0.3, "learned")
    ],
    "digits": [
        Experiment("vae_digits", "configs/vae_digits.yaml"),
        Experiment("ecvae_digits", "configs/ecvae_digits.yaml"),
    ],
    "dual": [
        Experiment("ecvae_digits lambda 1", "configs/ecvae_digits.yaml", fixed(1.0)),
        Experiment("ecvae_digits lambda 4", "configs/ecvae_digits.yaml", fixed(4.0)),
    ],
    # Where a user stands between precision and recall: over lambda at sigma 0.2, over sigma at lambda 2.
    "precision and recall": [
        Experiment("ecvae_digits", "configs/ecvae_digits.yaml"),
        *(Experiment(f"ecvae_digits lambda {w:g}", "configs/ecvae_digits.yaml", fixed(w)) for w in (0.5, 2, 8, 32)),
        *(
            Experiment(f"ecvae_digits sigma {s:g}", "configs/ecvae_digits.yaml", {**fixed(2), "model.vae.sigma": s})
            for s in (0.1, 0.3)
        ),
    ],
    "digits16": [
        Experiment("vae_digits16", "configs/vae_digits16.yaml"),
        Experiment("ecvae_digits16", "configs/ecvae_digits16.yaml"),
    ],
}


def last_fifth(experiment: Experiment, seed: int, results: Path) -> str | None:
    """Mean d/floor over the last fifth of an EC-VAE's training, and λ at its beginning and end."""
    if not experiment.name.startswith("ecvae"):
        return None
    with (results.parent / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/lambda")]
    rows = rows[-len(rows) // 5 :]
    ratio = sum(float(row["train/distance_in_floors"]) for row in rows) / len(rows)
    first, last = float(rows[0]["train/lambda"]), float(rows[-1]["train/lambda"])
    moved = f"lambda {first:.2f} to {last:.2f} ({100 * (last - first) / first:+.1f}%)"
    return f"{experiment.name} seed {seed}, last fifth: d/floor {ratio:.2f}, {moved}"


if __name__ == "__main__":
    bench(__doc__, GROUPS, {"": DIGITS}, remark=last_fifth)
