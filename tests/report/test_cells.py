"""Numbers of several seeds as the cells of a table."""

import pytest

from ebmzoo.report.cells import Cell, readable


def test_spread_is_the_mean_and_the_sample_deviation():
    assert Cell([2.0, 4.0, 9.0]).each() == "5.0 ± 3.6 (2, 4, 9)"
    assert Cell([20.25, 20.75]).each(4) == "20.50 ± 0.35 (20.25, 20.75)" and Cell([2.0]).each() == "2 ± 0 (2)"
    assert Cell([2.0, None]).each() == "not finite for 1 of 2 seeds"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.99997, 1.00003], "1.000 ± 0.000"),  # not 1 ± 4.2e-05
        ([4.19, 5.17], "4.68 ± 0.69"),
        ([1200.0, 1240.0], "1,220 ± 28"),
        ([-2.6124, -2.6122], "-2.612 ± 0.000"),
        ([0.0, 0.02], "0.010 ± 0.014"),
        ([-1.0, 1.0], "0.0 ± 1.4"),
        ([0.25, 0.25], "0.25 ± 0"),
    ],
)
def test_a_mean_and_its_spread_have_the_digits_of_the_spread(values, said):
    assert str(Cell(values)) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.000339], "0.339 ms"),
        ([0.010, 0.012], "11.0 ± 1.4 ms"),
        ([31.5], "31.5 s"),
        ([119.0], "119 s"),
        ([150.0, 210.0], "3.00 ± 0.71 min"),
        ([7200.0], "2 h"),
    ],
)
def test_seconds_stand_in_the_unit_that_suits_them(values, said):
    assert str(Cell(values, seconds=True)) == said


def test_small_numbers_have_no_exponent():
    assert [readable(value) for value in (4.3e-5, -1.25e-4, 0.0, 1e-4)] == ["0.000043", "-0.000125", "0", "0.0001"]
