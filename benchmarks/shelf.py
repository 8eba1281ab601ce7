"""The figures of docs/results.md for EC-VAE, VAEBM and BiDVL on the 25 Gaussians, digits and stacked digits.

    make bench            # or: python benchmarks/shelf.py [group ...]

Finished runs in runs/bench are not repeated. All networks are MLPs: two runs at a time, one thread each.
"""

from __future__ import annotations

from pathlib import Path

from bench import bench

import ebmzoo
from ebmzoo.data import Gaussians25
from ebmzoo.mcmc import as_noise
from ebmzoo.report.runs import Experiment

GAUSSIANS = ["modes_covered", "mode_least_share", "mode_kl", "mode_high_quality_share", "mode_within_std"]
GAUSSIANS += ["log_density_mean", "log_density_median", "fit_cpu_s"]
DIGITS = ["fid", "recall", "precision", "sure_share", "class_share_min", "fit_cpu_s"]

EC25, VAEBM25 = "configs/ecvae_gaussians25.yaml", "configs/vaebm_gaussians25.yaml"
EC_CHAIN = {
    "model.refine": "Langevin",
    "model.refine.steps": 15,
    "model.refine.step_size": 0.024,
    "model.refine.temperature": 0.0375,
    "model.refine.max_drift": 0.15,
}

GROUPS: dict[str, list[Experiment]] = {
    "ecvae gaussians25": [
        Experiment("ecvae_gaussians25", EC25),
        Experiment("ecvae_gaussians25 after 15 steps", EC25, test=EC_CHAIN, of="ecvae_gaussians25"),
        Experiment("vae_gaussians25", "configs/vae_gaussians25.yaml"),
    ],
    "vaebm gaussians25": [
        Experiment("vaebm_gaussians25", VAEBM25),
        Experiment("vaebm_gaussians25 without proposals", VAEBM25, {"model.sampler.proposals": 0}),
    ],
    "vaebm digits": [
        Experiment("vaebm_digits", "configs/vaebm_digits.yaml"),
        Experiment("vaebm_digits mean", "configs/vaebm_digits.yaml", test={"model.output": "mean"}, of="vaebm_digits"),
    ],
    "vaebm spaces": [
        Experiment("vaebm_digits in (x, z)", "configs/vaebm_digits.yaml", {"model.space": "data"}),
        Experiment("vaebm_digits in x", "configs/vaebm_digits.yaml", {"model.space": "x", "model.replay_x": True}),
    ],
    "stacked digits": [
        Experiment("ecvae_stacked_digits", "configs/ecvae_stacked_digits.yaml"),
        Experiment("vaebm_stacked_digits", "configs/vaebm_stacked_digits.yaml"),
    ],
    "bidvl digits": [
        Experiment("bidvl_digits", "configs/bidvl_digits.yaml"),
        Experiment("bidvl_digits r' = 0.05", "configs/bidvl_digits.yaml", {"model.ratio": 0.05}),
        Experiment("bidvl_digits r' = 1", "configs/bidvl_digits.yaml", {"model.ratio": 1.0}),
    ],
    "ecvae without calibration": [
        Experiment(
            "ecvae_digits lambda 0",
            "configs/ecvae_digits.yaml",
            {"model.calibration.weight": 0.0, "model.calibration.rate": 0.0},
        ),
    ],
}

METRICS = {
    "": [*DIGITS, "mse_per_pixel"],
    "ecvae gaussians25": GAUSSIANS,
    "vaebm gaussians25": [
        "log_likelihood",
        "base_log_likelihood",
        "log_z",
        "log_z_base_draws",
        "mass_outside",
        *GAUSSIANS[:4],
        "fit_cpu_s",
    ],
    "stacked digits": ["stacked_modes", "stacked_modes_sure", "stacked_sure_share", "stacked_kl", "fit_cpu_s"],
}


def with_decoder_noise(experiment: Experiment, seed: int, results: Path) -> str | None:
    """The true log-density of EC-VAE's samples on the 25 Gaussians if the decoder's noise is added to its means."""
    if experiment.name not in ("ecvae_gaussians25", "vae_gaussians25"):
        return None
    model = ebmzoo.load(results.parent / "checkpoints" / "last.ckpt")
    noise = as_noise(seed)
    x = model.sample(100_000, noise=noise)
    x = x + model.vae.log_sigma.exp() * noise.normal(x.shape, x)
    found = Gaussians25().density.log_prob(x.detach().double())
    return (
        f"{experiment.name} seed {seed}, with decoder noise: mean {found.mean():.2f}, median {found.median():.2f} nats"
    )


if __name__ == "__main__":
    bench(__doc__, GROUPS, METRICS, remark=with_decoder_noise)
