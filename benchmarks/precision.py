"""bf16-mixed against fp32 on digits: EC-VAE, VAEBM and Dual-MCMC, trained and tested in each, printed as tables.

    python benchmarks/precision.py [group ...]

Finished runs in runs/bench are not repeated; those of fp32 are shared with the other scripts.
"""

from __future__ import annotations

from bench import bench

from ebmzoo.report.runs import Experiment

MIXED = {"trainer.precision": "bf16-mixed"}
GROUPS = {
    name: [
        Experiment(f"{name}_digits", f"configs/{name}_digits.yaml"),
        Experiment(f"{name}_digits bf16", f"configs/{name}_digits.yaml", MIXED),
    ]
    for name in ("ecvae", "vaebm", "dual_mcmc")
}

if __name__ == "__main__":
    bench(__doc__, GROUPS, {"": ["fid", "recall", "precision", "mse_per_pixel", "fit_cpu_s"]})
