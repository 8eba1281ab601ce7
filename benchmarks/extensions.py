"""The figures of EC-VAE's extensions on digits: trained, tested and printed as tables.

    python benchmarks/extensions.py [group ...] [--seeds 0 1 2]

Finished runs in runs/bench are not repeated. Two runs at a time, with one thread each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ebmzoo.report.runs import RESULTS, Experiment, run
from ebmzoo.report.tables import markdown

ROOT = Path("runs/bench")
VAE_ALONE = {"model.calibration_weight": 0.0, "model.dual_rate": 0.0}
# The training chain of ecflow_digits, at test.
CHAIN = {
    "model.refine": "Langevin",
    "model.refine.steps": 15,
    "model.refine.step_size": 2.0,
    "model.refine.temperature": 5e-5,
    "model.refine.grad_clamp": 0.1,
    "model.refine.bounds": "[-1.2,1.2]",
}

GROUPS: dict[str, tuple[list[str], list[Experiment]]] = {
    # Table 7: the same decoder standard deviation in all four.
    "posterior": (
        ["elbo_nats", "mse_per_pixel", "fid"],
        [
            Experiment("vae_alone_digits", "configs/ecvae_digits.yaml", VAE_ALONE),
            Experiment("vae_alone_posterior_digits", "configs/ecvae_posterior_digits.yaml", VAE_ALONE),
            Experiment("ecvae_digits", "configs/ecvae_digits.yaml"),
            Experiment("ecvae_posterior_digits", "configs/ecvae_posterior_digits.yaml"),
        ],
    ),
    # Table 1: the flow alone, calibrated, and (below) calibrated with the chain at test.
    "flow": (
        ["fid", "recall", "precision"],
        [
            Experiment("flow_digits", "configs/flow_digits.yaml"),
            Experiment("ecflow_digits", "configs/ecflow_digits.yaml"),
        ],
    ),
    # Table 10.
    "prior and distance": (
        ["fid", "recall", "elbo_nats", "mse_per_pixel"],
        [
            Experiment("ecvae_prior_digits", "configs/ecvae_prior_digits.yaml"),
            Experiment("ecvae_perceptual_digits", "configs/ecvae_perceptual_digits.yaml"),
        ],
    ),
}


def with_chain(done: list[tuple[Experiment, int, Path]]) -> list[tuple[Experiment, int, Path]]:
    """The trained EC-Flows again, tested with the chain, into a folder of their own."""
    again = []
    for experiment, seed, results in done:
        if experiment.name != "ecflow_digits":
            continue
        chained = replace(experiment, name="ecflow_digits with the chain", test=CHAIN)
        folder = ROOT / chained.name / f"seed_{seed}"
        if not (folder / RESULTS).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            words = [*chained.test_command(results.parent)[1:], "--run_dir", str(folder)]
            subprocess.run([sys.executable, "-m", "ebmzoo.cli.main", *words], check=True)
        again.append((chained, seed, folder / RESULTS))
    return again


def main() -> None:
    """Run the groups asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help=f"some of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    for group in options.groups or GROUPS:
        names, experiments = GROUPS[group]
        done = run([replace(one, seeds=options.seeds) for one in experiments], ROOT)
        print(f"\n{group}\n\n{markdown(done + with_chain(done), names)}\n", flush=True)


if __name__ == "__main__":
    main()
