"""Tables of robustness, from the rows of `saccade robustness`."""

from pathlib import Path

from saccade.evaluate import read_rows
from saccade.robustness import Curve, curves
from saccade.robustness.curves import Point

from .layout import percent, table, with_interval

_TURN = "turn"


def turned(path: Path) -> str:
    """Show accuracy by angle, with 95 % intervals: a column for each run and number of turned copies."""
    found = [curve for curve in curves(read_rows(path)) if curve.change == _TURN]
    by_angle = [{point.strength: point for point in curve.points} for curve in found]
    lines = [
        [f"{angle:g}°", *(_accuracy(points[angle]) for points in by_angle)]
        for angle in sorted(set.intersection(*(set(points) for points in by_angle)))
    ]
    return table(["turned by", *map(_title, found)], lines)


def changed(path: Path) -> str:
    """Show for each change and run the accuracy unchanged, at the strongest change, and as the mean over the range."""
    lines = [
        [
            curve.change,
            _title(curve),
            percent(curve.unchanged.accuracy),
            f"{percent(curve.strongest.accuracy)} at {curve.strongest.strength:g}",
            percent(curve.area),
        ]
        for curve in sorted(curves(read_rows(path)), key=lambda curve: curve.change)
        if curve.turns == 1
    ]
    return table(["change", "model", "unchanged", "strongest change", "mean over the range"], lines)


def _title(curve: Curve) -> str:
    model = curve.run.partition(" ")[0]
    return model if curve.turns == 1 else f"{model}, mean of {curve.turns} turned copies"


def _accuracy(point: Point) -> str:
    return with_interval(point.accuracy, point.interval, places_of_ends=0)
