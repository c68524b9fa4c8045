"""Following a stream from Python: rates, gaps, and agreement with the prediction of a file."""

import json

import numpy as np
import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data.video import read_clip
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, NonFiniteError
from saccade.labels import Labels
from saccade.predict import PredictConfig, predict
from saccade.stream import Classifier

LABELS = Labels(("wave", "clap", "jump"), min_confidence=0.8)


def blotches():
    """Frames whose blotches change in size and brightness."""
    torch.manual_seed(1)
    drawn = []
    for number in range(24):
        small = torch.rand(1, 3, 3 + number, 4 + number) * (number % 7 + 1) / 7
        drawn.append(torch.nn.functional.interpolate(small, (48, 64))[0].permute(1, 2, 0))
    return (255 * torch.stack(drawn)).to(torch.uint8).numpy()


def save(path, **changes):
    """Write an untrained model whose verdicts change from frame to frame.

    Only the head is loud: a loud LSTM would make large differences of those that rounding makes.
    """
    torch.manual_seed(3)
    header = Header("lenet-lstm", **{"labels": LABELS, "frame_format": FrameFormat(3, fps=10)} | changes)
    model = header.create_model().eval()
    with torch.no_grad():
        model.head.weight.mul_(1000)
        clip = torch.from_numpy(blotches()).permute(0, 3, 1, 2)[None, :, : model.frame_format.channels]
        model.head.bias -= model(clip)[0].mean(0)
    checkpoint.save(path / checkpoint.NAME, model, header)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run"))


@pytest.fixture
def frames():
    return blotches()


def pushed(classifier, frames, fps):
    return [classifier.push(frame, number / fps) for number, frame in enumerate(frames)]


def test_pushed_frames_give_what_the_model_says_of_the_clip(run, frames):
    classifier = Classifier(run)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).unsqueeze(0)
    expected = LABELS.probabilities(classifier.model(clip)[0])
    said = torch.tensor([one.probabilities for one in pushed(classifier, frames, 10)])
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)
    assert len({one.verdict for one in pushed(Classifier(run), frames, 10)}) > 1  # or nothing was tested


@pytest.mark.parametrize("fps", [4, 10, 25, 60])
def test_frames_of_any_rate_reach_the_model_at_its_own_as_in_a_file(run, frames, tmp_path, fps):
    write_mp4(tmp_path / "clip.mp4", torch.from_numpy(frames).permute(0, 3, 1, 2), fps)
    clip = read_clip(tmp_path / "clip.mp4", num_channels=3)
    (predicted,) = predict(PredictConfig((tmp_path / "clip.mp4",), run, over_time=True))
    classifier = Classifier(run)
    said = [
        classifier.push(frame.permute(1, 2, 0).numpy(), moment_s)
        for frame, moment_s in zip(clip.frames, clip.seconds, strict=True)
    ]
    # What is still due when a file ends is due in a stream when the next frame comes.
    num = said[-1].num_frames
    assert 0 <= predicted.num_frames - num <= 10 // fps + 1
    np.testing.assert_allclose(said[-1].probabilities, predicted.over_time.probabilities[num - 1], atol=1e-5)


def test_a_frame_between_two_periods_changes_nothing(run, frames):
    classifier = Classifier(run)
    first = classifier.push(frames[0], 7.0)
    assert classifier.push(frames[1], 7.05) is first
    assert classifier.push(frames[2], 7.1).num_frames == 2


def test_frames_of_other_sizes_are_scaled_to_what_the_model_wants(run):
    # A shorter side of 64 px, as `FrameFormat.fit` says.
    classifier = Classifier(run)
    large = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    classifier.push(large, 0.0)
    assert classifier.push(large, 0.1).num_frames == 2


@pytest.mark.parametrize("later_s", [3.0, -1.0])
def test_after_a_gap_or_back_in_time_the_stream_begins_anew(run, frames, later_s):
    classifier = Classifier(run)
    alone = pushed(classifier, frames[12:], 10)
    classifier.reset()
    pushed(classifier, frames[:12], 10)
    anew = [classifier.push(frame, 1.1 + later_s + number / 10) for number, frame in enumerate(frames[12:])]
    assert anew == alone


def test_a_short_pause_is_no_gap_and_shows_the_last_frame_on(run, frames):
    classifier = Classifier(run)
    classifier.push(frames[0], 0.0)
    paused = classifier.push(frames[1], 1.0)
    assert paused.num_frames == 11
    classifier.reset()
    repeated = pushed(classifier, [frames[0]] * 10 + [frames[1]], 10)[-1]
    assert paused == repeated


def test_reset_forgets(run, frames):
    classifier = Classifier(run)
    first = pushed(classifier, frames, 10)
    classifier.reset()
    assert pushed(classifier, frames, 10) == first


def test_without_a_rate_every_frame_counts(tmp_path, frames):
    classifier = Classifier(save(tmp_path, frame_format=FrameFormat(3)))
    assert pushed(classifier, frames, 1000)[-1].num_frames == len(frames)


def test_the_threshold_is_that_of_the_checkpoint_unless_one_is_given(run, frames):
    for given, least in ((None, 0.8), (0.99, 0.99)):
        said = pushed(Classifier(run, min_confidence=given), frames, 10)
        assert [one.sure for one in said] == [one.probability >= least for one in said]
        assert {one.sure for one in said} == {True, False}


def test_grey_frames_and_rgb_frames_are_taken_by_models_of_either(run, tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    of_grey = Classifier(save(tmp_path, frame_format=FrameFormat(1)))
    for classifier in (Classifier(run), of_grey):
        as_grey = classifier.push(grey, 0.0).probabilities
        classifier.reset()
        np.testing.assert_allclose(classifier.push(np.stack([grey] * 3, -1), 0.0).probabilities, as_grey, atol=0.02)


@pytest.mark.parametrize(
    "frame",
    [
        *(np.zeros(shape, np.uint8) for shape in ((4, 4, 4), (1, 3, 48, 64), (0, 64, 3), (48, 0))),
        np.zeros((48, 64, 3), np.float32),
    ],
)
def test_another_shape_or_type_is_refused(run, frame):
    with pytest.raises(ValueError, match=r"\(height, width, 3\) in RGB"):
        Classifier(run).push(frame, 0.0)


@pytest.mark.parametrize("timestamp_s", [float("nan"), float("inf")])
def test_a_time_stamp_that_is_no_number_is_refused_and_changes_nothing(run, frames, timestamp_s):
    classifier = Classifier(run)
    classifier.push(frames[0], 0.0)
    with pytest.raises(ValueError, match=f"time stamp {timestamp_s}"):
        classifier.push(frames[1], timestamp_s)
    assert classifier.push(frames[1], 0.1).num_frames == 2


def test_time_stamps_that_stand_still_show_nothing_new(run, frames):
    classifier = Classifier(run)
    first = classifier.push(frames[0], 5.0)
    assert all(classifier.push(frame, 5.0) is first for frame in frames[1:4])
    assert classifier.push(frames[4], 5.1).num_frames == 2


def test_a_model_that_gives_nan_is_named(tmp_path, frames):
    path = save(tmp_path)
    classifier = Classifier(path)
    with torch.no_grad():
        classifier.model.head.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=str(path)):
        classifier.push(frames[0], 0.0)


@pytest.mark.parametrize(
    ("name", "labels", "match"), [("lenet-lstm-published", LABELS, "whole clips"), ("lenet-lstm", None, "classes")]
)
def test_a_model_that_needs_whole_clips_or_has_no_classes_is_refused(tmp_path, name, labels, match):
    header = Header(name, labels=labels)
    checkpoint.save(tmp_path / checkpoint.NAME, header.create_model(), header)
    with pytest.raises(DataError, match=match):
        Classifier(tmp_path)


def test_the_threshold_of_a_checkpoint_is_kept_and_old_ones_have_the_standard(tmp_path, run):
    assert checkpoint.read_header(run).labels.min_confidence == 0.8
    described = json.loads((run / "checkpoint.json").read_text())["labels"]
    assert described["min_confidence"] == 0.8
    standard = Labels.from_json({**described, "min_confidence": 0.5}).as_json()
    assert standard.keys().isdisjoint({"min_confidence", "none"})


def test_a_checkpoint_that_gives_nan_inside_does_not_seem_to_work(tmp_path, frames):
    header = Header("lenet-lstm", labels=LABELS, frame_format=FrameFormat(3, fps=10))
    model = header.create_model()
    model.get_buffer("encoder.trunk.1.2.running_var").fill_(-1)  # its root is NaN
    checkpoint.save(tmp_path / checkpoint.NAME, model, header)
    with pytest.raises(NonFiniteError, match=str(tmp_path)):
        Classifier(tmp_path).push(frames[0], 0.0)
