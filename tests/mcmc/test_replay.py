"""The replay buffer: the newest examples, restored exactly, dealt to other numbers of processes."""

import pytest
import torch

from ebmzoo.mcmc import ReplayBuffer, as_noise


def test_replay_keeps_the_newest_in_order_of_arrival():
    buffer = ReplayBuffer(4)
    for first in (0, 3, 6, 9):
        rows = torch.arange(first, first + 3).view(3, 1)
        buffer.push(rows, 10 * rows)
    x, y = buffer.leaves
    assert sorted(x.flatten().tolist()) == [8, 9, 10, 11] and torch.equal(y, 10 * x)
    x, y = buffer.draw(4000, as_noise(0))
    counts = torch.bincount(x.flatten() - 8, minlength=4)
    assert torch.equal(y, 10 * x) and (counts - 1000).abs().max() < 4 * (1000 * 0.75) ** 0.5


def test_replay_deals_the_newest_of_every_process_to_fewer():
    full, part = ReplayBuffer(4), ReplayBuffer(4)
    for first in (0, 3):
        full.push(torch.arange(first, first + 3.0).view(3, 1))  # holds 2, 3, 4, 5, the ring begun anew
    part.push(torch.tensor([[10.0], [11.0]]))
    states = [full.state_dict(), part.state_dict()]
    one = ReplayBuffer(4)
    one.load_share(states, 0, 1)
    assert sorted(one.leaves[0].flatten().tolist()) == [4, 5, 10, 11]
    shares = [ReplayBuffer(4) for _ in range(3)]
    for rank, share in enumerate(shares):
        share.load_share(states, rank, 3)
    assert sorted(x for share in shares for x in share.leaves[0].flatten().tolist()) == [2, 3, 4, 5, 10, 11]


def test_replay_follows_its_examples_to_their_device():
    """What a checkpoint brings lies on the CPU."""
    buffer = ReplayBuffer(4)
    buffer.push(torch.zeros(3, 2))
    buffer.push(torch.zeros(2, 2, device="meta"))
    assert buffer.leaves[0].device.type == "meta" and len(buffer) == 4
    buffer.load_state_dict({"leaves": [torch.zeros(3, 2)], "next": 0, "capacity": 4})
    (mixed,) = buffer.mix((torch.zeros(2, 2, device="meta"),), 0.5, as_noise(None))
    assert mixed.device.type == "meta"


def test_replay_is_restored_exactly():
    buffer, other = ReplayBuffer(5), ReplayBuffer(5)
    buffer.push(torch.randn(8, 2))
    other.load_state_dict(buffer.state_dict())
    for kept in (buffer, other):
        kept.push(torch.full((2, 2), 7.0))
    assert torch.equal(buffer.draw(9, as_noise(1))[0], other.draw(9, as_noise(1))[0])
    with pytest.raises(ValueError, match="holds 3 examples, the saved one 5"):
        ReplayBuffer(3).load_state_dict(buffer.state_dict())
    with pytest.raises(ValueError, match="nothing was pushed"):
        ReplayBuffer(3).draw(1, as_noise(0))
