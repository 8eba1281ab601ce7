"""Seeds made of several numbers: what is drawn for one purpose has nothing in common with what is drawn for another."""

from __future__ import annotations

import numpy as np

#: what a seed is for
ORDER, FLIPS, PROCESS, ROLLBACK = range(4)


def mixed(seed: int, number: int, purpose: int) -> int:
    """Mix a run's seed with a number, so that no two pairs of small numbers share a stream, as their sums would.

    Args:
        seed: of the run, at least 0.
        number: of the epoch, process or attempt, at least 0.
        purpose: `ORDER`, `FLIPS`, `PROCESS` or `ROLLBACK`.

    Returns:
        An unsigned 64-bit number.

    Example:
        >>> mixed(0, 1, PROCESS) == mixed(1, 0, PROCESS)
        False
    """
    return int(np.random.SeedSequence((seed, number, purpose)).generate_state(1, np.uint64)[0])
