"""The cells of result files, and the intervals of their accuracies; the rows are stored, never the intervals alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from saccade.errors import UsageError
from saccade.intervals import t_interval, wilson_interval

MIN_SEEDS = 3
CELL = (
    *("model", "protocol", "data", "condition", "digits", "instances", "labels"),
    *("input", "split_seed", "group"),
    *("trained_on", "trunk", "split", "order", "num_frames", "num_digits", "max_angle_deg", "clutter", "noise"),
)
"""The columns in which the rows of one interval must agree; most result files have only some of them."""


class Interval(NamedTuple):
    """A confidence interval for an accuracy, as fractions, and a label with its method and sample size."""

    low: float
    high: float
    label: str


def interval(rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> Interval:
    """Return the interval for the accuracy of one cell from its rows.

    With three or more seeds it is a t-interval over the accuracies of the seeds, clipped to 0 to 1. With fewer seeds it
    is a Wilson interval for the mean accuracy over the clips of one run, because runs on the same clips are not
    independent trials. Rows of one seed, for example several trainings of the recurrent part on one CNN, are averaged
    first.

    Args:
        rows: result rows of one cell, with at least `seed`, `accuracy` and `num_clips`.
        level: the confidence level.

    Raises:
        UsageError: if there are no rows, or if the rows belong to several cells.

    >>> row = {"model": "lenet-lstm", "seed": 0, "accuracy": 0.9, "num_clips": 100}
    >>> interval([row]).label
    'Wilson, 100 clips'
    >>> interval([row | {"seed": seed} for seed in range(3)]).label
    't, 3 seeds'
    """
    if not rows:
        raise UsageError("an interval needs at least 1 row; got none")
    for column in CELL:
        if len(found := {row.get(column) for row in rows}) > 1:
            came = " and ".join(sorted(map(str, found)))
            raise UsageError(
                f"an interval needs rows of one cell; these rows have the {column} {came}: group them first"
            )
    by_seed: dict[Any, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row["accuracy"])
    accuracies = [fmean(values) for values in by_seed.values()]
    if len(accuracies) >= MIN_SEEDS:
        low, high = t_interval(accuracies, level)
        return Interval(max(low, 0.0), min(high, 1.0), f"t, {len(accuracies)} seeds")
    num = min(int(row["num_clips"]) for row in rows)
    return Interval(*wilson_interval(min(fmean(accuracies), 1.0) * num, num, level), f"Wilson, {num} clips")
