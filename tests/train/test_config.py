import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from saccade.errors import UsageError
from saccade.models import VideoClassifier
from saccade.train import TrainConfig


def test_it_is_flat_and_frozen():
    config = TrainConfig()
    with pytest.raises(AttributeError):
        config.seed = 1
    assert all(f.type.split(" | ")[0] in {"str", "int", "float", "Path"} for f in fields(config))


def test_it_goes_through_json():
    config = TrainConfig(data_dir=Path("a b"), start_from=Path("c"), minutes=1.5)
    came = json.loads(json.dumps(config.as_json()))
    assert came == config.as_json()
    assert came["data_dir"] == "a b"
    assert TrainConfig(**came | {"data_dir": Path("a b"), "start_from": Path("c")}) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3, "minutes": 1.0}, "both --steps and --minutes"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"steps": -2}, "steps must be at least 1; got -2"),
        ({"minutes": 0.0}, "minutes must be above 0"),
        ({"minutes": math.nan}, "minutes must be above 0"),
        ({"minutes": math.inf}, "minutes must be above 0"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"num_frames": 0}, "num_frames must be above 0"),
        ({"frames_per_setting": 0}, "frames_per_setting must be above 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"attention_rate": -0.1}, "attention_rate must"),
        ({"weight_decay": -1.0}, "weight_decay must"),
        ({"short_fraction": 1.5}, "short_fraction must lie in 0 to 1"),
        ({"short_fraction": math.nan}, "short_fraction must lie in 0 to 1"),
        ({"angle": 200.0}, "max_angle_deg|angle must lie in"),
        ({"condition": "rotated"}, "did you mean 'rotation'"),
        ({"labels": "pairs"}, "did you mean 'pair'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(("labels", "num_classes"), [("pair", 55), ("ordered", 100), ("digits", 10)])
@pytest.mark.parametrize("model", ["lenet-lstm", "stn-lstm", "dcn-lstm"])
def test_the_model_has_a_logit_for_every_class(labels, num_classes, model):
    config = TrainConfig(model=model, labels=labels)
    assert config.model_arguments()["num_classes"] == num_classes
    assert isinstance(config.create_model(), VideoClassifier)


def test_short_clips_have_four_frames_that_all_differ():
    config = TrainConfig(num_frames=20, frames_per_setting=5)
    assert (config.motion().num_frames, config.motion().num_settings) == (20, 4)
    short = config.motion(short=True)
    assert (short.num_frames, short.num_settings) == (4, 4)
    assert replace(config, num_frames=3).motion(short=True).num_frames == 3


def test_short_clips_come_from_one_digit_to_all_of_them_with_all_that_disturbs(uci):
    config = TrainConfig(digits="uci", labels="digits", num_digits=(1, 5), clutter=4, noise=20.0)
    stages = config.short_clips(uci["train"])
    assert [clips.num_digits_range for clips in stages] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    assert [clips.motion.clutter for clips in stages] == [0, 1, 2, 3, 4]
    assert [clips.motion.noise for clips in stages] == [0.0, 5.0, 10.0, 15.0, 20.0]
    (only,) = TrainConfig(digits="uci", clutter=4, noise=20.0).short_clips(uci["train"])
    assert (only.num_digits_range, only.motion.clutter, only.motion.noise) == ((2, 2), 4, 20.0)


def test_clips_are_of_the_training_digits(uci):
    config = TrainConfig(digits="uci", labels="ordered", seed=7, angle=30.0, condition="rotation")
    clips = config.clips(config.load_digits("train"))
    assert (clips.split, clips.source, clips.seed, clips.labels.name) == ("train", "uci", 7, "ordered")
    assert clips.motion.max_angle_deg == 30.0
    assert config.load_digits("validation").split == "validation"
