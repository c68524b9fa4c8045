"""Training by steps for streams: joined clips, and the threshold of events that is chosen on validation clips."""

import json
import time
from dataclasses import asdict, replace
from statistics import median

import pytest
import torch

from saccade import checkpoint, cli, run_folder
from saccade.data import StoredClips, StoredData
from saccade.data.video_writing import write_mp4
from saccade.errors import Interrupted, UsageError
from saccade.evaluate import EvaluateConfig, evaluate_stream
from saccade.evaluate.streaming import joined_stream
from saccade.labels import MIN_CONFIDENCE, Labels
from saccade.models import VideoClassifier, efficientnet
from saccade.stream.joined import THRESHOLDS, best_threshold
from saccade.train import events, fixed_maps, loop, train
from saccade.train.end_to_end import start

from .runs import assert_same_bits, config_of, stop_at

LABELS = Labels(("bright", "dark", "none"), none="none")
FPS = 2.0


class Filmed(StoredData):
    """Clips in memory that were taken at a rate."""

    @property
    def frame_format(self):
        return replace(super().frame_format, fps=FPS)


def clips_of(num, *, seed, labels=LABELS, targets=None, channels=1):
    """Bright and dark events of 6 frames, and grey background of 12."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(num) % 3 if targets is None else targets
    frames = []
    for target in targets.tolist():
        size = (12 if target == 2 else 6, channels, 32, 32)
        frames.append((torch.randint(60, size, generator=generator) + (190, 0, 95)[target]).to(torch.uint8))
    return StoredClips(frames, targets, labels)


def data_of(*, labels=LABELS, validation=None, channels=1):
    held = clips_of(9, seed=2, labels=labels, channels=channels) if validation is None else validation
    parts = (clips_of(num, seed=seed, labels=labels, channels=channels) for num, seed in ((18, 0), (9, 1)))
    return Filmed(*parts, held, num_frames=6)


def run(out, data=None, **changes):
    said = []
    train(config_of(**{"input": "frames", "steps": 24} | changes), data or data_of(), out, say=said.append)
    return json.loads((out / run_folder.RUN).read_text()), said


# --- The threshold


def test_the_checkpoint_holds_the_threshold_that_is_best_in_a_stream_of_validation_clips(tmp_path, monkeypatch):
    monkeypatch.setattr("saccade.stream.joined.THRESHOLDS", (0.6, 0.95))  # another one than the standard
    described, said = run(tmp_path)
    model, header = checkpoint.load(tmp_path)
    stream = joined_stream(model, data_of().clips("validation"), LABELS, FPS)
    found = best_threshold([stream], LABELS, FPS)
    assert described["validation"]["events"] == asdict(found) == header.training["validation"]["events"]
    assert header.labels.min_confidence == model.labels.min_confidence == found.threshold != MIN_CONFIDENCE
    assert (found.num_events, 5 < found.minutes < 15) == (6, True)
    assert not any("the model is slow" in line for line in said)


def test_where_background_never_alarms_the_threshold_is_low_and_events_are_found(tmp_path):
    """These clips are told apart by one frame."""
    described, _ = run(tmp_path, steps=60)
    found = described["validation"]["events"]
    assert found["num_found"] == found["num_events"] == 6
    assert found["num_false"] <= found["minutes"]
    assert found["threshold"] < THRESHOLDS[-1]


def test_a_run_that_was_stopped_before_or_while_it_chose_chooses_the_same_threshold(tmp_path):
    whole, _ = run(tmp_path / "whole")

    def stop(line):
        if "is kept" in line:
            raise KeyboardInterrupt

    config = config_of(input="frames", steps=24)
    with pytest.raises(Interrupted):
        train(config, data_of(), tmp_path / "resumed", progress=stop_at(5))
    with pytest.raises(KeyboardInterrupt):
        train(config, data_of(), tmp_path / "resumed", resume=True, say=stop)
    torch.rand(3)
    train(config, data_of(), tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / run_folder.RUN).read_text())["validation"] == whole["validation"]
    labels = [checkpoint.read_header(tmp_path / name).labels for name in ("whole", "resumed")]
    assert labels[0].min_confidence == labels[1].min_confidence


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": replace(LABELS, none=None)},
        {"validation": clips_of(4, seed=2, targets=torch.tensor([0, 1, 0, 1]))},
        {"validation": clips_of(2, seed=2, targets=torch.tensor([2, 2]))},
    ],
)
def test_without_a_stream_the_threshold_is_the_standard_one(changes, tmp_path):
    described, _ = run(tmp_path, data_of(**changes), steps=2)
    assert "events" not in described["validation"]
    assert checkpoint.read_header(tmp_path).labels.min_confidence == MIN_CONFIDENCE


def test_without_a_frame_rate_no_minute_is_known(tmp_path):
    filmed = data_of()
    parts = (filmed.clips(split) for split in ("train", "test", "validation"))
    described, _ = run(tmp_path, StoredData(*parts, num_frames=6), steps=2)
    assert "events" not in described["validation"]


def test_a_slow_model_gets_a_shorter_stream_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MAX_SECONDS", 0.0)
    described, said = run(tmp_path, steps=2)
    found = described["validation"]["events"]
    assert found["num_events"] == 1
    assert found["minutes"] < 2
    assert (
        "the model is slow: the threshold of events is chosen on 1 events and 0.62 minutes of background in place of 10"
        in said
    )


def test_features_that_are_computed_once_do_not_shorten_the_stream(tmp_path, monkeypatch):
    """Its frames would take twice the longest time if each had features of its own."""
    features = VideoClassifier.features

    def slow(self, clips, state=None):
        time.sleep(0.01 * clips.shape[1])
        return features(self, clips, state)

    monkeypatch.setattr(VideoClassifier, "features", slow)
    monkeypatch.setattr(events, "MAX_SECONDS", 6.0)
    described, said = run(tmp_path, steps=2)
    assert described["validation"]["events"]["minutes"] > 6
    assert not any("the model is slow" in line for line in said)


def test_evaluate_measures_the_same_stream_at_the_threshold_of_the_checkpoint(tmp_path):
    described, _ = run(tmp_path)
    figures = evaluate_stream(EvaluateConfig(tmp_path, split="validation"), data_of())
    assert asdict(figures.at_threshold) == described["validation"]["events"]
    assert [found.threshold for found in figures.others] == list(THRESHOLDS)
    assert figures.background_s == 3 * 12 / FPS
    assert figures.background_min * 60 == pytest.approx(figures.at_threshold.minutes * 60 - 6 * 6 / FPS)
    alone = data_of(validation=clips_of(4, seed=2, targets=torch.tensor([0, 1, 0, 1])))
    with pytest.raises(UsageError, match="no validation clip has the class 'none'"):
        evaluate_stream(EvaluateConfig(tmp_path, split="validation"), alone)


# --- What is learned


def test_the_first_loss_counts_each_frame_for_what_happens_in_it():
    trainer = start(config_of(input="frames", augment=False), data_of())
    batch = trainer.batches(0, 6)
    assert len({tuple(set(row.tolist())) for row in batch.frame_targets}) > 2
    trainer.model.train()
    with torch.no_grad():
        logits = trainer.model(batch.frames, batch.lengths)
    own = []
    for rows, classes in zip(logits.log_softmax(-1), batch.frame_targets, strict=True):
        own.append(-torch.stack([row[name] for row, name in zip(rows, classes, strict=True) if name >= 0]).mean())
    trainer = start(config_of(input="frames", augment=False), data_of())
    trainer.num_steps = 6
    row = loop.advance(trainer)
    assert row["loss"] == pytest.approx(sum(own).item() / len(own), rel=1e-5)
    ends = [int(classes[classes >= 0][-1]) for classes in batch.frame_targets]
    right = [
        int(rows[length - 1].argmax()) == end
        for rows, length, end in zip(logits, batch.lengths.tolist(), ends, strict=True)
    ]
    assert row["accuracy"] == sum(right) / len(right)


def test_clips_of_which_none_means_nothing_come_as_before():
    data = data_of(labels=replace(LABELS, none=None))
    trainer = start(config_of(input="frames"), data)
    assert trainer.batches.background is None
    assert trainer.batches(0, 6).frame_targets is None


@pytest.mark.parametrize("attention", ["none", "dcn"])
def test_maps_of_a_trunk_that_does_not_learn_are_joined_and_streamed(attention, tmp_path):
    torch.manual_seed(5)
    weights = tmp_path / "lite0.pth"
    torch.save(efficientnet.EfficientNetLite0().state_dict(), weights)
    data = data_of(channels=3)
    config = config_of(
        trunk="efficientnet-lite0", attention=attention, temporal="gru", steps=2, batch_size=4, start_from=weights
    )
    trainer = start(config, data)
    fixed_maps.use_maps(trainer, None, lambda _line: None)
    batch = trainer.batches(0, 2)
    assert batch.frames.dtype == torch.float16
    assert batch.frames.shape[1] > 6
    assert {0, 2} <= set(batch.frame_targets.unique().tolist())
    train(config, data, tmp_path / "run")
    header = checkpoint.read_header(tmp_path / "run")
    found = header.training["validation"]["events"]
    assert header.labels.min_confidence == found["threshold"]
    assert (found["num_events"], 5 < found["minutes"] < 15) == (6, True)


def test_a_temporal_part_that_forgets_nothing_is_warned_of(tmp_path):
    for number, (temporal, labels) in enumerate(
        (("mean", LABELS), ("gru", LABELS), ("mean", replace(LABELS, none=None)))
    ):
        _, said = run(tmp_path / str(number), data_of(labels=labels), steps=1, temporal=temporal)
        assert any("mean averages all frames" in line for line in said) == (number == 0)


# --- The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of the three classes, each shown by the same six people."""
    root = tmp_path_factory.mktemp("own") / "my clips"
    clips = clips_of(18, seed=3, channels=3)
    for number, (frames, target) in enumerate(zip(clips.frames, clips.targets.tolist(), strict=True)):
        (root / LABELS.names[target]).mkdir(parents=True, exist_ok=True)
        write_mp4(root / LABELS.names[target] / f"clip_{number // 3:02d}_{number}.mp4", frames, 10.0)
    return root


WORDS = ["--group", r"_(\d+)_", "--model", "lenet-lstm", "--steps", "3", "--batch-size", "4", "--precision", "float32"]


@pytest.fixture(autouse=True)
def _without_pretrained(monkeypatch):
    """Leave out the rung of pretrained features, which takes most of the time."""
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)


def test_the_screen_says_how_events_are_found(folder, tmp_path, capsys):
    assert cli.main(["train", "--data", str(folder), *WORDS, "--out", str(tmp_path / "run")]) == 0
    found = checkpoint.read_header(tmp_path / "run").training["validation"]["events"]
    said = capsys.readouterr().err
    assert "as a stream, clips that were not learned joined by background: threshold" in said
    assert f"{found['num_found']} of {found['num_events']} events found" in said


def test_the_model_of_all_clips_has_the_median_threshold_of_the_folds(folder, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "--data", str(folder), "--folds", "3", *WORDS, "--out", str(out)]
    folds_of = [out / f"fold-{number}" for number in range(1, 4)]
    assert cli.main(words) == 0
    chosen = [run_folder.read(fold)["validation"]["events"]["threshold"] for fold in folds_of]
    assert [checkpoint.read_header(fold).labels.min_confidence for fold in folds_of] == chosen
    assert checkpoint.read_header(out).labels.min_confidence == median(chosen) == run_folder.read(out)["threshold"]
    # Short trainings choose the same threshold in all folds; so the final model is made again, after others.
    for fold, threshold in zip(folds_of, (0.9, 0.35, 0.4), strict=True):
        validation = run_folder.read(fold)["validation"]
        run_folder.update(fold, validation=validation | {"events": validation["events"] | {"threshold": threshold}})
    run_folder.update(out, finished=False)
    assert cli.main(["train", "--resume", "--out", str(out)]) == 0
    assert checkpoint.read_header(out).labels.min_confidence == run_folder.read(out)["threshold"] == 0.4
    assert "the threshold 0.4 and the temperature" in capsys.readouterr().err
