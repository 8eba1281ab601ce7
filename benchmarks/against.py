"""Training iterations of this tree against those of another one: nothing may become slower unseen.

    python benchmarks/against.py OTHER_TREE ecvae_digits vaebm_digits ...

Two processes with one thread each, one a tree, take turns: a block of iterations of the config on noise in one, then
one in the other, in random order. A ratio is the median over rounds of other / this, in CPU time, with quartiles.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent


def child(tree: Path, name: str, period: int, blocks: int) -> None:
    """Train in a tree; before each block wait for a line, after it write its CPU seconds."""
    sys.path.insert(0, str(tree / "benchmarks"))
    import lightning as L
    import torch
    import yaml
    from iterations import train

    import ebmzoo

    assert Path(ebmzoo.__file__).is_relative_to(tree), f"{ebmzoo.__file__} is not of {tree}"
    torch.set_num_threads(1)

    class Turns(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx % period == 0:
                sys.stdin.readline()
                self.began = time.process_time()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if (rest[-1] + 1) % period == 0:
                print("took", time.process_time() - self.began, flush=True)

    config = yaml.safe_load((tree / "configs" / f"{name}.yaml").read_text())
    train(config, config["data"]["init_args"]["batch_size"], 0, period * blocks, Turns())


def began(tree: Path, words: Sequence[str], **pipes: Any) -> subprocess.Popen[str]:
    """A process whose package is a tree's."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *words], cwd=tree, env=environment, text=True, **pipes)


def block(process: subprocess.Popen[str]) -> float:
    """Let a process take its turn; CPU seconds."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("took"):
            return float(line.split()[1])
    raise RuntimeError("it ended before its turn was over")


def measure(trees: Sequence[Path], name: str, period: int, rounds: int) -> str:
    """One line of the table."""
    words = [str(Path(__file__).resolve()), "--child", name, "--period", str(period), "--rounds", str(rounds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes = [began(tree, [*words, str(tree)], **pipes) for tree in trees]
    took: list[list[float]] = []
    for _ in range(rounds + 1):
        turns = dict.fromkeys(random.sample(range(2), 2), 0.0)
        for which in turns:
            turns[which] = block(processes[which])
        took.append([turns[0], turns[1]])
    for process in processes:
        process.wait()
    other, this = zip(*took[1:], strict=True)  # the first warms up
    low, median, high = statistics.quantiles([a / b for a, b in zip(other, this, strict=True)], n=4, method="inclusive")
    ours = 1e3 * statistics.median(this) / period
    return f"| {name} | {ours:.3g} | {median:.3f} [{low:.3f}, {high:.3f}] |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the other one")
    parser.add_argument("configs", nargs="*", default=["ecvae_digits", "vaebm_digits", "dual_mcmc_digits"])
    parser.add_argument("--period", type=int, default=20, help="iterations of a block (20)")
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each tree (15)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.tree, options.child, options.period, options.rounds + 1)
        return
    print("| config | ms an iteration | other / this |\n|---|---|---|")
    for name in options.configs:
        print(measure([options.tree.resolve(), HERE], name, options.period, options.rounds), flush=True)


if __name__ == "__main__":
    main()
