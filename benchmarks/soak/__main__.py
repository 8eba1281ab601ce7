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
import sys
from collections.abc import Callable

import torch

from . import faults, flips, fuzz, healthy, kill

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
