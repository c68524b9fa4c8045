"""How figures and tables are written in Markdown."""

from collections.abc import Sequence
from statistics import geometric_mean


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


def mean_and_range(ratios: Sequence[float], digits: int = 2) -> str:
    """Write the geometric mean of several ratios, and in brackets the lowest and the highest.

    >>> mean_and_range([1.0, 4.0])
    '2.00 (1.00 to 4.00)'
    """
    mean, low, high = (f"{ratio:.{digits}f}" for ratio in (geometric_mean(ratios), min(ratios), max(ratios)))
    return f"{mean} ({low} to {high})"
