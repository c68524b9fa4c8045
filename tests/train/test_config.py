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
    assert all(f.type.split(" | ")[0] in {"str", "int", "float", "Path", "tuple[str, ...]"} for f in fields(config))


def test_it_goes_through_json():
    config = TrainConfig(data_dir=Path("a b"), start_from=Path("c"), minutes=1.5)
    came = json.loads(json.dumps(config.as_json()))
    assert came == config.as_json()
    assert came["data_dir"] == "a b"
    read = {"data_dir": Path("a b"), "start_from": Path("c"), "condition": tuple(came["condition"])}
    assert TrainConfig(**came | read) == config


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
        ({"condition": ("normal", "rotated")}, "did you mean 'rotation'"),
        ({"condition": ()}, "no condition was given; name at least one of normal, rotation"),
        ({"ema": 1.0}, "ema must lie in 0 to 1, below 1; got 1.0"),
        ({"ema": math.nan}, "ema must lie in 0 to 1"),
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
    (long,), (short,) = config.motions(), config.motions(short=True)
    assert (long.num_frames, long.num_settings) == (20, 4)
    assert (short.num_frames, short.num_settings) == (4, 4)
    assert replace(config, num_frames=3).motions(short=True)[0].num_frames == 3


def test_short_clips_come_from_one_digit_to_all_of_them_with_all_that_disturbs(uci):
    config = TrainConfig(digits="uci", labels="digits", num_digits=(1, 5), clutter=4, noise=20.0)
    stages = config.short_clips(uci["train"])
    parts = [part for mixture in stages for part in mixture.parts]
    assert [clips.num_digits_range for clips in parts] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    assert [clips.motion.clutter for clips in parts] == [0, 1, 2, 3, 4]
    assert [clips.motion.noise for clips in parts] == [0.0, 5.0, 10.0, 15.0, 20.0]
    (mixture,) = TrainConfig(digits="uci", clutter=4, noise=20.0).short_clips(uci["train"])
    (only,) = mixture.parts
    assert (only.num_digits_range, only.motion.clutter, only.motion.noise) == ((2, 2), 4, 20.0)


def test_clips_are_of_the_training_digits(uci):
    config = TrainConfig(digits="uci", labels="ordered", seed=7, angle=30.0, condition="rotation")
    mixture = config.clips(config.load_digits("train"))
    (clips,) = mixture.parts
    assert (clips.split, clips.source, clips.seed, clips.labels.name) == ("train", "uci", 7, "ordered")
    assert clips.motion.max_angle_deg == 30.0
    assert config.load_digits("validation").split == "validation"


def test_a_mixture_is_of_the_conditions_that_are_named_as_often_as_they_are(uci):
    config = TrainConfig(digits="uci", condition=("normal", "rotation", "rotation"), angle=30.0)
    for mixture in (config.clips(uci["train"]), *config.short_clips(uci["train"])):
        assert mixture.conditions == ("normal", "rotation", "rotation")
        assert {part.motion.max_angle_deg for part in mixture.parts} == {30.0}
