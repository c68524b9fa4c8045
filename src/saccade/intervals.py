"""Confidence intervals: for a share, a mean, the accuracy on groups of clips, and a difference of two accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS_AT_ONCE = 2**22


class AccuracyInterval(NamedTuple):
    """A confidence interval for an accuracy, as fractions, and its method with the number of trials."""

    low: float
    high: float
    method: str


class Difference(NamedTuple):
    """The difference of two accuracies on the same clips, and its confidence interval, as fractions."""

    mean: float
    low: float
    high: float


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


def bootstrap_interval(
    correct: ArrayLike, groups: Sequence[Any] | None = None, level: float = 0.95, num: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval for the accuracy over all clips, where clips of one group are not independent.

    Whole groups are drawn with replacement. The percentiles are those of the expanded percentile interval: they lie
    further out than `level` by the ratio of Student's t to the normal distribution, because the plain percentiles are
    too narrow for few groups. If the accuracy of all groups is the same, for example if every prediction is right,
    then draws do not vary; in that case the interval is Wilson's, with the groups as trials.

    Args:
        correct: whether each clip was classified correctly.
        groups: the group of each clip, for example the person shown; None: each clip is a group.
        level: the confidence level.
        num: the number of draws.
        seed: the seed of the draws; the same seed gives the same interval.

    Raises:
        ValueError: if there are no clips, if `groups` has another length, or if `level` is outside 0 to 1.

    Source: Hesterberg, "What teachers should know about the bootstrap", 2015, section 3.3.

    >>> right = [True] * 60 + [False] * 20
    >>> [round(bound, 2) for bound in bootstrap_interval(right)]
    [0.65, 0.84]
    >>> [round(bound, 2) for bound in bootstrap_interval(right, groups=[0, 1, 2, 3] * 20)]  # all groups: 0.75
    [0.3, 0.95]
    """
    totals = _totals(np.asarray(correct, dtype=bool).astype(np.int64), groups)
    low, high = _drawn(totals, level, num, seed)
    return (low, high) if low < high else wilson_interval(low * len(totals), len(totals), level)


def accuracy_interval(correct: ArrayLike, groups: Sequence[Any] | None = None, level: float = 0.95) -> AccuracyInterval:
    """Return the interval for the accuracy over all clips, and how it was made.

    With several groups it is `bootstrap_interval`; else it is Wilson's over the clips. Over the clips of one group it
    says nothing about other groups.

    Args:
        correct: whether each clip was classified correctly.
        groups: the group of each clip; None: each clip is a group.
        level: the confidence level.

    Raises:
        ValueError: as for `bootstrap_interval`.

    >>> right = [True] * 6 + [False] * 2
    >>> accuracy_interval(right).method, accuracy_interval(right, groups=["a"] * 8).method
    ('Wilson, 8 clips', 'Wilson, 8 clips of one group')
    >>> accuracy_interval(right, groups=[0, 1] * 4).method, accuracy_interval(right, groups=[0, 0, 0, 1] * 2).method
    ('Wilson, 2 groups', 'bootstrap, 2 groups')
    """
    right = np.asarray(correct, dtype=bool)
    totals = _totals(right.astype(np.int64), groups)
    if groups is None or len(set(groups)) == 1:
        of_one = "" if groups is None else " of one group"
        return AccuracyInterval(
            *wilson_interval(int(right.sum()), right.size, level), f"Wilson, {right.size} clips{of_one}"
        )
    # Groups of equal accuracy do not vary when drawn.
    same = len(set((totals[:, 0] / totals[:, 1]).tolist())) == 1
    method = f"{'Wilson' if same else 'bootstrap'}, {len(totals)} groups"
    return AccuracyInterval(*bootstrap_interval(right, groups, level), method)


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    groups: Sequence[Any] | None = None,
    level: float = 0.95,
    num: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return by how much classifier A is more accurate than B on the same clips, with a bootstrap interval.

    Both classifiers are compared clip by clip, so the interval is narrower than the intervals of both accuracies
    suggest. Groups are drawn as in `bootstrap_interval`. If the difference is the same in all groups, the interval is
    the difference of Wilson's bounds for the shares of clips that only A or only B classified correctly, with the
    groups as trials.

    Args:
        correct_a: whether A classified each clip correctly.
        correct_b: whether B did, for the same clips in the same order.
        groups: the group of each clip; None: each clip is a group.
        level: the confidence level.
        num: the number of draws.
        seed: the seed of the draws.

    Raises:
        ValueError: if there are no clips, if lengths differ, or if `level` is outside 0 to 1.

    >>> a, b = [True] * 9 + [False], [True] * 6 + [False] * 4
    >>> [round(value, 2) for value in paired_difference(a, b)]
    [0.3, 0.0, 0.7]
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"both classifiers need the same clips; one has {a.size} clips, the other {b.size}")
    totals = _totals(a.astype(np.int64) - b, groups)
    mean = float(totals[:, 0].sum() / totals[:, 1].sum())
    low, high = _drawn(totals, level, num, seed)
    if low < high:
        return Difference(mean, low, high)
    num_groups = len(totals)
    only_a = wilson_interval(float((a & ~b).mean()) * num_groups, num_groups, level)
    only_b = wilson_interval(float((b & ~a).mean()) * num_groups, num_groups, level)
    return Difference(mean, only_a[0] - only_b[1], only_a[1] - only_b[0])


def _totals(values: NDArray[np.int64], groups: Sequence[Any] | None) -> NDArray[np.int64]:
    """Return the sum of the values and the number of clips of each group."""
    if values.ndim != 1 or not values.size:
        raise ValueError(f"a bootstrap needs one value for each of at least 1 clip; got shape {values.shape}")
    if groups is None:
        return np.stack([values, np.ones_like(values)], axis=1)
    if len(groups) != len(values):
        raise ValueError(f"each of the {len(values)} clips needs a group; got {len(groups)} groups")
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    totals = np.zeros((len(number), 2), np.int64)
    np.add.at(totals, [number[group] for group in groups], np.stack([values, np.ones_like(values)], axis=1))
    return totals


def _drawn(totals: NDArray[np.int64], level: float, num: int, seed: int) -> tuple[float, float]:
    """Return the expanded percentiles of the ratio of both totals over groups drawn with replacement."""
    num_groups = len(totals)
    tail = 1 - _upper_tail(level)
    if num_groups > 1:
        tail = NormalDist().cdf(-math.sqrt(num_groups / (num_groups - 1)) * t_quantile(num_groups - 1, level))
    # Groups with equal totals are interchangeable: drawing how often each kind occurs is the same, and much less work.
    kinds, counts = np.unique(totals, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    ratios = np.empty(num)
    for start in range(0, num, step := max(1, _DRAWS_AT_ONCE // len(kinds))):
        drawn = generator.multinomial(num_groups, counts / num_groups, size=min(step, num - start)) @ kinds
        ratios[start : start + step] = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)


def _upper_tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    return (1 + level) / 2
