"""The figures of EC-VAE's extensions on digits: trained, tested and printed as tables.

    python benchmarks/extensions.py [group ...]

Finished runs in runs/bench are not repeated. Two runs at a time, with one thread each.
"""

from __future__ import annotations

from bench import bench

from ebmzoo.report.runs import Experiment

VAE_ALONE = {"model.calibration.weight": 0.0, "model.calibration.rate": 0.0}
# The training chain of ecflow_digits, at test.
CHAIN = {
    "model.refine": "Langevin",
    "model.refine.steps": 15,
    "model.refine.step_size": 2.0,
    "model.refine.temperature": 5e-5,
    "model.refine.grad_clamp": 0.1,
    "model.refine.bounds": "[-1.2,1.2]",
}

GROUPS: dict[str, list[Experiment]] = {
    # Table 7: the same decoder standard deviation in all four.
    "posterior": [
        Experiment("ecvae_digits lambda 0", "configs/ecvae_digits.yaml", VAE_ALONE),
        Experiment("ecvae_posterior_digits lambda 0", "configs/ecvae_posterior_digits.yaml", VAE_ALONE),
        Experiment("ecvae_digits", "configs/ecvae_digits.yaml"),
        Experiment("ecvae_posterior_digits", "configs/ecvae_posterior_digits.yaml"),
    ],
    # Table 1: the flow alone, calibrated, and calibrated with the chain at test.
    "flow": [
        Experiment("flow_digits", "configs/flow_digits.yaml"),
        Experiment("ecflow_digits", "configs/ecflow_digits.yaml"),
        Experiment("ecflow_digits with the chain", "configs/ecflow_digits.yaml", test=CHAIN, of="ecflow_digits"),
    ],
    # Table 10, and what the flow prior does by itself.
    "prior and distance": [
        Experiment("ecvae_prior_digits lambda 0", "configs/ecvae_prior_digits.yaml", VAE_ALONE),
        Experiment("ecvae_prior_digits", "configs/ecvae_prior_digits.yaml"),
        Experiment("ecvae_perceptual_digits", "configs/ecvae_perceptual_digits.yaml"),
    ],
}
METRICS = {
    "posterior": ["elbo_nats", "mse_per_pixel", "fid", "fit_cpu_s"],
    "flow": ["fid", "recall", "precision", "fit_cpu_s"],
    "prior and distance": ["fid", "recall", "elbo_nats", "mse_per_pixel", "fit_cpu_s"],
}

if __name__ == "__main__":
    bench(__doc__, GROUPS, METRICS)
