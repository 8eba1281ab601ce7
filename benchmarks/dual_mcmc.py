"""The figures of docs/results.md for Dual-MCMC on digits: trained, tested with and without its chains, printed.

    python benchmarks/dual_mcmc.py [group ...]

Finished runs in runs/bench are not repeated; two run at a time with one thread each.
"""

from __future__ import annotations

from bench import bench

from ebmzoo.report.runs import Experiment

DIGITS = ["fid", "recall", "precision", "sure_share", "class_share_min", "mse_per_pixel", "fit_cpu_s"]
CONFIG = "configs/dual_mcmc_digits.yaml"
# The generator's samples and the inference network's reconstructions: what both chains begin with.
NO_CHAINS = {"model.refine": "Langevin", "model.refine.steps": 0, "model.latent_sampler.steps": 0}


def pair(name: str, overrides: dict[str, object]) -> list[Experiment]:
    """A training, tested as its config says and again without both chains."""
    return [Experiment(name, CONFIG, overrides), Experiment(f"{name} without chains", CONFIG, test=NO_CHAINS, of=name)]


GROUPS: dict[str, list[Experiment]] = {
    "digits": [Experiment("vae_digits", "configs/vae_digits.yaml"), *pair("dual_mcmc_digits", {})],
    # Table 4: the z chain from noise.
    "z chain": pair("dual_mcmc_digits from noise", {"model.z_init": "noise"}),
    # Table 5: the length of the x chain.
    "x chain": [
        experiment
        for steps in (10, 20, 30)
        for experiment in pair(f"dual_mcmc_digits {steps} x steps", {"model.sampler.steps": steps})
    ],
}

if __name__ == "__main__":
    bench(__doc__, GROUPS, {"": DIGITS})
