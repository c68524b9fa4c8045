import pytest

from saccade.data.digits import DigitsConfig
from saccade.reproduce import pace
from saccade.reproduce.pace import Pace, measure, steps_within
from saccade.train import TrainConfig

SHARING = [Pace(0.5, 0.7), Pace(1.0, 0.65), Pace(1.5, 0.65)]


def test_testing_takes_its_part_of_the_time():
    # 120 processor seconds, of which tests take 0.5 * 20 + 1.0 * 10 + 1.5 * 10 = 35; a step of each model takes 3.
    assert steps_within(60, SHARING, [20, 10, 10], at_once=3) == 28


def test_the_slowest_model_bounds_all_however_many_cores_there_are():
    alone = [Pace(0.1, 1.0), Pace(1.5, 1.0), Pace(0.1, 1.0)]
    assert steps_within(60, alone, [0, 0, 0], at_once=3) == 40
    assert steps_within(60, alone, [0, 10, 0], at_once=3) == 30


def test_models_that_take_turns_share_the_time():
    # Each had both cores to itself while it was timed.
    assert steps_within(60, [Pace(0.5, 2.0), Pace(1.5, 2.0)], [0, 0], at_once=1) == 60


@pytest.mark.parametrize("seconds", [0.1, 0.0, -5.0])
def test_there_is_always_a_step(seconds):
    assert steps_within(seconds, SHARING, [0, 0, 0], at_once=3) == 1


def test_steps_are_timed_half_of_them_on_short_clips(monkeypatch):
    monkeypatch.setattr(pace, "WINDOW_S", 0.0)
    rows = []
    digits = DigitsConfig("uci", num_frames=6)
    found = measure((TrainConfig(batch_size=2, precision="float32"), digits), rows.append)
    assert len(rows) == 4
    assert found.work_s > 0
    assert found.cores > 0
