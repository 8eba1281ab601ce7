"""What a resumed training finds as it was: random states, and epochs that were broken off."""

import random

import pytest
import torch

from ebmzoo.methods.resuming import _mend_epochs, _random_state, _restore_random_state, gathered


def test_random_numbers_go_on_where_they_were():
    torch.manual_seed(3)
    random.seed(4)
    torch.rand(5), random.gauss(0, 1)  # which keeps the second of a pair for the next call
    state = _random_state()
    expected = torch.rand(3), random.gauss(0, 1), random.random()
    torch.manual_seed(0)
    random.seed(0)
    _restore_random_state(state)
    assert torch.equal(torch.rand(3), expected[0]) and (random.gauss(0, 1), random.random()) == expected[1:]


def test_a_random_state_is_tensors_and_plain_data(tmp_path):
    torch.save(gathered(_random_state()), tmp_path / "rng")
    (again,) = torch.load(tmp_path / "rng", weights_only=True)  # of the one process that there is
    torch.manual_seed(1)
    _restore_random_state(again)
    assert torch.equal(again["torch"], torch.get_rng_state())


@pytest.mark.parametrize(
    ("batches", "last", "completed"),
    [(3, False, 1), (3, True, 2), (0, False, 2)],  # within an epoch; at its end; before a batch of the next
)
def test_an_epoch_that_was_broken_off_is_not_counted(batches, last, completed):
    loop = {
        "epoch_progress": {"current": {"ready": 2, "processed": 2, "completed": 2}},
        "epoch_loop.batch_progress": {"current": {"ready": batches}, "is_last_batch": last},
    }
    _mend_epochs(loop)
    found = loop["epoch_progress"]["current"]
    assert found == {"ready": 2, "processed": completed, "completed": completed}


def test_an_epoch_that_still_runs_is_left_alone():
    loop = {
        "epoch_progress": {"current": {"ready": 2, "processed": 1, "completed": 1}},
        "epoch_loop.batch_progress": {"current": {"ready": 3}, "is_last_batch": False},
    }
    _mend_epochs(loop)
    assert loop["epoch_progress"]["current"] == {"ready": 2, "processed": 1, "completed": 1}
