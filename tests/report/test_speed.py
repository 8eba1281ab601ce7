"""The speed report: its figures add up."""

from functools import partial

import pytest

from ebmzoo.mcmc import HMC, MALA, Langevin
from ebmzoo.networks import VAEBMEnergy
from ebmzoo.report import speed

SMALL = speed.Case(
    partial(VAEBMEnergy, (1, 8, 8), column="stacked_mnist", width=4), (1, 8, 8), 3, Langevin(steps=3, step_size=0.1)
)


@pytest.mark.thorough
def test_every_way_is_measured_against_the_others():
    rows = {row.way: row for row in speed.measure("small", SMALL, rounds=2)}
    assert {"reference", "naive", "exact", "eager", "kernel", "bf16"} <= set(rows)
    for way in ("reference", "naive", "exact"):
        assert rows[way].bitwise
    for way in ("reference", "naive", "exact", "eager", "kernel"):
        assert rows[way].error < 1e-5
    assert not rows["bf16"].bitwise and 1e-4 < rows["bf16"].error < 0.1
    row = rows["kernel"]
    assert row.image_steps == pytest.approx(3 / row.seconds)
    assert set(row.against) >= {"reference", "naive"} and "naive" not in rows["naive"].against
    lines = speed.table(list(rows.values())).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("sampler", [MALA(2, 1e-3), HMC(2, 1e-3)], ids=["mala", "hmc"])
def test_metropolis_samplers_are_measured_against_eager(sampler):
    case = speed.Case(speed._mlp, (2,), 4, sampler)
    rows = {row.way: row for row in speed.measure("points", case, rounds=1)}
    row = rows["kernel"]
    assert row.bitwise and "naive" not in rows and "bf16" not in rows
    products = 2 * 128 + 128 * 128 + 128  # of one forward: two FLOPs each, and a gradient costs another forward
    gradients = 5 if isinstance(sampler, HMC) else 1
    assert row.gflops * row.seconds * 1e9 == pytest.approx(2 * 2 * 4 * products * gradients)
