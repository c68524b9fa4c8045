import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from saccade.errors import UsageError
from saccade.train import TrainConfig
from saccade.train.end_to_end import start

from .runs import DIGITS, MODELS


def test_it_is_flat_and_frozen():
    config = TrainConfig()
    with pytest.raises(AttributeError):
        config.seed = 1
    types = get_type_hints(TrainConfig).values()
    assert all(set(get_args(one) or [one]) <= {str, int, float, bool, Path, type(None)} for one in types)


def test_it_goes_through_json():
    config = TrainConfig(start_from=Path("a b"), minutes=1.5)
    came = json.loads(json.dumps(config.as_json()))
    assert came == config.as_json()
    assert came["start_from"] == "a b"
    assert TrainConfig(**came | {"start_from": Path("a b")}) == config


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
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"attention_rate": -0.1}, "attention_rate must"),
        ({"muon_rate": math.nan}, "muon_rate must"),
        ({"weight_decay": -1.0}, "weight_decay must"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1; got 1.0"),
        ({"ema": math.nan}, "ema must be at least 0"),
        ({"max_angle_deg": 181.0}, "max_angle_deg must lie in 0 to 180; got 181"),
        ({"max_angle_deg": math.nan}, "max_angle_deg must lie in"),
        ({"model": "dcn-lstm-published"}, "saccade reproduce --preset published"),
        ({"trunk": "resnet18", "attention": "multi-stn"}, "attention multi-stn needs a trunk for small crops"),
        ({"model": "stn-lstm", "num_glimpses": 2}, "num_glimpses=2 was given; only the attention multi-stn"),
        ({"model": "multi-stn-lstm", "num_glimpses": 5}, "num_glimpses must lie in 1 to 4; got 5"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(("scheme", "num_classes"), [("pair", 55), ("ordered", 100), ("digits", 10)])
@pytest.mark.parametrize("model", MODELS)
def test_the_model_has_a_logit_for_every_class(scheme, num_classes, model):
    trainer = start(TrainConfig(model=model), replace(DIGITS, scheme=scheme))
    assert len(trainer.model.labels.names) == num_classes
    batch = trainer.batches(0, 6)
    assert trainer.model(batch.frames[:2]).shape[-1] == num_classes
