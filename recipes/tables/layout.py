"""How figures and tables are written in Markdown."""

from collections.abc import Sequence
from statistics import geometric_mean

from saccade.evaluate import Interval


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(fraction: float) -> str:
    """Write a fraction in percent.

    >>> percent(0.9605)
    '96.0 %'
    """
    return f"{100 * fraction:.1f} %"


def with_interval(fraction: float, interval: Interval, *, places: int = 1, places_of_ends: int | None = None) -> str:
    """Write a fraction in percent with its interval, whose ends may have fewer places.

    >>> with_interval(0.9605, Interval(0.951, 0.968, "wilson"), places_of_ends=0)
    '96.0 % (95 to 97)'
    """
    ends = places if places_of_ends is None else places_of_ends
    return f"{100 * fraction:.{places}f} % ({100 * interval.low:.{ends}f} to {100 * interval.high:.{ends}f})"


def mean_and_range(ratios: Sequence[float], digits: int = 2) -> str:
    """Write the geometric mean of several ratios, and in brackets the lowest and the highest.

    >>> mean_and_range([1.0, 4.0])
    '2.00 (1.00 to 4.00)'
    """
    mean, low, high = (f"{ratio:.{digits}f}" for ratio in (geometric_mean(ratios), min(ratios), max(ratios)))
    return f"{mean} ({low} to {high})"
