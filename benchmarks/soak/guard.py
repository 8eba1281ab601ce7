"""The guard: it names each fault that is put into a run, and leaves healthy runs alone."""

from __future__ import annotations

import copy
import csv
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ebmzoo.cli.main import main as ebmzoo

from .forks import CONFIGS, SHORT, in_fork, small_configs


def alarms(folder: Path) -> list[dict[str, Any]]:
    """What the guard noted in a run."""
    path = folder / "results.json"
    return json.loads(path.read_text())["run"].get("guard", []) if path.exists() else []


def healthy(n: int, seed: int) -> int:
    """Every digits and 2-D config with chains, n iterations under its guard: not one alarm."""
    found = 0
    for config in small_configs():
        if "class_path: Guard" not in config.read_text():
            continue
        stage_two = [f"--model.vae_steps={n // 4}"] if "vae_steps: " in config.read_text() else []
        with tempfile.TemporaryDirectory() as folder:
            words = ["fit", f"--config={config}", f"--run_dir={folder}/run", f"--trainer.max_steps={n}", *SHORT]
            words += ["--trainer.log_every_n_steps=10", f"--seed_everything={seed + 10}", *stage_two]
            ended = in_fork(lambda words=words: ebmzoo(words), seconds=3600)  # type: ignore[misc]
            seen = alarms(Path(folder) / "run")
            extremes = largest(Path(folder) / "run" / "metrics.csv") if ended.code == 0 else ended.text[-1500:]
        found += len(seen) + (ended.code != 0)
        print(
            f"healthy: {config.stem}: {n} iterations, {ended.seconds:.0f} s: {seen or 'no alarm'}; {extremes}",
            flush=True,
        )
    return found


def largest(path: Path) -> str:
    """The extremes of what the guard looks at, in words."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = []
    for short in ("energy_data", "energy_gap", "grad_norm_energy", "saturation"):
        values = [abs(float(row[name])) for row in rows for name in row if name.endswith(short) and row[name]]
        words.append(f"{short} <= {max(values):.3g}")
    moved = [float(row["mcmc/movement"]) for row in rows if row.get("mcmc/movement")]
    return ", ".join([*words, f"movement >= {min(moved, default=math.nan):.3g}"])


FAULTS: dict[str, str | None] = {
    "nothing": None,
    "a NaN in a batch": "tests.faults.BadBatch",
    "energies times 10,000": "tests.faults.LoudEnergy",
    "a frozen chain": "tests.faults.FrozenChain",
    "learning rate times 100": None,
}


def faults(n: int, seed: int) -> int:
    """Each fault in n iterations of EC-VAE on digits: named within 200 iterations, rolled back, and how it ended."""
    config = yaml.safe_load((CONFIGS / "ecvae_digits.yaml").read_text())
    for one in config["trainer"]["callbacks"]:
        if one["class_path"] == "Guard":
            one["init_args"].update(rollbacks=2, checkpoint_every=100)
    middle, missed, undisturbed = n // 2 + 1, 0, math.nan
    for name, fault in FAULTS.items():
        start = middle if fault else 0
        with tempfile.TemporaryDirectory() as folder:
            changed = copy.deepcopy(config)
            if fault:
                changed["trainer"]["callbacks"].insert(0, {"class_path": fault, "init_args": {"step": middle}})
            (Path(folder) / "run.yaml").write_text(yaml.safe_dump(changed))
            fit = [
                "fit",
                f"--config={folder}/run.yaml",
                f"--run_dir={folder}/run",
                f"--trainer.max_steps={n}",
                *SHORT[1:],
            ]
            fit += [f"--trainer.val_check_interval={n}", f"--seed_everything={seed + 10}"]
            fit += [f"--model.{player}_schedule.T_max={n}" for player in ("vae", "energy")]
            fit += ["--model.energy_optimizer.lr=0.15"] if name.startswith("learning") else []
            ended = in_fork(lambda fit=fit: ebmzoo(fit), seconds=3600)  # type: ignore[misc]
            seen, distance = alarms(Path(folder) / "run"), final_distance(Path(folder) / "run" / "metrics.csv")
        undisturbed = distance if name == "nothing" else undisturbed
        late = seen[0]["step"] - start if seen else None
        good = (not seen and ended.code == 0) if name == "nothing" else late is not None and 0 <= late <= 200
        missed += not good
        print(
            f"faults: {name}: exit {ended.code}, {ended.seconds:.0f} s, "
            f"{f'named after {late} iterations: ' + seen[0]['reason'] if seen else 'no alarm'}; "
            f"{', '.join(entry['action'] for entry in seen) or 'nothing done'}; FD {distance:.2f} "
            f"(undisturbed {undisturbed:.2f}){'' if good else ' FAILED ' + ended.text[-800:]}",
            flush=True,
        )
    return missed


def final_distance(path: Path) -> float:
    """The last streaming Fréchet distance of a run."""
    if not path.exists():
        return math.nan
    with path.open(newline="") as file:
        values = [row["val/fid_2k"] for row in csv.DictReader(file) if row.get("val/fid_2k")]
    return float(values[-1]) if values else math.nan
