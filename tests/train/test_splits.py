"""Which digit images each part of the experiment sees, told by their brightness: each split has one of its own."""

import struct

import numpy as np
import pytest
import torch

from saccade.data import MovingDigits
from saccade.evaluate import EvaluateConfig, each
from saccade.reproduce import ReproduceConfig, reproduce
from saccade.train import TrainConfig, digit_batches, published_cnn, train
from saccade.train.loop import start
from saccade.train.published import PublishedConfig
from saccade.train.published import run as run_published

# The last sixth of a folder's training images is its validation split.
GREY = {"train": 100, "validation": 160, "test": 250}


def idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Squares of one brightness a split."""
    made = tmp_path_factory.mktemp("digits")
    for prefix, splits in (("train", ["train"] * 100 + ["validation"] * 20), ("t10k", ["test"] * 60)):
        images = np.zeros((len(splits), 28, 28), np.uint8)
        images[:, 8:20, 8:20] = np.array([GREY[split] for split in splits], np.uint8)[:, None, None]
        (made / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (made / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(len(splits), dtype=np.uint8) % 10))
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


def config_of(folder, **changes):
    standard = {"digits": str(folder), "steps": 4, "batch_size": 2, "num_frames": 6, "condition": ("normal",)}
    return TrainConfig(**standard | changes)


@pytest.mark.parametrize("condition", [("normal",), ("normal", "rotation_scaling")])
def test_training_sees_training_digits_alone(folder, seen, condition, tmp_path):
    train(config_of(folder, condition=condition), tmp_path / "run")
    assert len(seen) >= 4
    assert set(seen) == {GREY["train"]}


def test_a_trainer_holds_training_digits(folder):
    trainer = start(config_of(folder))
    for clips in (trainer.long, *trainer.short):
        assert int(clips.batch(torch.arange(4)).frames.max()) == GREY["train"]


@pytest.mark.parametrize(
    ("changes", "grey"),
    [({}, "test"), ({"split": "validation"}, "validation"), ({"instances": "shared"}, "train")],
)
def test_a_model_is_measured_on_the_digits_that_were_asked_for(folder, seen, changes, grey, tmp_path):
    train(config_of(folder, steps=1), tmp_path / "run")
    seen.clear()
    (result,) = each(EvaluateConfig(tmp_path / "run", num_clips=4, num_frames=2, **changes))
    assert set(seen) == {GREY[grey]}
    assert result.row["instances"] == changes.get("instances", "disjoint")


def test_a_reproduction_trains_on_training_digits_and_tests_on_test_digits(folder, seen, tmp_path):
    size = {"steps": 1, "seeds": 1, "num_clips": 4, "jobs": 1, "models": ("lenet-lstm",), "conditions": ("normal",)}
    titles = []
    reproduce(
        ReproduceConfig("full", tmp_path / "run", str(folder), **size, trained_on=("condition",)),
        say=lambda _line: None,
        progress=lambda title: titles.append(len(seen)) or (lambda row: None),
    )
    assert GREY["validation"] not in seen
    # Pictures of test clips, then one training step, then the test.
    assert seen.count(GREY["train"]) == 1
    assert seen[-1] == GREY["test"]


@pytest.mark.parametrize("instances", ["disjoint", "shared", "training_clips"])
def test_the_published_stages_see_what_they_should(folder, seen, instances, tmp_path, monkeypatch):
    learned, measured = [], []
    make = digit_batches.digit_batch
    monkeypatch.setattr(
        published_cnn,
        "digit_batch",
        lambda digits, *where: learned.append(int(digits.images.max())) or make(digits, *where),
    )
    real = digit_batches.augment
    monkeypatch.setattr(
        published_cnn, "augment", lambda images, *draw: measured.append(int(images.max())) or real(images, *draw)
    )
    config = PublishedConfig(
        digits=str(folder), max_steps=2, retrainings=1, device="cpu", precision="float32", instances=instances
    )
    run_published(config, tmp_path)
    assert set(learned) == {GREY["train"]}
    assert set(measured) == {GREY["test"]}
    clips = {"disjoint": {GREY["train"], GREY["test"]}}.get(instances, {GREY["train"]})
    assert set(seen) == clips
