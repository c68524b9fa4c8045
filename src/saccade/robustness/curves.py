"""Curves of accuracy against the strength of a change, made of result rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from saccade.evaluate import Interval, interval
from saccade.evaluate.rows import Row
from saccade.robustness.changes import CHANGES
from saccade.robustness.measure import UNCHANGED

FALL = 0.1
"""The fall of accuracy whose strength is told, as a fraction."""


@dataclass(frozen=True)
class Point:
    """The accuracy at a strength, with its interval."""

    strength: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Curve:
    """The accuracy of a run against the strength of a change.

    Args:
        run: the title of the run.
        change: the name of the change.
        turns: the number of turned copies over which probabilities are averaged; 1 for none.
        points: the points, in order of strength; at a full turn, that of the unchanged clips again.
    """

    run: str
    change: str
    turns: int
    points: Sequence[Point]

    @property
    def unchanged(self) -> Point:
        """The point of the clips as they are."""
        return next(point for point in self.points if point.strength == CHANGES[self.change].unchanged)

    @property
    def strongest(self) -> Point:
        """The point at the end of the range; of two ends, or of all angles, that with the lowest accuracy."""
        change = CHANGES[self.change]
        if change.period is not None:
            return min(self.points, key=lambda point: point.accuracy)
        ends = [point for point in (self.points[0], self.points[-1]) if point.strength != change.unchanged]
        return min(ends or self.points, key=lambda point: point.accuracy)

    @property
    def area(self) -> float:
        """The mean accuracy over the range of strengths: the area under the curve, divided by its width."""
        width = self.points[-1].strength - self.points[0].strength
        if not width:
            return self.points[0].accuracy
        return sum((b.strength - a.strength) * (a.accuracy + b.accuracy) / 2 for a, b in pairwise(self.points)) / width

    def falls_at(self, fall: float = FALL) -> list[float]:
        """Return the strengths nearest to the unchanged clip at which accuracy has fallen, below it and above it.

        Between measured strengths, accuracy counts as a straight line. Nothing is returned if it never falls so far.
        """
        change, wanted = CHANGES[self.change], self.unchanged.accuracy - fall
        below = [point for point in reversed(self.points) if point.strength <= change.unchanged]
        above = [point for point in self.points if point.strength >= change.unchanged]
        found = [_crossing(below, wanted), _crossing(above, wanted)]
        told = [strength for strength in found if strength is not None]
        if change.period is not None:  # both sides are the same circle, seen from its ends
            back = _crossing(list(reversed(self.points)), wanted)
            told = [strength for strength in (found[1], back) if strength is not None]
        return told


def title_of(row: Row) -> str:
    """Return the title of the run of a row: its model, and its checkpoint if it has another name."""
    model, place = str(row["model"]), row.get("checkpoint")
    return model if place in (None, model) else f"{model} ({place})"


def curves(rows: Iterable[Row]) -> list[Curve]:
    """Return the curves in rows, in their order; a run's clips as they are belong to each of its curves."""
    grouped: dict[tuple[str, int, str], dict[str, dict[float, Row]]] = {}
    for row in rows:
        of_run = grouped.setdefault((title_of(row), int(row.get("turns") or 1), str(row.get("test_set"))), {})
        of_run.setdefault(str(row["change"]), {})[float(row["strength"])] = row
    found = []
    for (run, turns, _), by_change in grouped.items():
        for name, measured in by_change.items():
            if name == UNCHANGED or name not in CHANGES:
                continue
            change, own = CHANGES[name], dict(measured)
            if UNCHANGED in by_change:
                own[change.unchanged] = by_change[UNCHANGED][0.0]
                if change.period is not None:
                    own[change.period] = own[change.unchanged]
            if change.unchanged in own:
                found.append(Curve(run, name, turns, [_point(s, own[s]) for s in sorted(own)]))
    return found


def _point(strength: float, row: Row) -> Point:
    return Point(strength, float(row["accuracy"]), interval([row]))


def _crossing(points: Sequence[Point], wanted: float) -> float | None:
    """Return the first strength of a line of points at which accuracy is down to a level."""
    for one, two in pairwise(points):
        if two.accuracy <= wanted < one.accuracy:
            share = (one.accuracy - wanted) / (one.accuracy - two.accuracy)
            return one.strength + share * (two.strength - one.strength)
    return None
