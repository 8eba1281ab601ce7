"""What a training has to endure, in its long form: ``make soak``, or one part of it.

    python -m benchmarks.soak fuzz --n 500     mutated configs: each runs, or ends in one line
    python -m benchmarks.soak kill --n 50      kill -9 at random moments: a whole checkpoint is there each time
    python -m benchmarks.soak flips --n 1000   flipped bytes in a checkpoint: identical tensors, or one line
    python -m benchmarks.soak faults           faults put into runs of EC-VAE on digits: the guard names each
    python -m benchmarks.soak healthy          every digits and 2-D config with chains under its guard: no alarm

Every part prints what it did and exits with 1 if anything did not hold. Commands run in forks of this process, which
has everything imported: on one core a command costs a second, not ten.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

import ebmzoo.cli.lightning_cli  # noqa: F401 - imported before the forks
from ebmzoo.checkpoints import newest_good, read
from ebmzoo.cli.main import main as ebmzoo

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))
OFFLINE = {"Digits", "Gaussians25", "StackedDigits", "Glyphs", "Toy2D"}
GIB = 2**30


def small_configs() -> list[Path]:
    """The configs whose data need no download."""
    return [path for path in CONFIGS if yaml.safe_load(path.read_text())["data"]["class_path"] in OFFLINE]


class Ended(NamedTuple):
    """How a command ended: its exit code (minus the signal that killed it), what it printed, how long it took."""

    code: int
    text: str
    seconds: float


def in_fork(
    work: Callable[[], int],
    seconds: float,
    memory: int | None = None,
    kill_when: Callable[[], bool] | None = None,
    kill_after: float = 0.0,
) -> Ended:
    """Run ``work`` in a fork of this process, in a session of its own.

    Args:
        work: returns the exit code.
        seconds: after which it is killed and the code is -SIGALRM.
        memory: most bytes of its own.
        kill_when: from when on the seconds of ``kill_after`` are counted, at whose end comes kill -9.
        kill_after: see there.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if memory:
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
            try:
                code = work()
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        ready = None
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            now = time.monotonic()
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            if ready is None and kill_when is not None and kill_when():
                ready = now
            late = now - began > seconds
            if late or (ready is not None and now - ready > kill_after):
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                code = -signal.SIGALRM if late else -signal.SIGKILL
                break
            time.sleep(0.002)
        output.seek(0)
        return Ended(code, output.read(), time.monotonic() - began)


# -- fuzzed configs -----------------------------------------------------------------------------------------------

ODD: list[Any] = [None, "", "abc", "é☃", "../x", "os.system", -1, 0, 1, 3, 1.5, -0.5, 1e30, 1e-30, float("nan")]
ODD += [float("inf"), True, False, [], {}, [1, 2], {"a": 1}, "1", [[]], "https://example.org/x"]
HUGE = {"width", "latent_dim", "batch_size", "buffer", "pair_memory"}
# Other values of these start processes or wait for hours, as asked: that is no fault.
ONLY_WORDS = {"devices", "num_nodes", "strategy", "num_workers", "steps", "depth", "accelerator"}


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values of plain data."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(node: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        node = node[key]
    return node


def mutated(config: dict[str, Any], rng: random.Random, classes: list[str]) -> tuple[dict[str, Any], str]:
    """A copy of a config with one thing wrong, or odd, and words that say what."""
    config = copy.deepcopy(config)
    path = rng.choice(list(places(config)))
    parent, key = at(config, path[:-1]), path[-1]
    where = ".".join(map(str, path))
    kind = rng.choice(["delete", "replace", "replace", "replace", "rename", "class", "copy", "scale"])
    if kind == "delete":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        letters = list(str(key))
        letters.insert(rng.randrange(len(letters) + 1), rng.choice("abcxyz_1"))
        parent["".join(letters)] = parent.pop(key)
    elif kind == "class" and key == "class_path":
        parent[key] = rng.choice(classes)
    elif kind == "copy":
        parent[key] = copy.deepcopy(at(config, rng.choice([p for p in places(config) if p != path])))
    elif kind == "scale" and isinstance(parent[key], int | float) and key not in ONLY_WORDS:
        parent[key] = rng.choice([10**6, 10**9] if key in HUGE else [-parent[key], parent[key] * 1e3, 7])
    else:
        odd = [value for value in ODD if isinstance(value, str)] if key in ONLY_WORDS else ODD
        parent[key] = rng.choice(odd)
    new = parent.get(key, "gone") if isinstance(parent, dict) else parent
    return config, f"{kind} {where}: {str(new)[:80]}"


def fuzz(n: int, seed: int) -> int:
    """Mutated configs, two steps each, 60 s and 4 GiB: each runs or ends with exit 2 and one line."""
    rng = random.Random(seed)
    bases = {path.stem: yaml.safe_load(path.read_text()) for path in small_configs()}
    classes = sorted({value for base in bases.values() for p in places(base) if p[-1] == "class_path"
                      for value in [at(base, p)]})  # fmt: skip
    ran, refused, bad = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(n):
            name = rng.choice(sorted(bases))
            config, words = mutated(bases[name], rng, classes)
            file = Path(folder) / f"{number}.yaml"
            file.write_text(yaml.safe_dump(config, allow_unicode=True))

            def work(file: Path = file) -> int:
                os.chdir(folder)
                short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu"]
                return ebmzoo(["fit", f"--config={file}", f"--run_dir=run{file.stem}", *short])

            ended = in_fork(work, seconds=60, memory=4 * GIB)
            last = ended.text.strip().splitlines()[-1:] or [""]
            if ended.code == 0:
                ran += 1
            elif ended.code == 2 and "Traceback" not in ended.text and last[0].startswith("ebmzoo: error: "):
                refused += 1
                if os.environ.get("SOAK_VERBOSE"):
                    print(f"{words}: {last[0]}", flush=True)
            else:
                bad.append(f"{number} {name}: {words}: exit {ended.code}, {ended.seconds:.0f} s: {last[0][:200]}")
                print(f"FAILED {bad[-1]}", flush=True)
                if os.environ.get("SOAK_VERBOSE"):
                    print(ended.text[-3000:], flush=True)
            shutil.rmtree(Path(folder) / f"run{number}", ignore_errors=True)
    print(f"fuzz: {n} configs (seed {seed}): {ran} ran, {refused} refused in one line, {len(bad)} failed")
    return len(bad)


# -- kill -9 ------------------------------------------------------------------------------------------------------

EVERY = 4  # iterations between checkpoints
SHORT = ["--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
OFTEN = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.every_n_train_steps={EVERY}"]
OFTEN += ["--trainer.callbacks.save_top_k=0", "--trainer.callbacks.save_last=true"]


def kill(n: int, seed: int) -> int:
    """kill -9 at random moments: each time the next start finds a whole checkpoint, not older than one interval."""
    rng = random.Random(seed)
    failed = steps_before = 0
    with tempfile.TemporaryDirectory() as folder:
        # Every batch end leaves a mark, so that it is known how far a killed run had come.
        config, reached = CONFIGS[0].with_name("ecvae_digits.yaml"), Path(folder) / "reached"
        words = ["fit", f"--config={config}", f"--run_dir={folder}/run", "--resume=auto", *SHORT, *OFTEN]
        words += ["--trainer.max_steps=1000000", "--trainer.callbacks+=tests.faults.Mark"]
        words += [f"--trainer.callbacks.path={reached}"]
        while_training = 0
        for number in range(n):
            reached.write_text("0")
            # Most while it trains and writes checkpoints, some before.
            begun = (lambda: True) if number % 10 == 9 else lambda: reached.read_text() not in ("", "0")
            ended = in_fork(lambda: ebmzoo(words), seconds=300, kill_when=begun, kill_after=3 * rng.random())
            last = int(reached.read_text() or 0)
            newest, passed_over = newest_good(Path(folder) / "run" / "checkpoints")
            steps = read(newest)["global_step"] if newest else 0
            while_training += last > 0
            good = ended.code == -signal.SIGKILL and steps >= steps_before and last - steps <= EVERY and not passed_over
            if not good:
                failed += 1
                print(f"FAILED {number}: exit {ended.code}, checkpoint of {steps}, reached {last}, {passed_over}")
                print(ended.text[-1500:])
            steps_before = steps
        leftover = len(list((Path(folder) / "run" / "checkpoints").glob(".*.part")))
        whole = ended_whole(words, steps_before + 3)
    print(
        f"kill: {n} kills (seed {seed}), {while_training} while it trained, up to iteration {steps_before}: "
        f"{n - failed} resumed from a whole checkpoint, none older than {EVERY} iterations; {leftover} half-written "
        f"files left aside; the last resume {'ended well' if whole else 'FAILED'}"
    )
    return failed + (not whole)


def ended_whole(words: list[str], steps: int) -> bool:
    """Whether the run can be brought to an end."""
    return in_fork(lambda: ebmzoo([*words, f"--trainer.max_steps={steps}"]), seconds=120).code == 0


# -- flipped bytes ------------------------------------------------------------------------------------------------


def flips(n: int, seed: int) -> int:
    """Random bytes of a checkpoint changed: it loads identical tensors, or ends in one line that names the file."""
    rng = random.Random(seed)
    identical = refused = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        config = CONFIGS[0].with_name("ecvae_digits.yaml")
        fit = ["fit", f"--config={config}", f"--run_dir={folder}/run", "--trainer.max_steps=2", *SHORT]
        assert in_fork(lambda: ebmzoo(fit), seconds=120).code == 0
        path = Path(folder) / "run" / "checkpoints" / "last.ckpt"
        whole, good = path.read_bytes(), read(path)
        for number in range(n):
            # Half of them where the structure is: the directory at the end, and the pickle at the beginning.
            place = rng.randrange(len(whole)) if number % 2 else rng.choice([*range(40000), *range(-12000, 0)])
            data = bytearray(whole)
            data[place] ^= rng.randrange(1, 256)
            bad = path.with_name("bad.ckpt")
            bad.write_bytes(data)
            try:
                content = read(bad)
            except ValueError as error:
                refused += 1
                failed += str(bad) not in str(error) or len(str(error).splitlines()) != 1
                continue
            same = all(torch.equal(content["state_dict"][name], value) for name, value in good["state_dict"].items())
            identical += same
            failed += not same
    print(f"flips: {n} bytes (seed {seed}): {refused} refused in one line, {identical} identical, {failed} failed")
    return failed


# -- the guard ----------------------------------------------------------------------------------------------------


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
    moved = [float(row["mcmc/displacement"]) for row in rows if row.get("mcmc/displacement")]
    return ", ".join([*words, f"displacement >= {min(moved):.3g}"])


FAULTS: dict[str, str | None] = {
    "nothing": None,
    "a NaN in a batch": "tests.faults.BadBatch",
    "energies times 10,000": "tests.faults.LoudEnergy",
    "a frozen chain": "tests.faults.FrozenChain",
    "learning rate times 100": None,
}


def faults(n: int, seed: int) -> int:
    """Each fault in n iterations of EC-VAE on digits: named within 200 iterations, rolled back, and how it ended."""
    config = yaml.safe_load(CONFIGS[0].with_name("ecvae_digits.yaml").read_text())
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


# -- the command --------------------------------------------------------------------------------------------------

PARTS: dict[str, tuple[Callable[[int, int], int], int]] = {
    "flips": (flips, 1000),
    "kill": (kill, 50),
    "faults": (faults, 1200),
    "healthy": (healthy, 2000),
    "fuzz": (fuzz, 500),
}


def main() -> int:
    """Run one part, or all."""
    parser = argparse.ArgumentParser(description="What a training has to endure, in its long form.")
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--n", type=int, help="how many; each part has its own number")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for name in [options.part] if options.part else PARTS:
        part, usual = PARTS[name]
        failed += part(options.n or usual, options.seed)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
