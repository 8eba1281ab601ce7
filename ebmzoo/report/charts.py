"""Small charts as SVG: matplotlib's, in the page's own colours and type, which follow light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

COLOURS = 8  # the page has so many; further series are dashed
_SIZE = 4.2, 2.9  # inches
_AREA = 0.162, 0.152, 0.786, 0.807  # of the axes: left, bottom, width, height
# Colours that only stand for those of the page, by the names that its style sheet has for them.
_SOFT, _LINE = "#fedc00", "#fedc01"
_PAGE = {_SOFT: "soft", _LINE: "line"} | {f"#fedca{k}": f"c{k}" for k in range(COLOURS)}
# What SVG inside a page does without: other places' addresses, and sizes, names and type that are the page's.
_NEEDLESS = r'<metadata>.*?</metadata>|<style.*?</style>|<g id="\w*"/>|\bxlink:|font[-a-z]*: [^;"]*;'
_NEEDLESS += r'| transform="rotate\(-0 .*?"'


@dataclass(frozen=True)
class Series:
    """What one run draws.

    Args:
        name: shown where the pointer rests on it.
        colour: number of the series, which is its colour everywhere on the page.
        x: places.
        y: values; those that are not finite are left out.
        spread: half of the height of the bars at points; empty for none.
    """

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()

    @property
    def points(self) -> np.ndarray:
        """Place, value and spread of each point, ``(n, 3)``."""
        rows = np.array([self.x, self.y, self.spread or [0.0] * len(self.x)], dtype=float).T
        return rows[np.isfinite(rows).all(1)]


def chart(
    series: Sequence[Series],
    label_x: str,
    label_y: str,
    *,
    points: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    filled: bool = False,
) -> str:
    """A chart of lines, or of points with bars.

    Args:
        series: at least one with a finite point.
        label_x: of the horizontal axis, with its unit.
        label_y: of the vertical axis, with its unit.
        points: draw points instead of lines.
        log_x: a logarithmic horizontal axis, which its label says; all x above 0.
        log_y: the same of the vertical one, where all y less their spread are above 0, else linear.
        filled: fill below the first line.

    Returns:
        An ``<svg>`` element; "" where there is nothing to draw, or one place x alone.

    Example:
        >>> chart([Series("a", 0, [0, 1], [1, 2])], "step", "loss").count("<title>a</title>")
        1
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [one for one in series if len(one.points)]
    everything = np.concatenate([np.empty((0, 3)), *(one.points for one in shown)])
    x, y, spread = everything.T
    if len(set(x)) < 2:
        return ""
    log_y = log_y and bool((y - spread).min() > 0)
    label_x, label_y = (f"{label} (log scale)" if log else label for label, log in ((label_x, log_x), (label_y, log_y)))
    figure = Figure(_SIZE)
    axes: Any = figure.add_axes(_AREA, xscale="log" if log_x else "linear", frame_on=False)
    axes.set_yscale("log" if log_y else "linear")
    along, up = _ticks(x, log_x), _ticks([*(y - spread), *(y + spread)], log_y)
    for axis, ticks, label in ((axes.xaxis, along, label_x), (axes.yaxis, up, label_y)):
        axis.set_ticks(ticks, list(map(_tick, ticks)), color=_SOFT)
        axis.set_ticks([], minor=True)
        axis.set_label_text(label, color=_SOFT, parse_math=False)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=_LINE, linewidth=0.5, clip_on=False)
    axes.hlines(up[0], along[0], along[-1], _SOFT, linewidth=0.8, clip_on=False)
    for number, one in enumerate(shown):
        _draw(axes, one, points, max(up[0], 0.0) if filled and number == 0 else None, f"series-{number}")
    axes.set(xlim=(along[0], along[-1]), ylim=(up[0], up[-1]))
    room = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
        figure.savefig(room, format="svg", transparent=True)
    said = f"{label_y} over {label_x}: {', '.join(one.name for one in shown)}"
    return _embedded(room.getvalue(), said, [one.name for one in shown])


def densities(groups: Mapping[str, np.ndarray], label: str) -> str:
    """Histograms of groups of values as lines, each of area one, the first one filled.

    Args:
        groups: name to values ``(n,)``; those that are not finite are left out.
        label: of the values' axis, with their unit.

    Returns:
        As `chart`; "" where the values have no range.

    Example:
        >>> densities({"a": np.arange(9.0), "b": np.arange(5.0)}, "score").count("<title>")
        2
    """
    finite = {name: found for name, values in groups.items() if len(found := values[np.isfinite(values)])}
    if not finite:
        return ""
    low, high = np.quantile(np.concatenate(list(finite.values())), [0.005, 0.995])
    edges = np.linspace(float(low), float(high), 41)
    if edges[0] == edges[-1]:
        return ""
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = [
        Series(name, number, middles, np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0])))
        for number, (name, values) in enumerate(finite.items())
    ]
    return chart(series, label, "density", filled=True)


def _draw(axes: Any, one: Series, points: bool, foot: float | None, gid: str) -> None:
    x, y, spread = one.points.T
    colour, more = f"#fedca{one.colour % COLOURS}", one.colour >= COLOURS
    if points:
        bars = spread > 0
        axes.vlines(x[bars], (y - spread)[bars], (y + spread)[bars], colour, linewidth=1.5, clip_on=False)
    if points or len(x) == 1:  # a line of one point cannot be seen
        face, size = (colour, 0.25 if more and points else 1.0), 8.6 if points else 4.3
        axes.scatter(x, y, size**2, [face], edgecolors=[colour], linewidths=size / 6, zorder=3, clip_on=False, gid=gid)
    else:
        style: Any = (0, (4, 2.4)) if more else "-"
        axes.plot(x, y, color=colour, linewidth=1.3, linestyle=style, clip_on=False, gid=gid)
    if foot is not None:
        axes.fill_between(x, y, foot, color=colour, alpha=0.2, linewidth=0, clip_on=False)


def _embedded(svg: str, said: str, names: Sequence[str]) -> str:
    """A whole SVG file as an element of the page, whose text says what is drawn and where the pointer rests."""
    inside = re.sub(_NEEDLESS, "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for number, name in enumerate(names):
        inside = inside.replace(f'<g id="series-{number}">', f"<g><title>{escape(name)}</title>")
    for colour, name in _PAGE.items():
        inside = inside.replace(colour, f"var(--{name})")
    inside = re.sub(r'<g id="[^"]*">', "<g>", inside)
    box = re.search(r'viewBox="[^"]*"', inside)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="{escape(said)}">{inside[inside.index(">") + 1 :]}'


def _ticks(values: Sequence[float] | np.ndarray, logarithmic: bool = False) -> list[float]:
    """Round numbers from the one below some values to the one above them, at most about ten.

    Example:
        >>> _ticks([3.0, 81.0], True), _ticks([0.0, 9.0])
        ([2.0, 5.0, 10.0, 20.0, 50.0, 100.0], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    """
    from matplotlib.ticker import MaxNLocator

    low, high = float(min(values)), float(max(values))
    if low == high:
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    if logarithmic and high / low > 2:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = np.array([m * 10.0**power for power in powers for m in ((1,) if high / low > 1000 else (1, 2, 5))])
        first, last = found.searchsorted(low * (1 + 1e-9), "right"), found.searchsorted(high * (1 - 1e-9))
        return list(map(float, found[first - 1 : last + 1]))
    return list(map(float, MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)))


def _tick(value: float) -> str:
    """A tick's label, short.

    Example:
        >>> _tick(20000.0), _tick(0.5), _tick(-3.0)
        ('20k', '0.5', '−3')
    """
    small = abs(value) < 10_000
    text = f"{value:.6g}" if small else f"{value / 1000:.6g}k" if abs(value) < 1e6 else f"{value / 1e6:.6g}M"
    return text.replace("-", "−")
