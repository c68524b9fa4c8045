"""Which digit images each part of the experiment sees, told by their brightness: each split has one of its own."""

import sys
from dataclasses import replace

import pytest

from saccade.data.digits import TRAINING, DigitSourceConfig, MovingDigits
from saccade.evaluate import EvaluateConfig, each, standard_test
from saccade.models.published import CNNS
from saccade.published import PublishedConfig, stage1
from saccade.published import run as run_published
from saccade.published.digit_batches import DigitBatches
from saccade.reproduce import ReproduceConfig, reproduce
from saccade.train import TrainConfig, train

from ..published.small import small_cnn
from .runs import write_digits

# The last sixth of a folder's training images is its validation split.
GREY = {"train": 100, "validation": 160, "test": 250}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Squares of one brightness a split."""
    made = tmp_path_factory.mktemp("digits")
    write_digits(made, ([GREY["train"]] * 100 + [GREY["validation"]] * 20, [GREY["test"]] * 60))
    return made


@pytest.fixture
def seen(monkeypatch):
    """Collect the brightest pixel of each batch of clips."""
    brightest, generate = [], MovingDigits.batch

    def batch(clips, *arguments, **options):
        made = generate(clips, *arguments, **options)
        brightest.append(int(made.frames.max()))
        return made

    monkeypatch.setattr(MovingDigits, "batch", batch)
    return brightest


def digits_of(folder, **changes):
    return replace(TRAINING, **{"digits": str(folder), "num_frames": 6, "condition": ("normal",)} | changes)


@pytest.mark.parametrize("condition", [("normal",), ("normal", "rotation_scaling")])
def test_training_sees_training_digits_alone(folder, seen, condition, tmp_path):
    train(TrainConfig(steps=4, batch_size=2), digits_of(folder, condition=condition), tmp_path / "run")
    assert len(seen) >= 4
    assert set(seen) == {GREY["train"]}


@pytest.mark.parametrize(
    ("changes", "grey"),
    [({}, "test"), ({"split": "validation"}, "validation"), ({"instances": "shared"}, "train")],
)
def test_a_model_is_measured_on_the_digits_that_were_asked_for(folder, seen, changes, grey, tmp_path):
    train(TrainConfig(steps=1, batch_size=2), digits_of(folder), tmp_path / "run")
    seen.clear()
    given = {name: value for name, value in changes.items() if name != "split"}
    clips = standard_test(tmp_path / "run", num_clips=4, num_frames=2, **given)
    (result,) = each(EvaluateConfig(tmp_path / "run", split=changes.get("split", "test")), clips)
    assert set(seen) == {GREY[grey]}
    assert result.row["instances"] == changes.get("instances", "disjoint")


def test_a_reproduction_trains_on_training_digits_and_tests_on_test_digits(folder, seen, tmp_path):
    size = {"steps": 1, "seeds": 1, "num_clips": 4, "jobs": 1, "models": ("lenet-lstm",), "conditions": ("normal",)}
    reproduce(
        ReproduceConfig("full", tmp_path / "run", DigitSourceConfig(str(folder)), **size, trained_on=("condition",)),
        say=lambda _line: None,
    )
    assert GREY["validation"] not in seen
    # Pictures of test clips, then one training step, then the test.
    assert seen.count(GREY["train"]) == 1
    assert seen[-1] == GREY["test"]


def brightest(digits):
    return int(digits.images.max())


@pytest.mark.parametrize("instances", ["disjoint", "shared", "training_clips"])
def test_the_published_stages_see_what_they_should(folder, seen, instances, tmp_path, monkeypatch):
    monkeypatch.setitem(CNNS, "lenet-lstm-published", small_cnn)
    monkeypatch.setattr(sys.modules["saccade.published.run"], "NUM_CLIPS", 10)
    learned, measured = [], []
    draw, measure = DigitBatches.__call__, stage1.accuracy_on
    monkeypatch.setattr(
        DigitBatches, "__call__", lambda self, *at: (learned.append(brightest(self.digits)), draw(self, *at))[1]
    )
    monkeypatch.setattr(
        stage1, "accuracy_on", lambda trainer, digits: (measured.append(brightest(digits)), measure(trainer, digits))[1]
    )
    source = DigitSourceConfig(str(folder))
    run_published(
        PublishedConfig(source=source, max_steps=2, retrainings=1, device="cpu", instances=instances), tmp_path
    )
    assert set(learned) == {GREY["train"]}
    assert set(measured) == {GREY["test"]}
    clips = {"disjoint": {GREY["train"], GREY["test"]}}.get(instances, {GREY["train"]})
    assert set(seen) == clips
