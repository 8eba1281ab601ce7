"""Out-of-distribution figures on digits: the score of every method that has one, of models that other scripts trained.

    python benchmarks/ood.py [--seeds ...]

Tests checkpoints in runs/bench, at most 1,000 examples of a set; what has not been trained is named and left out.
"""

from __future__ import annotations

from bench import bench

from ebmzoo.report.runs import Experiment

METHODS = ("vae", "ecvae", "vaebm", "bidvl", "dual_mcmc", "denoising_ebm", "ebm", "wgan", "flow", "ecflow")
SETS = ("glyphs-letters-like-digits-8", "interpolations", "uniform_noise", "constants")

GROUPS = {
    "digits": [
        Experiment(f"{name}_digits ood", f"configs/{name}_digits.yaml", test={"only": "ood"}, of=f"{name}_digits")
        for name in METHODS
    ]
}

if __name__ == "__main__":
    bench(__doc__, GROUPS, {"": [*(f"ood_auroc_{name}" for name in SETS), "auroc_test_against_train"]})
