"""The model card of a push: what it tells, and that it shows names of others as text."""

import dataclasses
import json

import pytest
import yaml

from saccade import checkpoint
from saccade.errors import DataError, UsageError
from saccade.hub import push
from saccade.labels import Labels

from .conftest import HEADER
from .server import GOOD_TOKEN

# Uploads of huggingface_hub call httpx2 as it was called before.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def card_of(hub, name):
    text = hub.repositories[name].commits[hub.repositories[name].main]["README.md"].decode()
    _, fields, body = text.split("---\n", 2)
    return yaml.safe_load(fields), body


def test_the_card_says_what_the_model_is_and_how_accurate_it_was(hub, run):
    push(run, "somebody/card", token=GOOD_TOKEN, license="apache-2.0")
    fields, body = card_of(hub, "somebody/card")
    assert fields == {
        "library_name": "saccade",
        "pipeline_tag": "video-classification",
        "tags": ["saccade", "lenet-lstm"],
        "license": "apache-2.0",
    }
    assert "| validation clips, which the model did not learn from | 75.0 % | 4 |" in body
    assert r"| 1 | \<b\>clap\</b\> |" in body
    assert r"| 2 | jump\|high |" in body
    assert "| rate | 10 frames per second |" in body
    assert "| seed | 3 |" in body
    assert "saccade predict CLIP.mp4 --model hf://somebody/card" in body
    assert "/of-somebody" not in body


def test_a_card_without_a_record_or_licence_claims_none(hub, run, tmp_path):
    path = tmp_path / "alone.safetensors"
    path.write_bytes((run / checkpoint.NAME).read_bytes())
    push(path, "somebody/alone", token=GOOD_TOKEN)
    fields, body = card_of(hub, "somebody/alone")
    assert "license" not in fields
    assert "No figure is recorded" in body
    assert "%" not in body
    with pytest.raises(UsageError, match="no identifier of a licence"):
        push(path, "somebody/alone", token=GOOD_TOKEN, license="mine\ntags: []")


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ("fold,class,verdict\n0,a,a\n1,a,b\n", "each by one of 2 models that had not learned from it"),
        ("fold,class\n0,a\n", "lacks one of fold, class, verdict"),
    ],
)
def test_verdicts_of_folds_are_told_as_such_and_damaged_ones_refused(hub, run, tmp_path, verdicts, said):
    (tmp_path / checkpoint.NAME).write_bytes((run / checkpoint.NAME).read_bytes())
    (tmp_path / "tested.csv").write_text(verdicts)
    if said.startswith("lacks"):
        with pytest.raises(DataError, match=said):
            push(tmp_path, "somebody/folds", token=GOOD_TOKEN)
    else:
        push(tmp_path, "somebody/folds", token=GOOD_TOKEN)
        assert said in card_of(hub, "somebody/folds")[1]


def test_a_card_shows_any_class_name_as_text_and_says_that_there_are_none(hub, tmp_path):
    odd = ("a\udcff", "| - x", "new\nline", "{0}", "]]>")
    for labels, said in (
        (Labels(odd), r"| 1 | \| - x |"),
        (None, "does not say what its classes are"),
        (Labels(("a",)), "for 1 class."),
    ):
        header = dataclasses.replace(HEADER, labels=labels)
        checkpoint.save(tmp_path / checkpoint.NAME, header.create_model(), header)
        push(tmp_path, "somebody/odd-names", token=GOOD_TOKEN)
        held = hub.repositories["somebody/odd-names"].commits[hub.repositories["somebody/odd-names"].main]
        described = json.loads(held["checkpoint.json"])["labels"]
        assert described == (labels and labels.as_json() | {"names": list(labels.names)})
        assert said in card_of(hub, "somebody/odd-names")[1]


def test_a_damaged_record_of_the_validation_is_refused(hub, tmp_path):
    for record in ({"accuracy": "high", "num_clips": 4}, [1]):
        header = dataclasses.replace(HEADER, training={"validation": record})
        checkpoint.save(tmp_path / checkpoint.NAME, header.create_model(), header)
        with pytest.raises(DataError, match=r"damaged record of its validation"):
            push(tmp_path, "somebody/record", token=GOOD_TOKEN)
    assert not hub.requests
