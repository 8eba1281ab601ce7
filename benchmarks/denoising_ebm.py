"""The figures of docs/results.md for Denoising-EBM: trained, tested and printed as tables.

    python benchmarks/denoising_ebm.py [group ...]

A trained run is tested once as its config says and once more for each other sampler of the group, from the same
weights. Finished runs in runs/bench are not repeated; two run at a time with one thread each.
"""

from __future__ import annotations

from bench import bench

from ebmzoo.report.runs import Experiment

IMAGES = ["fid", "recall", "precision", "sure_share", "class_share_min", "mse_per_pixel", "fit_cpu_s"]
POINTS = ["modes_covered", "mode_high_quality_share", "mode_least_share", "mode_kl", "log_density_mean", "fit_cpu_s"]
DIGITS, GAUSSIANS = "configs/denoising_ebm_digits.yaml", "configs/denoising_ebm_gaussians25.yaml"
# A second evaluation, of as many samples as the chains have time for: a table takes the last of a name.
OF_2000 = {
    "trainer.callbacks+": "Evaluate",
    "trainer.callbacks.n_test": 2000,
    "trainer.callbacks.only": "[generation]",
}
NO_GUARD = {"trainer.callbacks.Guard": "null"}
# The denoiser's residual, annealed.
RESIDUAL = {
    "model.kernel": "residual",
    "model.texture_refine.temperature": 0.09,
    "model.texture_refine.sigma": 0.6,
    "model.texture_refine.sigma_end": 0.03,
}


def again(config: str, name: str, what: str, options: dict[str, object]) -> Experiment:
    """Another test of the weights of a run."""
    return Experiment(f"{name}, {what}", config, test=options, of=name)


GROUPS: dict[str, list[Experiment]] = {
    "digits": [
        Experiment("vae_digits", "configs/vae_digits.yaml"),
        again("configs/vae_digits.yaml", "vae_digits", "2,000 samples", OF_2000),
        Experiment("denoising_ebm_digits", DIGITS),
        again(DIGITS, "denoising_ebm_digits", "first stage alone", {"model.texture_refine.steps": 0}),
        again(DIGITS, "denoising_ebm_digits", "residual", RESIDUAL),
        Experiment("denoising_ebm_digits without contrast", DIGITS, {"model.contrast_weight": 0.0}),
    ],
    # Table 3: the paper's FID is 50.0 with sigma_max = 1 and 66.6 with 3.
    "sigma": [
        Experiment("denoising_ebm_digits", DIGITS),
        Experiment("denoising_ebm_digits sigma_max 3", DIGITS, {"model.sigma_max": 3.0}),
    ],
    "gaussians25": [
        Experiment("denoising_ebm_gaussians25", GAUSSIANS, NO_GUARD),
        again(GAUSSIANS, "denoising_ebm_gaussians25", "residual", RESIDUAL),
        Experiment("denoising_ebm_gaussians25 without contrast", GAUSSIANS, {"model.contrast_weight": 0.0, **NO_GUARD}),
    ],
}

if __name__ == "__main__":
    bench(__doc__, GROUPS, {"": IMAGES, "gaussians25": POINTS})
