"""The state of one page, without a network."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.clips import FrameFormat
from saccade.data import digits
from saccade.data.digits import DigitStream, StreamSettings, strokes
from saccade.data.digits.schemes import SCHEMES
from saccade.errors import DataError, UsageError
from saccade.labels import Labels
from saccade.serve import messages
from saccade.serve.engine import Engine, Memory, check_together, load_models
from saccade.serve.messages import MessageError
from saccade.serve.session import MAX_UNSEEN, Session
from saccade.serve.upload import Decoded
from saccade.stream.waiting import LATE_S

from .conftest import OWN, RGB, write_checkpoint

SETTINGS = {
    "num_digits": 2, "max_angle_deg": 60.0, "scale_low": 0.6, "scale_high": 1.0, "speed_px": 1.5, "tempo": 1.0,
    "per_digit": True, "clutter": 0, "noise": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(untrained):
    made = Engine(load_models(untrained), digits.load("strokes", "test"), min_confidence=0.5)
    yield made
    made.close()


@pytest.fixture
def session(engine):
    made = Session(engine)
    say(made, "start", seed=5, settings=SETTINGS)
    say(made, "show", models=["lenet-lstm"], saliency=[], clean=True)
    return made


def say(session, kind, /, **fields):
    return session.apply(messages.parse(json.dumps({"type": kind, **fields})))


def finished(work):
    """Do all steps of some work; return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def head(size, time_s=0.0):
    """Return what comes before the pixels of a camera frame."""
    return bytes(size) + round(1000 * time_s).to_bytes(4, "big")


def take(session, missed=0, *, see=True):
    """Compute the next frame; say that it was seen."""
    frame = json.loads(finished(session.next_frame(missed)))
    if see and frame["type"] == "frame":
        say(session, "seen", number=frame["number"])
    return frame


def pixels(frame):
    seen = np.frombuffer(base64.b64decode(frame["pixels"]), np.uint8)
    return seen.reshape(frame["size"] if frame["channels"] == 1 else [*frame["size"], frame["channels"]])


# --- Digits


def test_frames_are_those_of_the_generator(session):
    settings = StreamSettings(max_angle_deg=60.0, scale_range=(0.6, 1.0), speed_px=1.5)
    stream = DigitStream(digits.load("strokes", "test"), settings, seed=5)
    for _ in range(10):
        expected, truth = stream.next_frame()
        frame = take(session)
        assert (pixels(frame) == expected[0].numpy()).all()
        assert frame["digits"] == truth.digit.tolist()
        assert frame["boxes"] == truth.box_px.tolist()


def test_missed_frames_are_gone_through_but_not_shown(session, engine):
    other = Session(engine)
    say(other, "start", seed=5, settings=SETTINGS)
    shown = [pixels(take(session)) for _ in range(6)]
    assert (pixels(take(other)) == shown[0]).all()
    assert (pixels(take(other, missed=4)) == shown[5]).all()


def test_a_server_far_behind_goes_through_thirty_frames_at_most(session):
    settings = StreamSettings(max_angle_deg=60.0, scale_range=(0.6, 1.0), speed_px=1.5)
    stream = DigitStream(digits.load("strokes", "test"), settings, seed=5)
    frames = [stream.next_frame()[0][0].numpy() for _ in range(32)]
    late = pixels(take(session, missed=10_000))
    assert [t for t, frame in enumerate(frames) if (frame == late).all()] == [30]


def test_every_model_says_what_the_model_alone_says(engine):
    session = Session(engine)
    say(session, "start", seed=5, settings=SETTINGS)
    frames = [take(session) for _ in range(4)]
    clip = torch.stack([torch.tensor(pixels(frame)) for frame in frames])[None, :, None]
    for name, model in engine.models.items():
        with torch.inference_mode():
            expected = model.network(clip)[0].sigmoid()
        found = torch.tensor([frame["models"][name]["probabilities"] for frame in frames])
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_settings_change_the_stream_and_keep_the_memory(session):
    take(session)
    remembered = session._view.memory.states["lenet-lstm"]
    say(session, "settings", settings=SETTINGS | {"noise": 40.0})
    assert session._view.memory.states["lenet-lstm"] is remembered
    assert (pixels(take(session)) > 0).mean() > 0.4


def test_other_digits_begin_with_an_empty_memory(session):
    stroke = [[[10, 10], [10, 200]]]
    for kind, fields in [
        ("settings", {"settings": SETTINGS | {"num_digits": 3}}),
        ("pick", {"slot": 0, "digit": 4}),
        ("draw", {"slot": 1, "strokes": stroke, "label": 1}),
        ("start", {"seed": 6, "settings": SETTINGS}),
        ("forget", {}),
    ]:
        take(session)
        assert session._view.memory.states
        say(session, kind, **fields)
        assert not session._view.memory.states, kind


@pytest.mark.parametrize(("num_strokes", "num_points"), [(1, 512), (3, 170), (8, 60)])
def test_a_drawing_as_pages_send_it_keeps_all_its_points(session, num_strokes, num_points):
    chance = np.random.default_rng(0)
    drawn = chance.integers(0, 256, (num_strokes, num_points, 2))
    (answer,) = say(session, "draw", slot=0, strokes=drawn.tolist())
    assert base64.b64decode(answer["image"]) == strokes.draw(list(drawn.astype(float))).numpy().tobytes()


def test_a_drawing_of_too_many_points_still_looks_the_same(session):
    turn = np.linspace(0, 2 * np.pi, 512)
    circle = np.stack((128 + 100 * np.cos(turn), 128 + 100 * np.sin(turn)), -1).round().astype(int)
    (answer,) = say(session, "draw", slot=0, strokes=[circle.tolist()] * 32)
    seen = np.frombuffer(base64.b64decode(answer["image"]), np.uint8).reshape(28, 28).astype(int)
    whole = strokes.draw([circle.astype(float)]).numpy().astype(int)
    assert np.abs(seen - whole).max() < 64
    assert np.abs(seen - whole).mean() < 4


def test_a_drawn_digit_moves_along(session):
    (answer,) = say(session, "draw", slot=0, strokes=[[[128, 20], [128, 230]]], label=1)
    image = np.frombuffer(base64.b64decode(answer["image"]), np.uint8).reshape(28, 28)
    rows, columns = np.nonzero(image > 100)
    assert np.ptp(rows) in range(16, 22)
    assert np.ptp(columns) < 5
    assert abs(rows.mean() - 13.5) < 1
    assert abs(columns.mean() - 13.5) < 1
    assert take(session)["digits"][0] == 1
    say(session, "draw", slot=0, strokes=[[[1, 1], [200, 200]]], label=None)
    frame = take(session)
    assert frame["digits"][0] is None
    assert frame["models"]["lenet-lstm"]["right"] is None


def test_a_link_opens_the_same_stream(session, engine):
    say(session, "pick", slot=1, digit=7, instance=3)
    other = Session(engine)
    chosen = [{"type": "pick", "slot": 1, "digit": 7, "instance": 3}]
    say(other, "start", seed=5, settings=SETTINGS, digits=chosen)
    for _ in range(5):
        assert (pixels(take(session)) == pixels(take(other))).all()


@pytest.mark.parametrize(
    "changes",
    [{"num_digits": 6}, {"max_angle_deg": 181}, {"scale_low": 1.1}, {"speed_px": 9}, {"noise": 65}, {"clutter": 9}],
)
def test_settings_out_of_bounds_are_refused_and_change_nothing(session, changes):
    before = session._digits
    for kind in ("settings", "start"):
        with pytest.raises(MessageError, match=r"must lie in|must rise within"):
            say(session, kind, settings=SETTINGS | changes, **({"seed": 1} if kind == "start" else {}))
    assert session._digits is before
    take(session)


def test_what_cannot_be_is_said_in_a_line(session, engine):
    for kind, fields, told in [
        ("pick", {"slot": 2, "digit": 1}, "no place 3"),
        ("source", {"kind": "video"}, "no video"),
        ("seek", {"frame": 1}, "only a video"),
        ("show", {"models": ["nobody"], "saliency": [], "clean": True}, "no model 'nobody'"),
        ("show", {"models": [], "saliency": ["nobody"], "clean": True}, "no model 'nobody'"),
    ]:
        with pytest.raises(MessageError, match=told):
            say(session, kind, **fields)
    with pytest.raises(MessageError, match="send start first"):
        say(Session(engine), "settings", settings=SETTINGS)


# --- What runs, and what is shown of it


def test_only_what_is_wanted_is_computed(session, engine):
    say(session, "show", models=["stn-lstm"], saliency=["stn-lstm"], clean=True)
    (name,), (seen,) = zip(*take(session)["models"].items(), strict=True)
    assert name == "stn-lstm"
    assert len(seen["look"]["quad"]) == 4
    assert seen["look"]["crop"]["size"] == [64, 64]
    assert seen["look"]["saliency"]["size"] == [64, 64]
    say(session, "show", models=list(engine.models), saliency=[], clean=True)
    looks = {name: seen["look"] for name, seen in take(session)["models"].items()}
    assert looks["dcn-lstm"]["points"]
    assert all(look["saliency"] is None for look in looks.values())


def test_a_model_that_was_hidden_begins_anew_and_the_others_go_on(engine):
    session = Session(engine)
    say(session, "start", seed=5, settings=SETTINGS)
    frames = []
    for shown in (["lenet-lstm", "stn-lstm"], ["lenet-lstm"], ["stn-lstm", "lenet-lstm"]):
        say(session, "show", models=shown, saliency=[], clean=True)
        frames += [take(session) for _ in range(2)]
    clip = torch.stack([torch.tensor(pixels(frame)) for frame in frames])[None, :, None]

    def said_after(name, first):
        with torch.inference_mode():
            return engine.models[name].network(clip[:, first:])[0, -1].sigmoid().tolist()

    for name, first in (("stn-lstm", 4), ("lenet-lstm", 0)):
        found = frames[-1]["models"][name]["probabilities"]
        assert found == pytest.approx(said_after(name, first), abs=1e-4)
        assert found != pytest.approx(said_after(name, 4 - first), abs=1e-3)


def test_a_model_that_is_named_often_sees_each_frame_once(session, engine):
    say(session, "show", models=["lenet-lstm"] * 32, saliency=[], clean=True)
    frames = [take(session) for _ in range(3)]
    # Else it would have seen each frame 32 times.
    assert frames[-1]["models"]["lenet-lstm"]["probabilities"] == said_of(engine, frames)


def test_a_frame_pauses_between_its_models(session, engine):
    say(session, "show", models=list(engine.models), saliency=[], clean=True)
    assert sum(1 for _ in session.next_frame(0)) == len(engine.models)


def test_what_a_model_took_is_told_in_milliseconds(session):
    begin = time.perf_counter()
    took = take(session)["models"]["lenet-lstm"]["ms"]
    assert 0.1 <= took <= 1000 * (time.perf_counter() - begin)


def test_there_is_no_verdict_below_the_confidence(session):
    # Untrained models hold every digit for as likely as not.
    verdict = take(session)["models"]["lenet-lstm"]["verdict"]
    assert verdict["confidence"] < 0.5
    assert not verdict["sure"]


# --- When


def test_a_page_gets_no_more_than_it_shows(session):
    for k in range(MAX_UNSEEN):
        assert session.can_go, k
        take(session, see=False)
    assert not session.can_go
    assert session.waits_for_page
    say(session, "seen", number=1)
    assert session.can_go
    say(session, "seen", number=10**6)  # of frames that never were
    for _ in range(MAX_UNSEEN):
        take(session, see=False)
    assert not session.can_go
    say(session, "seen", number=2 * MAX_UNSEEN)
    say(session, "seen", number=1)  # came late
    for _ in range(MAX_UNSEEN - 1):
        take(session, see=False)
    assert session.can_go


def test_pause_step_play(session):
    say(session, "step")  # means nothing while it plays
    say(session, "pause", paused=True)
    assert not session.can_go
    say(session, "step")
    assert session.can_go
    assert session.wait_s() == 0
    session.take_tick(0)
    assert take(session)["stepped"]
    assert not session.can_go
    say(session, "pause", paused=False)
    assert session.can_go
    session.take_tick(0)
    assert not take(session)["stepped"]


def test_whose_fault_a_missed_frame_is(session, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session._pace, "_now", lambda: clock[0])
    say(session, "pace", fps=10)
    session.take_tick(0)
    clock[0] = 0.55
    assert session.take_tick(0) == 4
    clock[0] = 1.05
    assert session.take_tick(0.31) == 4
    frame = take(session)
    assert (frame["dropped"], frame["skipped"]) == (5, 3)
    clock[0] = 60  # a page that was hidden is not slow
    assert session.take_tick(58) == 0
    assert take(session)["skipped"] == 3


def test_digits_in_motion_have_no_events(session):
    frames = [take(session) for _ in range(3)]
    assert [(frame["events"], frame["time_s"]) for frame in frames] == [({}, None)] * 3


# --- Camera and video


def test_a_camera_shows_its_newest_frame_and_counts_the_others(session):
    say(session, "source", kind="camera")
    assert not session.can_go
    paper = np.full((64, 64), 200, np.uint8)
    paper[20:44, 30:34] = 30
    for _ in range(3):
        session.put_camera(head([64, 64]) + paper.tobytes())
    time.sleep(1.5 * LATE_S)
    assert session.can_go
    frame = take(session)
    assert frame["dropped"] == 2
    assert frame["digits"] == []
    assert frame["models"]["lenet-lstm"]["right"] is None
    assert pixels(frame)[32, 32] == 255  # light on dark
    assert pixels(frame)[5, 5] == 0
    assert not session.can_go
    say(session, "show", models=["lenet-lstm"], saliency=[], clean=False)
    session.put_camera(head([64, 64]) + paper.tobytes())
    assert (pixels(take(session)) == paper).all()


def test_digits_begin_anew_behind_a_camera(session):
    say(session, "source", kind="camera")
    session.put_camera(head([64, 64]) + bytes(64 * 64))
    say(session, "start", seed=8, settings=SETTINGS)
    assert take(session)["source"] == "camera"
    say(session, "source", kind="digits")
    assert take(session)["source"] == "digits"


def test_a_camera_that_is_not_watched_is_ignored(session):
    session.put_camera(head([64, 64]) + bytes(64 * 64))
    assert take(session)["source"] == "digits"
    say(session, "source", kind="camera")
    assert not session.can_go


def test_a_video_plays_to_its_end_and_from_its_beginning_again(session):
    clip = np.arange(5, dtype=np.uint8).repeat(32 * 40).reshape(5, 1, 32, 40)
    say(session, "show", models=["lenet-lstm"], saliency=[], clean=False)
    session.put_video(Decoded(bytearray(clip.tobytes()), clip.shape, 12.5, None))
    assert session._pace.fps == 12.5
    shown = [take(session) for _ in range(3)]
    assert [frame["position"] for frame in shown] == [0, 1, 2]
    assert [pixels(frame)[0, 0] for frame in shown] == [0, 1, 2]
    assert take(session, missed=7)["position"] == 4  # the last one is never missed
    assert take(session) == {"type": "ended", "events": {}, "problem": None}
    assert not session.can_go
    say(session, "pause", paused=False)
    assert take(session)["position"] == 0
    say(session, "seek", frame=3)
    assert take(session)["position"] == 3
    say(session, "source", kind="digits")
    assert session._pace.fps == 25
    assert take(session)["source"] == "digits"


def said_of(engine, frames, name="lenet-lstm"):
    """Return what a model says of frames that are all it ever saw."""
    clip = torch.stack([torch.tensor(pixels(frame)) for frame in frames])[None, :, None]
    with torch.inference_mode():
        return pytest.approx(engine.models[name].network(clip)[0, -1].sigmoid().tolist(), abs=1e-4)


def test_another_source_begins_with_an_empty_memory(session, engine):
    for _ in range(3):
        take(session)
    say(session, "source", kind="camera")
    camera = head([64, 64]) + np.random.default_rng(0).integers(0, 256, 64 * 64, dtype=np.uint8).tobytes()
    session.put_camera(camera)
    frames = [take(session)]
    assert frames[-1]["models"]["lenet-lstm"]["probabilities"] == said_of(engine, frames)
    # Digits are no matter of the camera.
    say(session, "pick", slot=0, digit=4)
    session.put_camera(camera)
    frames.append(take(session))
    assert frames[-1]["models"]["lenet-lstm"]["probabilities"] == said_of(engine, frames)
    assert frames[-1]["models"]["lenet-lstm"]["probabilities"] != said_of(engine, frames[-1:])


def test_a_place_in_a_video_begins_with_an_empty_memory(session, engine):
    clip = np.random.default_rng(0).integers(0, 256, (5, 32, 40), dtype=np.uint8)
    session.put_video(Decoded(bytearray(clip.tobytes()), clip.shape, 12.5, None))
    for _ in range(3):
        take(session)
    say(session, "seek", frame=10**6)
    frame = take(session)
    assert frame["position"] == 4
    assert frame["models"]["lenet-lstm"]["probabilities"] == said_of(engine, [frame])


def test_a_video_keeps_its_own_pace(session, monkeypatch):
    monkeypatch.setattr(session._pace, "_now", lambda: 1.0)
    session.put_video(Decoded(bytearray(4 * 32 * 32), (4, 32, 32), 12.5, None))
    say(session, "pace", fps=50)
    session.take_tick(0)
    assert session.wait_s() == pytest.approx(1 / 12.5)
    say(session, "source", kind="digits")
    session.take_tick(0)
    assert session.wait_s() == pytest.approx(1 / 50)


def test_nothing_is_missed_while_the_stream_stands_still(session, monkeypatch):
    clock = [time.monotonic()]
    monkeypatch.setattr(session._pace, "_now", lambda: clock[0])
    for begin in (
        lambda: say(session, "start", seed=5, settings=SETTINGS),
        lambda: say(session, "pause", paused=False),
        lambda: say(session, "pace", fps=10),
        lambda: say(session, "source", kind="digits"),
    ):
        clock[0] += 30
        begin()
        assert session.take_tick(0) == 0
    say(session, "source", kind="camera")
    clock[0] += 30
    session.put_camera(head([64, 64]) + bytes(64 * 64))
    assert session.take_tick(0) == 0
    assert take(session)["dropped"] == 0


def test_the_page_may_name_any_image_of_a_class(session, engine):
    there = engine.digits.images[engine.digits.labels == 7]
    for instance in (0, 3, len(there) + 3):
        (answer,) = say(session, "pick", slot=0, digit=7, instance=instance)
        assert base64.b64decode(answer["image"]) == there[instance % len(there)].numpy().tobytes()


# --- Memory


def resident_bytes():
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc here, which tells how much memory is taken")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat(session):
    say(session, "show", models=["lenet-lstm"], saliency=[], clean=True)
    for _ in range(200):
        take(session)
    before = resident_bytes()
    for _ in range(800):
        take(session)
    # Were one frame in four kept, its grey bytes alone would be more.
    assert resident_bytes() - before < 800 * 1024


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_frames(engine, session):
    say(session, "show", models=list(engine.models), saliency=list(engine.models), clean=True)
    for _ in range(500):
        take(session)
    before = resident_bytes()
    for k in range(10_000):
        if k % 1000 == 0:
            say(session, "pick", slot=0, digit=k // 1000, instance=k)
        take(session)
    assert resident_bytes() - before < 2 << 20


def test_closing_lets_go_of_everything(session):
    take(session)
    session.put_video(Decoded(bytearray(4 * 32 * 32), (4, 1, 32, 32), 25.0, None))
    take(session)
    session.close()
    assert not session._view.memory.states
    assert session._digits is None
    assert session._video is None
    assert not session.can_go


# --- The models


def test_models_of_one_kind_have_names_of_their_own(untrained, tmp_path):
    second = tmp_path / "other.safetensors"
    second.write_bytes(untrained[0].read_bytes())
    names = [model.name for model in load_models([untrained[0], second, untrained[2], untrained[0]])]
    assert names == ["lenet-lstm (lenet-lstm)", "lenet-lstm (other)", "dcn-lstm", "lenet-lstm (lenet-lstm) #2"]


def test_what_cannot_follow_a_stream_is_refused(tmp_path):
    labels = SCHEMES["ordered"].labels
    for name, arguments, told in [
        ("lenet-lstm-published", {"labels": labels}, "whole clips"),
        ("lenet-lstm", {}, "what its classes are"),
        ("lenet-lstm", {"labels": labels, "frame_format": FrameFormat(size=(64, 600))}, "up to 512 px"),
    ]:
        path = write_checkpoint(tmp_path / "model.safetensors", name, **arguments)
        with pytest.raises(DataError, match=told):
            load_models([path])


def test_colour_models_get_grey_three_times(tmp_path):
    labels, wanted = SCHEMES["pair"].labels, FrameFormat(3)
    path = write_checkpoint(tmp_path / "colour.safetensors", "dcn-lstm", labels=labels, frame_format=wanted)
    engine = Engine(load_models([path]), digits.load("strokes", "test"), min_confidence=0.0)
    session = Session(engine)
    say(session, "start", seed=5, settings=SETTINGS)
    frame = take(session)
    assert frame["channels"] == 1
    seen = frame["models"]["dcn-lstm"]
    assert len(seen["probabilities"]) == 55
    assert seen["right"] in (True, False)
    # Their camera sends colours, of which light strokes on a dark ground are made.
    say(session, "source", kind="camera")
    session.put_camera(head([64, 64]) + bytes([200]) * 3 * 64 * 64)
    frame = take(session)
    assert frame["channels"] == 1
    assert pixels(frame).max() == 0
    engine.close()


# --- Models that know no digits


@pytest.fixture(scope="module")
def own_engine(own_models):
    made = Engine(load_models(own_models), min_confidence=0.0)
    yield made
    made.close()


@pytest.fixture
def own(own_engine):
    return Session(own_engine)


def colourful(seed=0, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_a_camera_in_colour_is_seen_in_colour(own, own_engine):
    assert not own.can_go
    remembered = Memory()
    for seed in range(3):
        colours = colourful(seed)
        own.put_camera(head([64, 96], seed / 12.5) + colours.tobytes())
        frame = take(own)
        assert (pixels(frame) == colours).all()
        for name, model in own_engine.models.items():
            expected = own_engine.see(model, torch.tensor(colours).permute(2, 0, 1), remembered, saliency=False)
            assert frame["models"][name]["probabilities"] == [round(p, 4) for p in expected.probabilities]
            assert frame["models"][name]["verdict"]["name"] in OWN.names
            assert frame["models"][name]["right"] is None


def test_a_verdict_is_the_name_of_the_class(own, own_engine):
    own.put_camera(head([64, 96]) + colourful().tobytes())
    for model in own_engine.models.values():
        model.network.head.bias[0] += 100
    try:
        said = {seen["verdict"]["name"] for seen in take(own)["models"].values()}
    finally:
        for model in own_engine.models.values():
            model.network.head.bias[0] -= 100
    assert said == {"take2"}


def test_a_camera_frame_of_another_format_is_refused(own, session):
    for size, channels, told in [((64, 96), 1, "64x96 RGB px is"), ((64, 64), 3, "64x64 px, the models need 64x96")]:
        with pytest.raises(MessageError, match=told):
            own.put_camera(head(size) + bytes(size[0] * size[1] * channels))
    for size in ((27, 64), (130, 131), (200, 200)):
        with pytest.raises(MessageError, match="camera frame"):
            session.put_camera(head(size) + bytes(size[0] * size[1]))


def test_what_a_model_remembers_of_a_frame_ends_with_its_size(tmp_path):
    path = write_checkpoint(tmp_path / "any.safetensors", labels=OWN, input="differences")
    engine = Engine(load_models([path]), min_confidence=0.0)
    session = Session(engine)
    for size in ((64, 85), (85, 64), (64, 85)):
        session.put_camera(head(size) + bytes(size[0] * size[1]))
        assert take(session)["size"] == list(size)
    engine.close()


def test_a_video_in_colour_plays_at_the_rate_of_the_models(own):
    clip = np.stack([colourful(seed).transpose(2, 0, 1) for seed in range(3)])
    own.put_video(Decoded(bytearray(clip.tobytes()), clip.shape, 12.5, None))
    for seed in range(3):
        assert (pixels(take(own)) == colourful(seed)).all()
    assert take(own)["type"] == "ended"


def test_without_digits_there_is_no_stream_of_them(own):
    for kind, fields in [
        ("start", {"seed": 1, "settings": SETTINGS}),
        ("settings", {"settings": SETTINGS}),
        ("pick", {"slot": 0, "digit": 1}),
        ("source", {"kind": "digits"}),
    ]:
        with pytest.raises(MessageError, match="know no digits"):
            say(own, kind, **fields)


@pytest.mark.parametrize(
    ("labels", "wanted", "told"),
    [
        (SCHEMES["digits"].labels, RGB, r"dcn-lstm knows digits and lenet-lstm does not"),
        (OWN, FrameFormat(3, (64, 96), fps=15), r"64x96 px at 12.5 per second; dcn-lstm needs .* 15 per second"),
        (OWN, FrameFormat(3, (64, 80), fps=12.5), "dcn-lstm needs RGB frames of 64x80 px"),
        (OWN, FrameFormat(1, (64, 96), fps=12.5), "dcn-lstm needs grey frames of 64x96 px"),
        (OWN, FrameFormat(3, fps=12.5), "dcn-lstm needs RGB frames of any size"),
    ],
)
def test_models_for_different_frames_are_refused(tmp_path, labels, wanted, told):
    paths = [
        write_checkpoint(tmp_path / "a.safetensors", labels=OWN, frame_format=RGB),
        write_checkpoint(tmp_path / "b.safetensors", "dcn-lstm", labels=labels, frame_format=wanted),
    ]
    for look_at in (check_together, load_models):
        with pytest.raises(UsageError, match=told) as caught:
            look_at(paths)
        assert "show them one by one" in str(caught.value)


def test_models_of_other_classes_and_pixel_ranges_may_watch_the_same_frames(tmp_path):
    other = FrameFormat(3, (64, 96), mean=(0.5,), std=(0.2,), fps=12.5)
    paths = [
        write_checkpoint(tmp_path / "a.safetensors", labels=OWN, frame_format=RGB),
        write_checkpoint(tmp_path / "b.safetensors", labels=Labels(("yes", "no")), frame_format=other),
    ]
    check_together(paths)
    assert len(load_models(paths)) == 2
