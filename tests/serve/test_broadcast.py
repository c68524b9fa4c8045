"""The stream that pages share: one reader, told apart from them by lines, begun and ended with them."""

from __future__ import annotations

import re
import time
from contextlib import closing
from pathlib import Path

import pytest

from saccade.clips import FrameFormat
from saccade.data import video_writing
from saccade.errors import DataError, UsageError
from saccade.serve import ServeConfig, serve
from saccade.serve.broadcast import Broadcast
from saccade.serve.live_source import SharedSource

from ..stream.sources import MotionJpeg, Rtsp
from .conftest import blinking
from .talk import Page

FORMAT = FrameFormat(3, (48, 64), fps=10)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def watching(broadcast, frame_format=FORMAT):
    source = SharedSource(frame_format.fps, lambda: None)
    broadcast.enter(source, frame_format)
    return source


def next_picture(source):
    return wait_until(lambda: source.next_picture(0))


def test_watchers_share_one_reader_from_the_first_to_the_last():
    with MotionJpeg(20) as camera, closing(Broadcast(camera.url, pytest.fail)) as broadcast:
        assert camera.connections == 0  # until somebody watches
        first = watching(broadcast)
        next_picture(first)
        second = watching(broadcast)
        pictures = [next_picture(second) for _ in range(3)]
        assert [picture.begins for picture in pictures] == [True, False, False]
        assert pictures[0].time_s > 0  # in seconds of the source, whoever came when
        next_picture(first)
        broadcast.leave(first)
        next_picture(second)
        assert camera.connections == 1
        broadcast.leave(second)
        broadcast.leave(second)
        third = watching(broadcast)
        assert next_picture(third).time_s < 1
        assert camera.connections == 2


def test_models_that_need_other_frames_take_the_reader_over():
    with MotionJpeg(20) as camera, closing(Broadcast(camera.url, pytest.fail)) as broadcast:
        before = watching(broadcast)
        next_picture(before)
        after = watching(broadcast, FrameFormat(1, (32, 32), fps=5))
        assert next_picture(after).frame.shape == (1, 32, 32)
        while before.next_picture(0):
            pass
        next_picture(after)
        assert not before.has_frame
        broadcast.leave(before)
        next_picture(after)


def test_a_loss_is_told_once_to_all_and_to_those_who_come_later():
    said = []
    with Rtsp(20, stops_after={1: 10}, wait_s=0.2) as camera:
        camera.url = camera.url.replace("://", "://me:secret@")
        with closing(Broadcast(camera.url, said.append)) as broadcast:
            first = watching(broadcast)
            line = wait_until(first.take_line)
            assert line.endswith("has ended; trying again for 600 s")
            second = watching(broadcast)
            assert second.take_line() == line
            again = wait_until(second.take_line)
            assert again.endswith("sends frames again")
            assert next_picture(second).begins
            assert wait_until(first.take_line) == again
            assert said == [line, again]
            assert "secret" not in "".join(said) + broadcast.name


def test_a_source_that_fails_or_ends_can_be_begun_anew(tmp_path):
    said = []
    with Rtsp() as camera:
        url = camera.url
    with closing(Broadcast(url, said.append)) as broadcast:
        for number in (1, 2):
            page = watching(broadcast)
            wait_until(lambda page=page: page.has_ended)
            assert "refuses connections; check host and port" in page.problem
            assert said == [page.problem] * number
    path = tmp_path / "clip.mp4"
    video_writing.write_mp4(path, blinking(0.5), fps=10)
    said.clear()
    with closing(Broadcast(str(path), said.append)) as broadcast:
        for _ in range(2):
            page = watching(broadcast)
            times = [next_picture(page).time_s for _ in range(5)]
            assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
            wait_until(lambda page=page: page.has_ended)
            assert page.problem is None
    assert said == [f"{path} has ended"] * 2


def test_wrong_addresses_are_refused_before_the_page_opens(tmp_path, noticing):
    for source, error, told in [
        ("-", UsageError, "only once"),
        ("gopher://example", UsageError, "no source begins with 'gopher'"),
        (str(tmp_path / "missing.mp4"), DataError, "there is no file"),
    ]:
        with pytest.raises(error, match=told):
            serve(ServeConfig(model=(noticing,), port=0, source=source), say=pytest.fail)


# --- A server


@pytest.fixture(scope="module")
def camera():
    with MotionJpeg(20) as started:
        yield started


@pytest.fixture(scope="module")
def live(make_server, noticing, camera):
    made = make_server("--port", 0, "--model", noticing, "--source", camera.url.replace("://", "://me:secret@"))
    made.wait_until_ready()
    return made


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
def test_pages_share_the_stream_of_the_server(live, camera):
    assert live.children() == []
    with Page(live) as first:
        hello = first.take_until("hello")
        assert hello["stream"] == camera.url  # without the password
        first.say("source", kind="stream")
        frame = first.frames(3)[-1]
        assert (frame["source"], frame["size"]) == ("stream", [48, 64])
        with Page(live) as second:
            second.take_until("hello")
            second.say("source", kind="stream")
            assert second.frames(3)[-1]["time_s"] > frame["time_s"]
            assert len(live.children()) == 1
        first.frames(3)
        (child,) = live.children()
        assert b"secret" not in Path(f"/proc/{child}/cmdline").read_bytes()
        first.say("pause", paused=True)
        first.say("step")
        assert next(frame for frame in iter(lambda: first.frames(1)[0], None) if frame["stepped"])
        first.say("source", kind="camera")
        wait_until(lambda: live.children() == [])
        first.say("pause", paused=False)
        first.say("source", kind="stream")
        first.frames(1)
    wait_until(lambda: live.children() == [])
    assert "secret" not in live.log.read_text()


def test_a_page_cannot_name_what_the_server_opens(live):
    with Page(live) as page:
        page.take_until("hello")
        page.say("source", kind="stream", address="http://127.0.0.1/")
        assert "address" in page.take_until("error")["message"]
        page.say("source", kind="http://127.0.0.1/")
        assert "message not understood" in page.take_until("error")["message"]
    assert live.children() == []


def test_the_reader_ends_with_the_server(live):
    with Page(live) as page:
        page.take_until("hello")
        page.say("source", kind="stream")
        page.frames(1)
        (child,) = live.children()
        assert live.interrupt() == 0
        assert not Path(f"/proc/{child}").exists()
        assert re.search("^ended$", live.log.read_text(), re.M)
