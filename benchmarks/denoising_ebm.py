"""The figures of docs/results.md for Denoising-EBM: trained, tested and printed as tables.

    python benchmarks/denoising_ebm.py [group ...]

A trained run is tested once as its config says and once more for each other sampler of the group, from the same
weights. Finished runs in runs/bench are not repeated; two run at a time with one thread each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ebmzoo.report.runs import RESULTS, Experiment, run
from ebmzoo.report.tables import markdown

ROOT = Path("runs/bench")
IMAGES = ["fid", "recall", "precision", "sure_share", "class_share_min", "mse_per_pixel"]
POINTS = ["modes_covered", "mode_high_quality_share", "mode_least_share", "mode_kl", "log_density_mean"]
DIGITS, GAUSSIANS = "configs/denoising_ebm_digits.yaml", "configs/denoising_ebm_gaussians25.yaml"
# A second evaluation, of as many samples as the chains have time for: a table takes the last of a name.
OF_2000 = {"trainer.callbacks+": "Evaluate", "trainer.callbacks.n_test": 2000}
# The denoiser's residual, annealed.
RESIDUAL = {
    "model.kernel": "residual",
    "model.texture_refine.temperature": 0.09,
    "model.texture_refine.sigma": 0.6,
    "model.texture_refine.sigma_end": 0.03,
}

GROUPS: dict[str, list[Experiment]] = {
    "digits": [
        Experiment("vae_digits, 2,000 samples", "configs/vae_digits.yaml", test=OF_2000),
        Experiment("denoising_ebm_digits", DIGITS),
        Experiment("denoising_ebm_digits without contrast", DIGITS, {"model.contrast_weight": 0.0}),
    ],
    # Table 3: the paper's FID is 50.0 with sigma_max = 1 and 66.6 with 3.
    "sigma": [
        Experiment("denoising_ebm_digits", DIGITS),
        Experiment("denoising_ebm_digits sigma_max 3", DIGITS, {"model.sigma_max": 3.0}),
    ],
    "gaussians25": [
        Experiment("denoising_ebm_gaussians25", GAUSSIANS),
        # The same run up to its first contrast.
        Experiment("denoising_ebm_gaussians25 before", GAUSSIANS, {"trainer.max_steps": 4000}),
    ],
}
# What else the weights of a group's runs are tested with.
AGAIN: dict[str, dict[str, dict[str, object]]] = {
    "digits": {"first stage alone": {"model.texture_refine.steps": 0}, "residual": RESIDUAL},
    "sigma": {},
    "gaussians25": {"residual": RESIDUAL},
}


def test_again(
    done: list[tuple[Experiment, int, Path]], name: str, options: dict[str, object]
) -> list[tuple[Experiment, int, Path]]:
    """Test Denoising-EBM's runs with other options, each in a folder of its own."""
    found = []
    for experiment, seed, results in done:
        if not experiment.name.startswith("denoising_ebm"):
            continue
        other = replace(experiment, name=f"{experiment.name}, {name}")
        folder = ROOT / other.name / f"seed_{seed}"
        if not (folder / RESULTS).is_file():
            words = other.test_command(results.parent)
            words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
            command = [sys.executable, "-m", "ebmzoo.cli.main", *words[1:], "--run_dir", str(folder)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        found.append((other, seed, folder / RESULTS))
    return found


def main() -> None:
    """Run the groups asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help=f"some of {', '.join(GROUPS)}; all by default")
    options = parser.parse_args()
    for group in options.groups or GROUPS:
        trained = run(GROUPS[group], ROOT)
        done = [*trained, *(one for name in AGAIN[group] for one in test_again(trained, name, AGAIN[group][name]))]
        print(f"\n{group}\n\n{markdown(done, POINTS if group == 'gaussians25' else IMAGES)}\n", flush=True)


if __name__ == "__main__":
    main()
