"""The one source of noise and the replay buffer."""

import pytest
import torch

from ebmzoo.mcmc import JointNoise, PerImageNoise, ReplayBuffer, SharedNoise, as_noise


def draws(noise, rows):
    return [
        noise.normal((rows, 3)),
        noise.uniform((rows, 2), torch.empty(0, dtype=torch.float64)),
        noise.integers(1000, (rows, 4)),
    ]


def test_two_processes_draw_together_what_one_draws():
    one = draws(as_noise(torch.Generator().manual_seed(1)), 6)
    two = [draws(JointNoise(torch.Generator().manual_seed(1), rank, 2), 3) for rank in range(2)]
    for index, joined in enumerate(one):
        assert torch.equal(joined, torch.cat([two[0][index], two[1][index]]))
    assert one[1].dtype == torch.float64 and one[2].dtype == torch.int64 and one[2].max() < 1000


def test_an_image_does_not_depend_on_its_batch():
    batch = draws(PerImageNoise([3, 5, 9]), 3)
    alone = draws(PerImageNoise([5]), 1)
    assert all(torch.equal(whole[1:2], part) for whole, part in zip(batch, alone, strict=True))
    with pytest.raises(ValueError, match="2 rows asked of a noise with 3 seeds"):
        PerImageNoise([1, 2, 3]).normal((2, 1))


def test_numbered_rows_are_unlike_each_other():
    rows = PerImageNoise.of_rows(0, range(2000)).normal((2000, 16), torch.empty(0, dtype=torch.float64))
    other = PerImageNoise.of_rows(1, range(2000)).normal((2000, 16), torch.empty(0, dtype=torch.float64))
    assert len(torch.cat([rows, other]).unique(dim=0)) == 4000
    # White noise in all directions: within a row, from row to row, and from seed to seed.
    for a, b in ((rows[:-1], rows[1:]), (rows[:-3], rows[3:]), (rows, other), (rows[:, :-1], rows[:, 1:])):
        assert abs((a * b).mean()) < 4 / (a.numel() ** 0.5)
    assert abs(rows.mean()) < 4 / rows.numel() ** 0.5 and abs(rows.var() - 1) < 4 * (2 / rows.numel()) ** 0.5
    # The first number of each row too, where seeds that follow each other would show first.
    assert abs(rows[:, 0].mean()) < 4 / 2000**0.5 and abs((rows[:-1, 0] * rows[1:, 0]).mean()) < 4 / 2000**0.5


def test_seeds_repeat_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(as_noise(4).normal((5,)), as_noise(4).normal((5,)))
    assert torch.equal(torch.get_rng_state(), state)
    expected = torch.randn(5)
    torch.manual_seed(0)
    assert torch.equal(as_noise(None).normal((5,)), expected)
    noise = as_noise(1)
    assert as_noise(noise) is noise


def test_in_place_draws_equal_allocating_ones():
    buffer = torch.empty(4, 2, dtype=torch.float64)
    as_noise(2).normal_(buffer)
    assert torch.equal(buffer, as_noise(2).normal((4, 2), buffer))


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


def test_shared_noise_is_one_draw_for_all_rows():
    noise, one = SharedNoise.of_seed(3), as_noise(3)
    for draw in ("normal", "uniform"):
        rows, row = getattr(noise, draw)((4, 2)), getattr(one, draw)((1, 2))
        assert torch.equal(rows, row.expand(4, 2))
    assert torch.equal(noise.integers(100, (4,)), one.integers(100, (1,)).expand(4))


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
