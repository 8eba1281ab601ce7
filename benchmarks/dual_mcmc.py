"""The figures of docs/results.md for Dual-MCMC on digits: trained, tested with and without its chains, printed.

    python benchmarks/dual_mcmc.py [group ...]

Finished runs in runs/bench are not repeated; two run at a time with one thread each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ebmzoo.report.runs import RESULTS, Experiment, run
from ebmzoo.report.tables import markdown

ROOT = Path("runs/bench")
DIGITS = ["fid", "recall", "precision", "sure_share", "class_share_min", "mse_per_pixel"]
CONFIG = "configs/dual_mcmc_digits.yaml"
# The generator's samples and the inference network's reconstructions: what both chains begin with.
NO_CHAINS = {"model.refine": "Langevin", "model.refine.steps": 0, "model.latent_sampler.steps": 0}

GROUPS: dict[str, list[Experiment]] = {
    "digits": [
        Experiment("vae_digits", "configs/vae_digits.yaml"),
        Experiment("dual_mcmc_digits", CONFIG),
    ],
    # Table 4: the z chain from noise.
    "z chain": [
        Experiment("dual_mcmc_digits", CONFIG),
        Experiment("dual_mcmc_digits from noise", CONFIG, {"model.z_init": "noise"}),
    ],
    # Table 5: the length of the x chain.
    "x chain": [
        Experiment(f"dual_mcmc_digits {steps} x steps", CONFIG, {"model.sampler.steps": steps})
        for steps in (10, 20, 30)
    ],
}


def without_chains(done: list[tuple[Experiment, int, Path]]) -> list[tuple[Experiment, int, Path]]:
    """Test the same checkpoints again, without their chains, into a folder beside the run's results."""
    tested = []
    for experiment, seed, results in done:
        if "dual_mcmc" not in experiment.name:
            continue
        folder = results.parent / "without_chains"
        if not (folder / RESULTS).is_file():
            again = Experiment(experiment.name, experiment.config, test={**NO_CHAINS, "run_dir": folder})
            words = again.test_command(results.parent)[1:]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            subprocess.run([sys.executable, "-m", "ebmzoo.cli.main", *words], env=environment, check=True)
        name = f"{experiment.name}, without chains"
        tested.append((Experiment(name, experiment.config), seed, folder / RESULTS))
    return tested


def main() -> None:
    """Run the groups asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help=f"some of {', '.join(GROUPS)}; all by default")
    options = parser.parse_args()
    for group in options.groups or GROUPS:
        done = run(GROUPS[group], ROOT)
        print(f"\n{group}\n\n{markdown([*done, *without_chains(done)], DIGITS)}\n", flush=True)


if __name__ == "__main__":
    main()
