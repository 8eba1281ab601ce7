"""What a training has to endure, in its long form: ``make soak``, or one part of it.

    python benchmarks/soak.py fuzz --n 500     mutated configs: each runs, or ends in one line
    python benchmarks/soak.py kill --n 50      kill -9 at random moments: a whole checkpoint is there each time
    python benchmarks/soak.py flips --n 1000   flipped bytes in a checkpoint: identical tensors, or one line
    python benchmarks/soak.py faults           faults put into real runs: the guard names each
    python benchmarks/soak.py healthy          every digits and 2-D config under the guard: no alarm

Every part prints what it did and exits with 1 if anything did not hold. Commands run in forks of this process, which
has everything imported: on one core a command costs a second, not ten.
"""

from __future__ import annotations

import argparse
import copy
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

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
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
    work: Callable[[], int], seconds: float, memory: int | None = None, kill_after: float | None = None
) -> Ended:
    """Run ``work`` in a fork of this process, in a session of its own.

    Args:
        work: returns the exit code.
        seconds: after which it is killed and the code is -SIGALRM.
        memory: most bytes of its own.
        kill_after: seconds until kill -9.
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
        limit, name = (seconds, -signal.SIGALRM) if kill_after is None else (kill_after, None)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() - began > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                code = name if name is not None else -signal.SIGKILL
                break
            time.sleep(0.005)
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


# -- the command --------------------------------------------------------------------------------------------------

PARTS: dict[str, tuple[Callable[[int, int], int], int]] = {"fuzz": (fuzz, 500)}


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
