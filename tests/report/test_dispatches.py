"""What an iteration dispatches: counted by hand, and without a value that the host asks for."""

from collections import Counter

import pytest
import torch
from torch import nn

from ebmzoo.report.dispatches import Dispatches, iteration, table

from ..methods.cases import METHODS, seeded


def test_operations_and_bytes_by_hand():
    x = torch.zeros(2, 3)
    with Dispatches() as counted:
        y = x.t().contiguous()  # a view, and a copy of 24 bytes
        y.to(torch.float64).add_(1)  # 24 bytes to 48
        float(y.sum())
        torch.tensor(3.0)
    found = counted.found
    assert (found.casts, found.copies, found.waits) == (72, 48, 2)
    assert found.kinds == Counter(["t", "clone", "_to_copy", "add_", "sum", "_local_scalar_dense", "lift_fresh"])
    assert found.operations == 7


def test_an_optimisers_own_numbers_are_no_waits():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], foreach=True)
    weight.grad = torch.ones(2)
    counted = Dispatches()
    counted.watch(optimizer)
    with counted:
        optimizer.step()
    assert counted.found.kinds["_local_scalar_dense"] and not counted.found.waits


@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits_for_the_device_in_an_iteration_that_nobody_looks_at(name):
    found = iteration(seeded(name), 8)
    assert found.operations > 30
    assert found.waits == 0, found.kinds


def test_what_would_be_a_graph_is_one_operation_and_only_while_it_is_counted():
    counted, done = Dispatches(), []
    replay = counted.capture(lambda: done.append(torch.zeros(2) + 1))
    replay()
    with counted:
        replay()
        replay()
    assert len(done) == 3 and counted.found.kinds == {"replay": 2}


def test_a_table_has_a_line_a_config():
    found = iteration(seeded("ebm"), 4, warm_up=1)
    head, _, line = table([("ebm", found)]).splitlines()
    assert head.startswith("| config | operations | casts, MiB") and line.startswith(
        f"| ebm | {found.operations} | 0 |"
    )
