"""The three stages of the published protocol, most of them with a CNN small enough for a test."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import checkpoint
from saccade.data.digits import Digits, DigitSourceConfig, Motion, MovingDigits
from saccade.data.digits import sources as digit_sources
from saccade.errors import DataError, Interrupted, NonFiniteError, UsageError
from saccade.models.published import CNNS, lenet_cnn
from saccade.published import PublishedConfig, run
from saccade.published.digit_batches import DigitBatches, steps_per_epoch
from saccade.published.run import extract
from saccade.published.stage1 import Limits, accuracy_on, logits_of, start, train_cnn
from saccade.train import loop
from saccade.train.trainer import Trainer

from .small import small_cnn

NAME = "lenet-lstm-published"
RUN = sys.modules["saccade.published.run"]


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch, uci: dict[str, Digits]) -> None:
    monkeypatch.setitem(CNNS, NAME, small_cnn)
    monkeypatch.setattr(RUN, "NUM_CLIPS", 10)
    monkeypatch.setattr(DigitSourceConfig, "load", lambda _config, split: uci[split])


def new_training(digits: Digits, seed: int = 0, **options: Any) -> Trainer:
    return start(NAME, digits, seed=seed, **options)


def weights_of(training: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])


@pytest.fixture
def seen_digits(uci: dict[str, Digits]) -> Digits:
    return uci["train"]


@pytest.fixture
def unseen_digits(uci: dict[str, Digits]) -> Digits:
    return uci["test"]


# --- stage 1


def test_stage_1_learns(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    training = new_training(seen_digits)
    before = accuracy_on(training, unseen_digits)
    accuracy = train_cnn(training, Limits(epochs=3), unseen_digits, tmp_path)
    assert training.step == 3 * steps_per_epoch(seen_digits)
    assert accuracy == accuracy_on(training, unseen_digits)
    assert accuracy > before + 0.1


def test_resuming_gives_the_same_bits(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    whole = new_training(seen_digits)
    reached = train_cnn(whole, Limits(max_steps=12), unseen_digits, tmp_path / "whole")
    for max_steps in (5, 12):
        parts = new_training(seen_digits)
        accuracy = train_cnn(parts, Limits(max_steps=max_steps), unseen_digits, tmp_path / "parts")
    assert torch.equal(weights_of(whole), weights_of(parts))
    assert (whole.step, reached) == (parts.step, accuracy)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_ctrl_c_saves_a_whole_step(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    limits = Limits(max_steps=12)

    def press(row: dict[str, float]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 5"):
        train_cnn(new_training(seen_digits), limits, unseen_digits, tmp_path / "stopped", progress=press)
    resumed = new_training(seen_digits)
    rows: list[dict[str, float]] = []
    train_cnn(resumed, limits, unseen_digits, tmp_path / "stopped", progress=rows.append)
    assert [row["step"] for row in rows] == list(range(6, 13))
    last = json.loads((tmp_path / "stopped" / "log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["num_steps"]) == (12, 12)

    whole = new_training(seen_digits)
    train_cnn(whole, limits, unseen_digits, tmp_path / "whole")
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_a_finished_stage_is_not_trained_again(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    limits = Limits(max_steps=3)
    first = new_training(seen_digits)
    reached = train_cnn(first, limits, unseen_digits, tmp_path)
    written = (tmp_path / checkpoint.NAME).stat().st_mtime_ns
    again = new_training(seen_digits)
    assert train_cnn(again, limits, unseen_digits, tmp_path) == reached
    assert (tmp_path / checkpoint.NAME).stat().st_mtime_ns == written
    assert torch.equal(weights_of(first), weights_of(again))
    assert again.step == first.step


def test_minutes_fix_the_number_of_steps_once(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    limits = Limits(epochs=100, minutes=0.01)
    planned: list[float] = []

    def press(row: dict[str, float]) -> None:
        planned.append(row["num_steps"])
        if row["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train_cnn(new_training(seen_digits), limits, unseen_digits, tmp_path, progress=press)
    assert 5 <= planned[0] < 100 * steps_per_epoch(seen_digits)
    assert len(set(planned)) == 1
    resumed = new_training(seen_digits)
    train_cnn(resumed, limits, unseen_digits, tmp_path)
    assert resumed.step == planned[0]
    # Timing left no trace in the weights.
    whole = new_training(seen_digits)
    train_cnn(whole, Limits(max_steps=int(planned[0])), unseen_digits, tmp_path / "whole")
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    seen_digits: Digits, unseen_digits: Digits, tmp_path: Path
) -> None:
    train_cnn(new_training(seen_digits), Limits(max_steps=3), unseen_digits, tmp_path)
    good = (tmp_path / checkpoint.NAME).read_bytes()
    training = new_training(seen_digits)

    def spoil(row: dict[str, float]) -> None:
        training.model.logits.bias.data[0] = float("nan")  # type: ignore[union-attr, operator, index]

    with pytest.raises(NonFiniteError, match="loss is not finite at step 4"):
        train_cnn(training, Limits(max_steps=6), unseen_digits, tmp_path, progress=spoil)
    assert (tmp_path / checkpoint.NAME).read_bytes() == good


def test_refuses_a_checkpoint_of_another_run(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    three = Limits(max_steps=3)
    train_cnn(new_training(seen_digits), three, unseen_digits, tmp_path)
    others = Digits(seen_digits.images, seen_digits.labels, "mnist", "train")
    for other, message in (
        (new_training(seen_digits, seed=1), "made with seed=0, now seed=1"),
        (new_training(others), "made with digits=uci, now digits=mnist"),
        (start("stn-lstm-published", seen_digits, seed=0), "made with model=lenet-cnn-published, now model=stn-cnn"),
    ):
        with pytest.raises(UsageError, match=message):
            train_cnn(other, three, unseen_digits, tmp_path)
    with pytest.raises(UsageError, match="at step 3, but the limit is 2"):
        train_cnn(new_training(seen_digits), Limits(max_steps=2), unseen_digits, tmp_path)
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError):
        train_cnn(new_training(seen_digits), three, unseen_digits, tmp_path)


def test_bfloat16_stays_close_to_float32(seen_digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CNNS, NAME, lenet_cnn)
    frames = DigitBatches(seen_digits, 0)(0, 1).frames[:8]
    exact, rounded = (
        logits_of(new_training(seen_digits, dtype=dtype), frames) for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


# --- all three


def small_config(**changes: object) -> PublishedConfig:
    fixed: dict[str, object] = {
        "source": DigitSourceConfig("uci"),
        "max_steps": 4,
        "retrainings": 2,
        "device": "cpu",
        "precision": "float32",
    }
    return PublishedConfig(**(fixed | changes))  # type: ignore[arg-type]


def file_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_cells_share_stage_1_and_the_training_features(tmp_path: Path) -> None:
    shared = run(small_config(instances="shared"), tmp_path)
    assert {name: shared[name] for name in ("model", "protocol", "condition", "digits", "instances")} == {
        "model": "lenet-lstm-published",
        "protocol": "published",
        "condition": "normal",
        "digits": "uci",
        "instances": "shared",
    }
    assert (shared["labels"], shared["order"], shared["seed"], shared["num_clips"]) == ("ordered", "visible", 0, 10)
    assert (shared["stage1_steps"], shared["retrainings"]) == (4, 2)
    assert 0 <= shared["accuracy"] <= 1
    assert shared["cross_entropy"] > 0
    before = file_times(tmp_path)
    assert set(before) == {
        "checkpoint.safetensors",
        "features-normal-visible-train-test.safetensors",
        "features-normal-visible-train-train.safetensors",
    }

    disjoint = run(small_config(instances="disjoint"), tmp_path)
    assert disjoint["stage1_accuracy"] == shared["stage1_accuracy"]
    assert disjoint["cross_entropy"] != shared["cross_entropy"]
    after = file_times(tmp_path)
    assert after.keys() - before.keys() == {"features-normal-visible-test-test.safetensors"}
    assert all(after[name] == time for name, time in before.items())
    assert run(small_config(instances="disjoint"), tmp_path) == disjoint


def test_tested_on_its_training_clips_a_model_says_what_it_learned_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUN, "NUM_CLIPS", 100)
    by_heart = run(small_config(instances="training_clips", retrainings=5), tmp_path)
    other_trajectories = run(small_config(instances="shared", retrainings=5), tmp_path)
    assert by_heart["accuracy"] > 2 * other_trajectories["accuracy"]
    assert by_heart["cross_entropy"] < other_trajectories["cross_entropy"]


def test_features_are_made_anew_where_they_are_stale_or_damaged(tmp_path: Path) -> None:
    row = run(small_config(), tmp_path)
    [path] = tmp_path.rglob("features-*-train-train.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert run(small_config(), tmp_path) == row
    longer = run(small_config(max_steps=8), tmp_path)
    assert longer["stage1_steps"] == 8
    assert longer["cross_entropy"] != row["cross_entropy"]


def test_features_are_those_of_the_frames(seen_digits: Digits) -> None:
    training = new_training(seen_digits)
    clips = MovingDigits(seen_digits, Motion("rotation"), labels="ordered", num_clips=3)
    found = extract(training, clips)
    assert found["labels"].tolist() == [0, 1, 2]
    frames = clips.batch(torch.tensor([2])).frames[0]
    torch.testing.assert_close(found["features"][2], training.model.features(frames).detach())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet-lstm"}, "no model is called 'lenet-lstm'; did you mean 'lenet-lstm-published'"),
        ({"condition": "rotating"}, "no condition is called 'rotating'"),
        ({"instances": "training"}, "no instances is called 'training'; did you mean 'training_clips'"),
        ({"order": "visibl"}, "did you mean 'visible'"),
        ({"retrainings": 0}, "retrainings must be above 0"),
        ({"seed": -1}, "seed must be 0 or above"),
    ],
)
def test_refuses_configurations_that_mean_nothing(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_config(**changes)


@pytest.mark.slow
def test_lenet_learns_mnist(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CNNS, NAME, lenet_cnn)
    digits = digit_sources.load("mnist", "train", digits_dir=mnist_folder, download=False)
    training = new_training(digits)
    for training.num_steps in range(1, 301):
        loop.advance(training)
    assert accuracy_on(training, digit_sources.load("mnist", "validation", digits_dir=mnist_folder)) > 0.8
