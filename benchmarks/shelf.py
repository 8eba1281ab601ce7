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
    "model.refine.step_size": 0.072,
    "model.refine.temperature": 0.0375,
    "model.refine.max_drift": 0.15,
}
# Section 5.4: Langevin steps of white noise alone, six chains of ten begun in the buffer, their x-part afresh.
PAPER = {
    "model.sampler": "Langevin",
    "model.sampler.steps": 10,
    "model.sampler.step_size": 3e-3,
    "model.replay_probability": 0.6,
    "model.replay_x": False,
}
# The paper's grid is another: its VAE's figure is possible where neighbouring modes are about 4.5 s apart.
NEAR = {"data.spacing": 0.37, "data.std": 0.0815}


def in_space(space: str, **sampler: float) -> Experiment:
    """VAEBM on digits with chains in another space, by steps of its own: the same 15 in training, 30 at test."""
    chains = {f"model.{chain}.{name}": value for chain in ("sampler", "refine") for name, value in sampler.items()}
    words = ", ".join(f"{name} {value:g}" for name, value in sampler.items())
    options = {"model.space": space, **chains, **({"model.replay_x": True} if space == "x" else {})}
    return Experiment(f"vaebm_digits, space {space}, {words}", "configs/vaebm_digits.yaml", options)


GROUPS: dict[str, list[Experiment]] = {
    "ecvae gaussians25": [
        Experiment("ecvae_gaussians25", EC25),
        Experiment("ecvae_gaussians25 after 15 steps", EC25, test=EC_CHAIN, of="ecvae_gaussians25"),
        Experiment("vae_gaussians25", "configs/vae_gaussians25.yaml"),
    ],
    "near gaussians25": [
        Experiment("ecvae_gaussians25, modes 4.5 s apart", EC25, NEAR),
        Experiment("vae_gaussians25, modes 4.5 s apart", "configs/vae_gaussians25.yaml", NEAR),
    ],
    "vaebm gaussians25": [
        Experiment("vaebm_gaussians25", VAEBM25),
        Experiment("vaebm_gaussians25 with the paper's sampler", VAEBM25, PAPER),
        Experiment("vaebm_gaussians25 without proposals", VAEBM25, {"model.sampler.proposals": 0}),
    ],
    "vaebm digits": [
        Experiment("vaebm_digits", "configs/vaebm_digits.yaml"),
        Experiment("vaebm_digits mean", "configs/vaebm_digits.yaml", test={"model.output": "mean"}, of="vaebm_digits"),
    ],
    # A step that suits white noise is 1 / sigma^2 = 100 times too long for x; EBMs in x are run at low temperatures.
    "vaebm spaces": [
        *(in_space("data", step_size=step) for step in (1e-4, 4e-4, 2e-3, 1e-2)),
        *(in_space("x", step_size=step) for step in (4e-4, 2e-3, 1e-2)),
        in_space("x", step_size=2.0, temperature=5e-5, max_drift=0.1),
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
    "near gaussians25": [*GAUSSIANS[:5], "log_density_within", *GAUSSIANS[5:]],
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
