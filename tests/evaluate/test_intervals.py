import math

import pytest
from scipy import stats

from saccade.errors import UsageError
from saccade.evaluate import interval, t_interval, wilson_interval

ROW = {
    "model": "lenet-lstm",
    "data": "moving digits",
    "protocol": "end_to_end",
    "condition": "normal",
    "digits": "mnist",
    "instances": "disjoint",
    "labels": "pair",
    "seed": 0,
    "accuracy": 0.9,
    "cross_entropy": 0.4,
    "num_clips": 100,
}


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


def test_one_seed_gets_wilson_over_clips():
    found = interval([ROW])
    assert found.label == "Wilson, 100 clips"
    assert (found.low, found.high) == wilson_interval(90, 100)


def test_two_seeds_get_wilson_over_the_clips_of_one_run():
    found = interval([ROW | {"seed": 0, "accuracy": 0.8}, ROW | {"seed": 1, "accuracy": 0.9}])
    assert found.label == "Wilson, 100 clips"
    assert found[:2] == pytest.approx(wilson_interval(85, 100))


def test_three_seeds_get_t_over_seeds():
    rows = [ROW | {"seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate((0.90, 0.92, 0.91))]
    found = interval(rows)
    assert found.label == "t, 3 seeds"
    assert found[:2] == pytest.approx(t_interval([0.90, 0.92, 0.91]))


def test_retrainings_of_one_cnn_are_one_seed():
    retrainings = [ROW | {"accuracy": accuracy} for accuracy in (0.8, 0.9, 1.0)]
    assert interval(retrainings).label == "Wilson, 100 clips"
    seeds = [row | {"seed": seed} for seed in range(3) for row in retrainings]
    assert interval(seeds)[:2] == pytest.approx((0.9, 0.9))


def test_intervals_of_accuracies_stay_within_zero_and_one():
    found = interval([ROW | {"seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate((1.0, 1.0, 0.7))])
    assert 0 <= found.low < found.high == 1.0


def test_rows_of_several_cells_are_refused():
    with pytest.raises(UsageError, match="condition normal and rotation"):
        interval([ROW, ROW | {"condition": "rotation"}])
    with pytest.raises(UsageError, match="at least 1 row"):
        interval([])
