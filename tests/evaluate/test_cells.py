import pytest

from saccade.errors import UsageError
from saccade.evaluate import interval
from saccade.intervals import t_interval, wilson_interval

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
