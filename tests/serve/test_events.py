"""The events of a page, and the rate at which its models see frames, without a network."""

from __future__ import annotations

import base64
import json

import pytest

from saccade import stream
from saccade.data import video, video_writing
from saccade.serve import messages
from saccade.serve.engine import Engine, load_models
from saccade.serve.messages import MessageError
from saccade.serve.session import Session
from saccade.serve.upload import Decoded

from .conftest import blinking

FPS = 10


@pytest.fixture(scope="module")
def engine(noticing):
    made = Engine(load_models([noticing]))
    yield made
    made.close()


@pytest.fixture
def session(engine):
    return Session(engine)


def say(session, kind, /, **fields):
    return session.apply(messages.parse(json.dumps({"type": kind, **fields})))


def take(session):
    """Compute the next frame; say that it was seen."""
    work = session.next_frame(session.take_tick(0))
    while True:
        try:
            next(work)
        except StopIteration as end:
            frame = json.loads(end.value)
            break
    if frame["type"] == "frame":
        say(session, "seen", number=frame["number"])
    return frame


def show(session, frames):
    session.put_video(Decoded(bytearray(frames.numpy().tobytes()), tuple(frames.shape), FPS, None))


def send(session, level, time_s):
    """Send a frame of the camera."""
    head = bytes([48, 64]) + round(1000 * time_s).to_bytes(4, "big")
    session.put_camera(head + bytes([level]) * (3 * 48 * 64))


def taken(session):
    """Take all frames of a live source that wait."""
    frames = []
    while session.can_go:
        frames.append(take(session))
    return frames


def ended(frames):
    """Return the events that have ended in these messages."""
    return [event for frame in frames for event in frame["events"].get("lenet-lstm", []) if event["end_s"] is not None]


def lasting(frame):
    return [event["class"] for event in frame["events"].get("lenet-lstm", []) if event["end_s"] is None]


def test_events_of_a_video_are_those_of_the_stream_verb(session, noticing, tmp_path):
    path = tmp_path / "blinking.mp4"
    video_writing.write_mp4(path, blinking(5.5, fps=25), fps=25)
    show(session, video.read_clip(path, size=(48, 64), num_channels=3, fps=FPS).frames)
    frames = [take(session)]
    while frames[-1]["type"] == "frame":
        frames.append(take(session))

    classifier = stream.Classifier(noticing, device="cpu")
    moments = stream.follow(stream.StreamConfig(str(path), noticing), classifier, say=pytest.fail)
    lines = list(stream.event_lines(moments, stream.Events(classifier.labels, threshold=classifier.min_confidence)))
    expected = [line for line in lines if line.pop("event") == "ended"]
    assert [event["class"] for event in expected] == ["bright"] * 3
    assert ended(frames) == [
        event | {"peak_probability": pytest.approx(event["peak_probability"], abs=1e-5)} for event in expected
    ]
    assert lasting(frames[14]) == ["bright"]
    assert lasting(frames[-1]) == []


def test_an_event_ends_when_the_models_forget_or_are_switched_off(session):
    ends = (lambda: say(session, "forget"), lambda: say(session, "show", models=[], saliency=[], clean=True))
    for end in ends:
        show(session, blinking(4)[10:20])
        frames = [take(session) for _ in range(8)]
        assert lasting(frames[-1]) == ["bright"]
        end()
        (event,) = ended([take(session)])
        assert event["end_s"] == 0.7


def test_events_of_one_source_are_none_of_another(session):
    show(session, blinking(4)[10:20])
    assert lasting([take(session) for _ in range(8)][-1]) == ["bright"]
    say(session, "source", kind="camera")
    send(session, 20, 5.0)
    frame = take(session)
    assert frame["events"] == {}
    show(session, blinking(1))
    assert take(session)["run"] > frame["run"]


def test_without_a_source_there_is_no_stream(session):
    with pytest.raises(MessageError, match="start it with --source"):
        say(session, "source", kind="stream")


# --- Time is part of a model


def levels(frames):
    return [base64.b64decode(frame["pixels"])[0] for frame in frames]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (20, [0, 2, 4, 6, 8]),  # a browser that sends more is not let through
        (5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9]),  # what is shown is seen again
    ],
)
def test_camera_frames_are_resampled_by_their_time_stamps(session, fps, expected):
    frames = []
    for number in range(10):
        send(session, number, 3.0 + number / fps)
        frames += taken(session)
    assert levels(frames) == expected
    assert [frame["time_s"] for frame in frames] == pytest.approx([3 + k / FPS for k in range(len(expected))])
    assert frames[-1]["dropped"] == 0


def test_a_browser_that_stalls_costs_no_time(session):
    frames = []
    for number in (0, 1, 2, 9, 10):
        send(session, number, number / FPS)
        frames += taken(session)
    last = frames[-1]
    assert last["time_s"] == 1.0
    assert last["number"] + last["dropped"] == 11  # each period was seen, or counted as left out


def test_a_camera_begins_anew_after_a_gap(session):
    for number in range(8):
        send(session, 220, number / FPS)
        frames = taken(session)
    assert lasting(frames[-1]) == ["bright"]
    send(session, 20, 9.0)
    (frame,) = taken(session)
    (event,) = ended([frame])
    assert (event["end_s"], frame["time_s"]) == (0.7, 9.0)
    alone = Session(session._engine)
    send(alone, 20, 0.0)
    (first,) = taken(alone)
    assert frame["models"]["lenet-lstm"]["probabilities"] == first["models"]["lenet-lstm"]["probabilities"]


def test_a_pause_is_no_lack_of_speed(session):
    send(session, 20, 0.0)
    taken(session)
    say(session, "pause", paused=True)
    for number in range(1, 15):
        send(session, 20, number / FPS)
    assert not session.can_go
    say(session, "pause", paused=False)
    send(session, 20, 1.5)
    (frame,) = taken(session)
    assert (frame["time_s"], frame["dropped"]) == (1.5, 0)


def test_no_frame_of_a_video_at_the_rate_of_the_models_is_left_out(session, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session._pace, "_now", lambda: clock[0])
    show(session, blinking(1))
    positions = []
    for _ in range(5):
        clock[0] += 0.35  # slower than the rate
        frame = take(session)
        positions.append((frame["position"], frame["time_s"]))
    assert positions == [(k, k / FPS) for k in range(5)]
    assert (frame["dropped"], frame["skipped"]) == (0, 0)
    assert session.wait_s() == pytest.approx(1 / FPS)
