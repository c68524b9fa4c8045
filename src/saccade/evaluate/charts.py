"""Charts of fractions as SVG: lines with intervals, and a bar with a mark for one interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
.chart, .span { display: block; overflow: visible; }
.chart { width: 100%; max-width: 460px; font-size: 12px; }
.chart text { fill: var(--muted); }
.chart .grid, .span .grid { stroke: var(--line); stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .reach, .span .reach { stroke-width: 2; }
.accent { stroke: var(--accent); fill: var(--accent); }
.truth { stroke: var(--right); fill: var(--right); }
.truth.line { stroke-dasharray: 6 4; }
.verdict { stroke: var(--wrong); fill: var(--wrong); }
"""
"""The style of charts; a page sets the colours."""

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 190, 44, 16, 10, 40
_SPAN_WIDTH, _SPAN_HEIGHT = 120, 14
_FEW_POINTS = 12  # more are drawn as a line without dots


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        kind: accent, truth or verdict: a class of the style sheet.
        points: (x, fraction) of each point.
        intervals: the interval of each point, as fractions; empty for none.
    """

    kind: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()


def chart(series: Sequence[Series], ticks: Sequence[tuple[float, str]], axis: str, label: str) -> str:
    """Return a chart of fractions, from 0 to 100 %.

    Args:
        series: the lines; later ones are drawn above.
        ticks: x and text of the ticks of the horizontal axis, which extends over all ticks and points.
        axis: the name of the horizontal axis.
        label: what the chart shows, for readers that do not see it.
    """
    ends = [value for value, _ in ticks] + [value for one in series for value, _ in one.points]
    first, last = min(ends), max(ends)

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - first) / (last - first) if last > first else 0.5)

    parts = [f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">']
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<path class="grid" d="M{_LEFT} {_y(share):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{_y(share) + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>')
    for value, text in ticks:
        parts.append(f'<text x="{x(value):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{axis}</text>')
    for one in series:
        places = [(x(value), _y(share)) for value, share in one.points]
        for (at, _), (low, high) in zip(places, one.intervals, strict=False):
            parts.append(f'<path class="reach {one.kind}" d="M{at:.1f} {_y(low):.1f}V{_y(high):.1f}"/>')
        parts.append(f'<path class="line {one.kind}" d="M{"L".join(f"{at:.1f} {y:.1f}" for at, y in places)}"/>')
        if len(places) <= _FEW_POINTS:
            parts += [f'<circle class="{one.kind}" cx="{at:.1f}" cy="{y:.1f}" r="3.5"/>' for at, y in places]
    return "".join(parts) + "</svg>"


def span(value: float, low: float, high: float) -> str:
    """Return a small picture of a fraction and its interval, between the ends of a line from 0 to 1."""
    middle, inside = _SPAN_HEIGHT / 2, _SPAN_WIDTH - 8

    def x(share: float) -> float:
        return 4 + inside * share

    return (
        f'<svg class="span" aria-hidden="true" width="{_SPAN_WIDTH}" height="{_SPAN_HEIGHT}">'
        f'<path class="grid" d="M{x(0)} {middle}H{x(1)}"/>'
        f'<path class="reach accent" d="M{x(low):.1f} {middle}H{x(high):.1f}"/>'
        f'<circle class="accent" cx="{x(value):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def even_ticks(last: int, per_second: float | None = None) -> list[tuple[float, str]]:
    """Return the ticks of a time axis over frames 0 to `last`, in seconds if the frame rate is known.

    Ticks are at round numbers. Without a rate they count frames from 1, as people do.

    >>> even_ticks(6)
    [(1, '2'), (3, '4'), (5, '6')]
    >>> even_ticks(31, per_second=16)
    [(0.0, '0'), (8.0, '0.5'), (16.0, '1'), (24.0, '1.5')]
    """
    if per_second:
        step = _round_step(last / per_second)
        return [(k * step * per_second, f"{k * step:g}") for k in range(int(last / per_second / step + 1e-9) + 1)]
    whole = max(1, round(_round_step(last + 1)))
    return [(number - 1, str(number)) for number in range(whole, last + 2, whole)]


def _round_step(length: float) -> float:
    """Return the smallest of 1, 2, 5, 10 ... times a power of ten, by which a length has at most four parts."""
    if length <= 0:
        return 1.0
    exponent = math.floor(math.log10(length / 4))
    return next(size for factor in (1, 2, 5, 10) if 4 * (size := factor * 10.0**exponent) >= length * (1 - 1e-9))


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)
