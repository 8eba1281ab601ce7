"""Seeds made of several numbers share no stream."""

from itertools import product

import numpy as np
import pytest

from ebmzoo.seeds import FLIPS, ORDER, PROCESS, ROLLBACK, mixed


def test_no_two_small_numbers_share_a_seed():
    purposes = (ORDER, FLIPS, PROCESS, ROLLBACK)
    seeds = {mixed(*numbers) for numbers in product(range(8), range(8), purposes)}
    assert len(seeds) == 8 * 8 * len(set(purposes)) == 256
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_a_seed_is_numpys_mix_of_its_numbers_for_good():
    generator = np.random.SeedSequence((3, 5, FLIPS))
    assert mixed(3, 5, FLIPS) == int(generator.generate_state(1, np.uint64)[0]) == mixed(3, 5, 1)
    with pytest.raises(ValueError, match="non-negative"):
        mixed(-1, 0, ORDER)
