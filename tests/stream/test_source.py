"""The frames of a source: equal to those of a file, chosen by time stamp, the newest first for a slow consumer."""

import time

import pytest
import torch

from saccade.cli import main
from saccade.clips import FrameFormat
from saccade.data import video
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError
from saccade.stream.limits import Limits
from saccade.stream.source import Source

FORMAT = FrameFormat(channels=3, fps=20)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Write a clip of one second."""
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    pixels = torch.randint(0, 256, (30, 3, 48, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    write_mp4(path, pixels, 30)
    return path


def read(path, wanted):
    return video.read_clip(path, size=wanted.fit, num_channels=wanted.channels, fps=wanted.fps).frames


@pytest.mark.parametrize(
    ("wanted", "realtime"),
    [
        (FORMAT, False),
        (FrameFormat(channels=1, fps=45), False),
        (FrameFormat(channels=3, size=(32, 40)), False),
        (FrameFormat(channels=1, size=(32, 40), fps=45), True),
        (FrameFormat(channels=3), True),
    ],
)
def test_frames_are_those_that_predict_sees(clip, wanted, realtime):
    with Source(str(clip), wanted, realtime=realtime, say=lambda _: None) as source:
        frames = list(source)
    expected = read(clip, wanted)
    assert len(frames) + source.dropped == len(expected)
    if not source.dropped:  # a busy machine may have delayed this process
        assert torch.equal(torch.stack([frame.pixels for frame in frames]), expected)
    # Every frame that was taken is the one that is due at its time.
    fps = wanted.fps or 30
    for frame in frames:
        assert torch.equal(frame.pixels, expected[round(frame.time_s * fps)])
    assert [frame.begins for frame in frames] == [True] + [False] * (len(frames) - 1)
    assert source.fps == pytest.approx(30, rel=0.01)


def test_a_picture_for_display_comes_along(clip):
    expected = video.read_clip(clip, size=(24, 32), num_channels=3, fps=20).frames.permute(0, 2, 3, 1)
    pixels = read(clip, FORMAT)
    for realtime in (False, True):
        with Source(str(clip), FORMAT, realtime=realtime, picture_px=32, say=lambda _: None) as source:
            for frame in source:
                assert torch.equal(frame.picture, expected[round(20 * frame.time_s)])
                assert torch.equal(frame.pixels, pixels[round(20 * frame.time_s)])


def test_a_file_waits_for_its_consumer(clip):
    with Source(str(clip), FORMAT, say=lambda _: None) as source:
        for number, _ in enumerate(source):
            if number == 1:
                time.sleep(0.5)
    assert (number, source.dropped) == (19, 0)


@pytest.mark.parametrize("realtime", [False, True])
def test_a_source_slower_than_the_model_is_told_once(tmp_path, realtime):
    write_mp4(tmp_path / "slow.mp4", torch.arange(33).view(-1, 1, 1, 1).expand(-1, 1, 32, 32).to(torch.uint8), 10)
    lines = []
    asked = []
    cost = lambda fps: asked.append(fps) or "`saccade evaluate --camera` was run"  # noqa: E731
    with Source(str(tmp_path / "slow.mp4"), FORMAT, realtime=realtime, cost=cost, say=lines.append) as source:
        frames = list(source)
    assert asked == [pytest.approx(10, abs=0.1)]
    assert len(frames) + source.dropped == 66
    # Repeats become known with the frame behind them, and are no burst of which some could be dropped.
    assert not realtime or len({frame.arrived_s for frame in frames}) <= 34
    assert len(lines) == 1
    assert "gives 10 frames/s; the model learned at 20" in lines[0]
    assert lines[0].endswith("frames are repeated; `saccade evaluate --camera` was run")


def test_the_newest_frame_wins(tmp_path):
    """2,000 frames at 200 a second for a consumer that takes a third of them."""
    wanted = FrameFormat(channels=1, size=(32, 32), fps=200)
    write_mp4(tmp_path / "fast.mp4", torch.zeros(2000, 1, 32, 32, dtype=torch.uint8), 200)
    waits_s, times_s = [], []
    with Source(str(tmp_path / "fast.mp4"), wanted, realtime=True, say=lambda _: None) as source:
        for frame in source:
            waits_s.append(time.monotonic() - frame.arrived_s)
            times_s.append(frame.time_s)
            time.sleep(3 / 200)
    assert len(waits_s) + source.dropped == 2000
    assert source.dropped > 1000
    assert len(waits_s) > 200  # ten seconds of video take ten seconds
    assert times_s == sorted(set(times_s))
    assert times_s[-1] == pytest.approx(1999 / 200, abs=1e-6)
    # It does not grow: at the end, a frame waits no longer than the first hundred of a cold start.
    first, last = sorted(waits_s[:100]), sorted(waits_s[-100:])
    assert last[50] <= 4 * first[50] + 0.05


@pytest.mark.parametrize("silent", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_no_source_can_keep_are_refused(silent):
    with pytest.raises(ValueError, match="silence_s is"):
        Limits(silence_s=silent)
    assert Limits(reconnect_s=0).reconnect_s == 0


def test_wrong_calls_are_told(clip):
    with pytest.raises(DataError, match="2 channels"):
        Source(str(clip), FrameFormat(channels=2), say=print)
    with pytest.raises(UsageError, match="picture_px is 0"):
        Source(str(clip), FORMAT, picture_px=0, say=print)
    with pytest.raises(UsageError, match="with statement"):
        next(iter(Source("rtsp://127.0.0.1:9/x", FORMAT, say=print)))


def test_a_missing_file_is_told_before_the_model_is_loaded(tmp_path, capsys):
    assert main(["stream", str(tmp_path / "missing.mp4"), "--model", str(tmp_path / "no-run")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_file_that_is_missing_or_no_video_is_told(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    for realtime, name in ((False, "a.mp4"), (False, "missing.mp4"), (True, "missing.mp4")):
        source = Source(str(tmp_path / name), FORMAT, realtime=realtime, say=print)
        with pytest.raises(DataError, match=name) as caught, source:
            list(source)
        if name == "missing.mp4":
            assert "there is no file" in str(caught.value)
            assert "give a camera (0, /dev/video0), an address" in str(caught.value)
