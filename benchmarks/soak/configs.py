"""Mutated configs: each runs, or ends in one line."""

from __future__ import annotations

import copy
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ebmzoo.cli.main import main as ebmzoo

from .forks import in_fork, small_configs

GIB = 2**30
ODD: list[Any] = [None, "", "abc", "é☃", "../x", "os.system", -1, 0, 1, 3, 1.5, -0.5, 1e30, 1e-30, float("nan")]
ODD += [float("inf"), True, False, [], {}, [1, 2], {"a": 1}, "1", [[]], "https://example.org/x"]
HUGE = {"width", "latent_dim", "batch_size", "buffer", "memory"}
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
