"""The one source of noise."""

import pytest
import torch

from ebmzoo.mcmc import JointNoise, PerImageNoise, SharedNoise, as_noise


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


def test_shared_noise_is_one_draw_for_all_rows():
    noise, one = SharedNoise.of_seed(3), as_noise(3)
    for draw in ("normal", "uniform"):
        rows, row = getattr(noise, draw)((4, 2)), getattr(one, draw)((1, 2))
        assert torch.equal(rows, row.expand(4, 2))
    assert torch.equal(noise.integers(100, (4,)), one.integers(100, (1,)).expand(4))
