"""Confidence intervals for accuracies, computed from result rows; the rows are stored, never the intervals alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any, NamedTuple

from saccade.errors import UsageError

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


def wilson_interval(successes: float, num: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval for a probability, given the number of successes in `num` trials.

    Unlike the normal approximation, it stays within 0 and 1, and its width is above 0 even if every trial succeeded.

    Args:
        successes: the number of successes; a mean over several runs need not be a whole number.
        num: the number of trials.
        level: the confidence level.

    Raises:
        ValueError: if there are no trials, if `successes` is outside 0 to `num`, or if `level` is outside 0 to 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    >>> [round(bound, 4) for bound in wilson_interval(81, 263)]
    [0.2553, 0.3662]
    """
    if num < 1 or not 0 <= successes <= num:
        raise ValueError(f"a Wilson interval needs 0 to num successes of at least 1 trial; got {successes} of {num}")
    z = NormalDist().inv_cdf(_upper_tail(level))
    p, z2 = successes / num, z * z
    centre = p + z2 / (2 * num)
    reach = z * math.sqrt(p * (1 - p) / num + z2 / (4 * num * num))
    # If all or none succeeded, the bound is exactly 1 or 0; rounding must not move it beyond.
    low = 0.0 if successes == 0 else (centre - reach) / (1 + z2 / num)
    high = 1.0 if successes == num else (centre + reach) / (1 + z2 / num)
    return low, high


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's confidence interval for the mean of the population from which a few values were drawn.

    Args:
        values: at least two values, for example the accuracies of several seeds.
        level: the confidence level.

    Raises:
        ValueError: if there are fewer than two values, or if `level` is outside 0 to 1.

    Source: Student, "The probable error of a mean", 1908.

    >>> [round(bound, 4) for bound in t_interval([1.0, 2.0, 3.0])]
    [-0.4841, 4.4841]
    """
    if len(values) < 2:
        raise ValueError(f"a t-interval needs at least 2 values; got {len(values)}")
    reach = t_quantile(len(values) - 1, level) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def t_quantile(degrees_of_freedom: int, level: float = 0.95) -> float:
    """Return half the width of Student's interval, in standard errors.

    >>> round(t_quantile(2), 3)
    4.303
    """
    from scipy.stats import t  # slow to import, and Wilson's interval does not need it

    return float(t.ppf(_upper_tail(level), degrees_of_freedom))


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


def _upper_tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    return (1 + level) / 2
