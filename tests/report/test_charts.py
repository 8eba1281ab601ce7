"""Charts as SVG in the page's colours."""

import re

import pytest

from ebmzoo.report.charts import Series, chart


def test_a_chart_leaves_out_what_is_not_finite_and_draws_nothing_of_nothing():
    drawn = chart([Series("a", 0, [1, 2, 3], [1.0, float("nan"), 3.0])], "x", "y")
    (path,) = re.findall(r'<title>a</title>\s*<path d="M([^"]*)"', drawn)
    assert path.count("L") == 1 and "nan" not in drawn
    assert chart([Series("a", 0, [1], [float("inf")])], "x", "y") == ""


@pytest.mark.parametrize("points", [True, False])
def test_a_chart_of_one_place_is_not_drawn(points):
    same = [Series(name, 0, [16.0], [y]) for name, y in (("a", 1.0), ("b", 2.0))]
    assert chart(same, "x", "y", points=points, log_x=True) == ""
    drawn = chart([*same, Series("c", 1, [17.0, 18.0], [1.0, 2.0])], "x", "y")
    lines = re.findall(r"<title>(\w)</title>\s*<path", drawn)
    assert drawn.count("<use") == 2 and lines == ["c"]  # lines of one point are seen


def test_a_chart_has_the_pages_colours_and_nothing_of_its_own():
    series = [Series(f"<{k}>", k, [1, 2], [k, k + 1]) for k in (0, 7, 9)]
    drawn = chart(series, "$x$", "y", filled=True)
    names = re.findall("<title>([^<]*)</title>", drawn)
    assert names == ["&lt;0&gt;", "&lt;7&gt;", "&lt;9&gt;"] and ">$x$</text>" in drawn
    lines = re.findall(r"</title>\s*<path [^>]*style=\"([^\"]*)\"", drawn)
    assert [re.findall(r"var\((.*?)\)", line) for line in lines] == [["--c0"], ["--c7"], ["--c1"]]
    assert ["dasharray" in line for line in lines] == [False, False, True]
    assert drawn.count("fill-opacity: 0.2") == 1
    assert not re.search(r"#fedc|font|<style|metadata|clip-path|xmlns| id=\"(?!m[0-9a-f]+\")", drawn)


def test_points_have_bars_and_those_beyond_the_colours_are_rings():
    series = [Series("a", 1, [1.0], [5.0], [2.0]), Series("b", 9, [10.0], [6.0], [0.0])]
    drawn = chart(series, "x", "y", points=True, log_x=True)
    marks = re.findall(r"<use [^>]*?style=\"([^\"]*)\"", drawn)
    assert len(marks) == 2 and all("stroke: var(--c1)" in mark and "stroke-opacity" not in mark for mark in marks)
    assert ["fill-opacity: 0.25" in mark for mark in marks] == [False, True]
    bars = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" style="[^"]*--c1', drawn)
    height = {float(y): tick for y, tick in re.findall(r'end; fill: [^>]*y="([\d.]+)">(\d+)<', drawn)}
    assert len(bars) == 1 and bars[0][0] == bars[0][2]
    assert list(height.values()) == ["3", "4", "5", "6", "7"]  # the bar spans the axis
    low, high = sorted(height)[-1], sorted(height)[0]
    assert float(bars[0][1]) - float(bars[0][3]) == pytest.approx(low - high, abs=1e-3)


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        ([16, 17], ["16", "16.2", "16.4", "16.6", "16.8", "17"]),
        ([3, 81], ["2", "5", "10", "20", "50", "100"]),
        ([0.02, 7000], ["0.01", "0.1", "1", "10", "100", "1000", "10k"]),
    ],
)
def test_the_ticks_of_a_logarithmic_axis_span_its_points_and_its_label_says_what_it_is(x, ticks):
    drawn = chart([Series("a", 0, x, [1.0, 2.0])], "evaluations", "y", points=True, log_x=True)
    texts = re.findall(r"text-anchor: middle[^>]*>([^<]*)</text>", drawn)
    assert texts == [*ticks, "evaluations (log scale)", "y"]
    places = [float(one) for one in re.findall(r'text-anchor: middle[^>]*? x="([\d.]+)"', drawn)][: len(ticks)]
    at = [float(one) for one in re.findall(r'<use [^>]*? x="([\d.]+)"', drawn)]
    assert len(at) == 2 and places == sorted(places) and places[0] <= min(at) < max(at) <= places[-1]


def test_a_logarithmic_height_is_said_and_is_of_what_is_above_0():
    steep = [Series("a", 0, [1, 2, 3], [1.0, 10.0, 100.0])]
    drawn = chart(steep, "x", "y", log_y=True)
    (path,) = re.findall(r'<title>a</title>\s*<path d="M([^"]*)"', drawn)
    heights = [float(line.split()[1]) for line in path.split("L")]
    assert "y (log scale) over x" in drawn
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1e-3)
    assert "log scale" not in chart([Series("a", 0, [1, 2], [0.0, 1.0])], "x", "y", log_y=True)
