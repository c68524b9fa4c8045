import math

import numpy as np
import pytest
from scipy import stats

from saccade.intervals import bootstrap_interval, paired_difference, t_interval, wilson_interval


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "num", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_the_published_one(successes, num, low, high):
    assert wilson_interval(successes, num) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "num"), [(1, 10), (37, 50), (1990, 2000)])
def test_wilson_bounds_solve_the_score_equation(successes, num, level):
    z = stats.norm.ppf((1 + level) / 2)
    for bound in wilson_interval(successes, num, level):
        assert abs(successes / num - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / num))


def test_wilson_mirrors_and_stays_within_zero_and_one():
    low, high = wilson_interval(7, 9)
    assert wilson_interval(2, 9) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(9, 9)[1] == 1.0
    assert wilson_interval(0, 9)[0] == 0.0
    assert 0 < wilson_interval(9, 9)[0] < 1


@pytest.mark.parametrize(("successes", "num"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_count(successes, num):
    with pytest.raises(ValueError, match="at least 1 trial"):
        wilson_interval(successes, num)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_fraction(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        wilson_interval(1, 2, level)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        t_interval([0.1, 0.2], level)


@pytest.mark.parametrize(("values", "quantile"), [([1.0, 2.0, 3.0], 4.303), ([1.0, 2.0, 3.0, 4.0, 5.0], 2.776)])
def test_t_takes_the_quantile_of_the_tables(values, quantile):
    low, high = t_interval(values)
    assert (low + high) / 2 == pytest.approx(sum(values) / len(values))
    spread = math.sqrt(sum((v - 3) ** 2 for v in values) / 4) if len(values) == 5 else 1.0
    assert (high - low) / 2 == pytest.approx(quantile * spread / math.sqrt(len(values)), rel=2e-4)


def test_scipy_agrees_on_t():
    values = [0.912, 0.934, 0.921, 0.95]
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert t_interval(values, 0.9) == pytest.approx((wanted.low, wanted.high))


def test_t_needs_two_values():
    with pytest.raises(ValueError, match="at least 2 values; got 1"):
        t_interval([0.5])


def test_bootstrap_over_clips_is_close_to_wilson():
    right = [True] * 210 + [False] * 90
    assert bootstrap_interval(right) == pytest.approx(wilson_interval(210, 300), abs=0.01)


def test_groups_that_agree_within_widen_the_interval():
    right = np.repeat([True, True, True, False, True, False, True, True], 25)
    low, high = bootstrap_interval(right)
    low_groups, high_groups = bootstrap_interval(right, np.repeat(np.arange(8), 25).tolist())
    assert high_groups - low_groups > 2 * (high - low)


@pytest.mark.parametrize("num_groups", [10, 200])
def test_bootstrap_covers_the_accuracy_of_new_groups(num_groups):
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(num_groups), 10).tolist()
    covered = 0
    for _ in range(200):
        shares = generator.beta(8, 2, num_groups)  # the accuracy differs between groups; 0.8 over all
        low, high = bootstrap_interval(generator.random(len(groups)) < np.repeat(shares, 10), groups, num=500)
        covered += low <= 0.8 <= high
    assert covered >= 180


def test_bootstrap_draws_whole_groups():
    """Two groups of different sizes are drawn twice: both, or one of them alone."""
    assert bootstrap_interval([True] * 3 + [False], ["a", "a", "a", "b"]) == (0.0, 1.0)


def test_bootstrap_is_a_function_of_the_seed_and_not_of_names_or_order():
    generator = np.random.default_rng(0)
    right, groups = generator.random(200) < 0.7, generator.integers(20, size=200)
    found = bootstrap_interval(right, groups.tolist(), num=1000)
    assert bootstrap_interval(right, groups.tolist(), num=1000) == found
    assert bootstrap_interval(right[::-1], [f"person {group}" for group in groups[::-1]], num=1000) == found
    assert bootstrap_interval(right, groups.tolist(), num=1000, seed=1) != found


def test_bootstrap_in_blocks_is_the_bootstrap():
    """Many groups of different sizes need several blocks of draws."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(1500), np.arange(1500) % 60 + 1)
    right = generator.random(len(groups)) < 0.5
    low, high = bootstrap_interval(right, groups.tolist(), num=4000)
    assert low < right.mean() < high
    assert (low, high) == pytest.approx(wilson_interval(right.sum(), len(right)), abs=0.003)


@pytest.mark.parametrize("groups", [None, [0, 0, 0, 1, 1, 1]])
@pytest.mark.parametrize("value", [True, False])
def test_without_variation_the_interval_is_wilsons_over_groups(value, groups):
    num = 6 if groups is None else 2
    assert bootstrap_interval([value] * 6, groups) == wilson_interval(num * value, num)


def test_one_group_says_little():
    low, high = bootstrap_interval([True] * 80 + [False] * 20, ["ann"] * 100)
    assert low < 0.3
    assert high > 0.95


@pytest.mark.parametrize("call", [bootstrap_interval, lambda right, *groups: paired_difference(right, right, *groups)])
def test_bootstrap_refuses_what_is_no_clips(call):
    with pytest.raises(ValueError, match="at least 1 clip"):
        call([])
    with pytest.raises(ValueError, match="each of the 2 clips needs a group; got 1"):
        call([True, False], ["a"])


def test_a_paired_difference_is_narrower_than_two_intervals():
    generator = np.random.default_rng(0)
    b = generator.random(300) < 0.7
    a = b | (generator.random(300) < 0.15)  # A is right wherever B is
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert 0 < found.low < found.mean < found.high
    assert found.high - found.low < np.ptp(bootstrap_interval(a))


def test_a_paired_difference_changes_its_sign_with_the_order():
    generator = np.random.default_rng(0)
    a, b, groups = generator.random(90) < 0.8, generator.random(90) < 0.6, [clip // 9 for clip in range(90)]
    found, turned = paired_difference(a, b, groups), paired_difference(b, a, groups)
    assert turned.mean == -found.mean
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=0.02)


def test_equal_classifiers_may_still_differ_on_new_clips():
    right = [True, False] * 50
    found = paired_difference(right, right)
    assert found.mean == 0
    assert (found.low, found.high) == pytest.approx((-wilson_interval(0, 100)[1], wilson_interval(0, 100)[1]))


def test_a_paired_difference_needs_the_same_clips():
    with pytest.raises(ValueError, match="one has 2 clips, the other 3"):
        paired_difference([True, True], [True] * 3)
