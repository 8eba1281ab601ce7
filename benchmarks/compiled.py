"""What torch.compile costs and saves on the recorded program of a config's training chain.

    TORCHINDUCTOR_CACHE_DIR=EMPTY_FOLDER python benchmarks/compiled.py ecvae_digits denoising_ebm_digits

Seconds of the first two chains (of the clock), then CPU time of a chain in interleaved rounds, one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from ebmzoo.cli.speed import made

BACKENDS = ("trace", "compile")


def seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """What a run takes by a clock."""
    began = clock()
    run()
    return clock() - began


def line(name: str, rounds: int = 9) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    model, batch = made(name)
    x = torch.randn(batch, *model.image_shape)
    potential = model.eval().potential(x, model.sampler)
    samplers = [replace(model.sampler, backend=backend) for backend in BACKENDS]
    first = [sum(seconds(lambda s=s: s(potential, x, noise=0), time.perf_counter) for _ in range(2)) for s in samplers]
    ends = [s(potential, x, noise=0).x for s in samplers]
    took: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            took[which].append(seconds(lambda s=samplers[which]: s(potential, x, noise=0), time.process_time))
    each = [median(one) for one in took]
    ratio = median(a / b for a, b in zip(*took, strict=True))
    return (
        f"| {name}, batch {batch}, {model.sampler.steps} steps | {first[0]:.2f}, {first[1]:.1f} | "
        f"{1e3 * each[0]:.3g}, {1e3 * each[1]:.3g} | {ratio:.2f} | {1e4 * (each[0] - each[1]):.0f} | "
        f"{float((ends[0] - ends[1]).abs().max()):.0e} |"
    )


def main(configs: Sequence[str]) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| config, chain | first chains, s | a chain, ms | ratio | saved in 10,000 chains, s | ends differ by |")
    print("|---|---|---|---|---|---|")
    for name in configs:
        print(line(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["ecvae_digits", "ecvae_glyphs", "denoising_ebm_digits"])
