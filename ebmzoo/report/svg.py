"""Small charts as SVG text: they scale, follow the page's colours in light and dark, and need no library to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLOURS", "Series", "chart"]

COLOURS = 8  # the page has so many; further series are dashed
_WIDTH, _HEIGHT = 420, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 22, 12, 44


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
    def points(self) -> list[tuple[float, float]]:
        both = zip(self.x, self.y, strict=True)
        return [(float(a), float(b)) for a, b in both if math.isfinite(a) and math.isfinite(b)]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool
    start: float
    length: float

    def __call__(self, value: float) -> float:
        """Place of a value on the page."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + self.length * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers from one end to the other: the ends are such numbers."""
        return _round_numbers(self.low, self.high, self.logarithmic)


def chart(
    series: Sequence[Series],
    label_x: str,
    label_y: str,
    *,
    points: bool = False,
    log_x: bool = False,
    filled: bool = False,
) -> str:
    """A chart of lines, or of points with bars.

    Args:
        series: at least one with a finite point.
        label_x: of the horizontal axis, with its unit.
        label_y: of the vertical axis, with its unit.
        points: draw points instead of lines.
        log_x: a logarithmic horizontal axis, which its label says; all x above 0.
        filled: fill below the first line.

    Returns:
        An ``<svg>`` element; "" where there is nothing to draw, or one place x alone.

    Example:
        >>> chart([Series("a", 0, [0, 1], [1, 2])], "step", "loss").count("<path")
        1
    """
    shown = [one for one in series if one.points]
    if len({a for one in shown for a, _ in one.points}) < 2:
        return ""
    label_x += " (log scale)" if log_x else ""
    x = _axis([a for one in shown for a, _ in one.points], log_x, _LEFT, _WIDTH - _LEFT - _RIGHT)
    bars = [
        b + sign * s for one in shown for (_, b), s in zip(one.points, one.spread, strict=False) for sign in (-1, 1)
    ]
    y = _axis([b for one in shown for _, b in one.points] + bars, False, _HEIGHT - _BOTTOM, _TOP + _BOTTOM - _HEIGHT)
    said = f"{label_y} over {label_x}: {', '.join(one.name for one in shown)}"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">', *_frame(x, y)]
    for number, one in enumerate(shown):
        dash = ' stroke-dasharray="5 3"' if one.colour >= COLOURS else ""
        colour = f"var(--c{one.colour % COLOURS})"
        places = [(x(a), y(b)) for a, b in one.points]
        if points:
            for (a, b), (_, value), s in zip(places, one.points, one.spread or [0.0] * len(places), strict=False):
                if s:
                    ends = f'y1="{y(value - s):.1f}" y2="{y(value + s):.1f}"'
                    parts.append(f'<line x1="{a:.1f}" x2="{a:.1f}" {ends} stroke="{colour}" stroke-width="2"/>')
                ring = ' stroke-width="2" fill-opacity="0.25"' if one.colour >= COLOURS else ""
                mark = f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" fill="{colour}" stroke="{colour}"{ring}>'
                parts.append(f"{mark}<title>{escape(one.name)}</title></circle>")
            continue
        if len(places) == 1:  # a line of one point cannot be seen
            (a, b) = places[0]
            parts.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"><title>{escape(one.name)}</title></circle>'
            )
            continue
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        if filled and number == 0:
            foot = y(max(y.low, 0.0))
            area = f"{path}L{places[-1][0]:.1f} {foot:.1f}L{places[0][0]:.1f} {foot:.1f}Z"
            parts.append(f'<path d="{area}" fill="{colour}" fill-opacity="0.2"/>')
        line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}>'
        parts.append(f"{line}<title>{escape(one.name)}</title></path>")
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    across = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{across}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(label_x)}</text>')
    turned = f'transform="translate(14 {middle}) rotate(-90)" text-anchor="middle"'
    return "".join([*parts, f"<text {turned}>{escape(label_y)}</text></svg>"])


def _axis(values: Sequence[float], logarithmic: bool, start: float, length: float) -> _Axis:
    """An axis from the round number below the values to the one above them."""
    low, high = min(values), max(values)
    if low == high:
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    found = _round_numbers(low, high, logarithmic)
    return _Axis(found[0], found[-1], logarithmic, start, length)


def _round_numbers(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers that span a range, at most about ten.

    Example:
        >>> _round_numbers(3.0, 81.0, True), _round_numbers(0.0, 9.0, False)
        ([2.0, 5.0, 10.0, 20.0, 50.0, 100.0], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    """
    if logarithmic and high / low > 2:
        within = (1, 10) if high / low > 1000 else (1, 2, 5, 10)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        found = sorted({m * 10.0**power for power in powers for m in within})
        first = max(k for k, tick in enumerate(found) if tick <= low * (1 + 1e-9))
        last = min(k for k, tick in enumerate(found) if tick >= high * (1 - 1e-9))
        return found[first : last + 1]
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _frame(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    for tick in x.ticks():
        place = f'x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 17}"'
        parts.append(f'<text {place} text-anchor="middle">{_tick(tick)}</text>')
    foot = _HEIGHT - _BOTTOM
    return [*parts, f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{foot}" y2="{foot}"/>']


def _tick(value: float) -> str:
    """A tick's label, short.

    Example:
        >>> _tick(20000.0), _tick(0.5), _tick(-3.0)
        ('20k', '0.5', '−3')
    """
    small = abs(value) < 10_000
    text = f"{value:.6g}" if small else f"{value / 1000:.6g}k" if abs(value) < 1e6 else f"{value / 1e6:.6g}M"
    return text.replace("-", "−")
