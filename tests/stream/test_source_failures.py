"""Live sources that fail: each is told in one line, and comes back where it can."""

import contextlib
import functools
import http.server
import os
import threading
import time

import pytest

from saccade.clips import FrameFormat
from saccade.errors import DataError
from saccade.stream.limits import Limits
from saccade.stream.source import Source

from .sources import Http, MotionJpeg, Rtsp, Silent, encoded

FORMAT = FrameFormat(channels=3, fps=10)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def folder_server(folder):
    """Serve the files of a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def follow(address, num, lines, **limits):
    """Return the first frames of a source."""
    frames = []
    with Source(address, FORMAT, limits=Limits(**limits), say=lines.append) as source:
        for frame in source:
            frames.append(frame)
            if len(frames) == num:
                break
    return frames


def test_rtsp_frames_come_in_order_and_on_time():
    lines = []
    with Rtsp(fps=20) as server:
        frames = follow(server.url, 12, lines)
    assert [frame.begins for frame in frames] == [True] + [False] * 11
    assert [frame.time_s for frame in frames] == sorted({frame.time_s for frame in frames})
    # The level of a picture tells its number: every second one of 20 a second is due.
    levels = [float(frame.pixels.float().mean()) for frame in frames]
    for frame, level in zip(frames, levels, strict=True):
        assert level == pytest.approx(levels[0] + 10 * 10 * frame.time_s, abs=3)
    assert lines == []


def test_a_source_that_refuses_is_told_at_once_without_its_password():
    with Silent() as server:
        port = server.port
    for scheme in ("rtsp", "http"):
        with pytest.raises(DataError, match="refuses connections") as caught:
            follow(f"{scheme}://me:secret@127.0.0.1:{port}/x", 1, [])
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_source_that_accepts_and_stays_silent_is_given_up(scheme):
    with (
        Silent() as server,
        pytest.raises(DataError, match="sent no frame within 1 s") as caught,
    ):
        follow(f"{scheme}://me:secret@127.0.0.1:{server.port}/x", 1, [], connect_s=1.0)
    assert "secret" not in str(caught.value)


def test_a_source_that_stops_is_opened_again_and_begins_anew():
    lines = []
    with Rtsp(fps=20, stops_after={1: 12}) as server:
        frames = follow(server.url.replace("//", "//me:secret@"), 9, lines)
        assert server.connections == 2
    begun = [number for number, frame in enumerate(frames) if frame.begins]
    assert len(begun) == 2
    assert frames[begun[1]].time_s > frames[begun[1] - 1].time_s + 0.1
    assert [frame.time_s for frame in frames] == sorted(frame.time_s for frame in frames)
    assert "has ended; trying again" in lines[0]
    assert "sends frames again" in lines[1]
    assert "secret" not in "".join(lines)


def test_a_source_that_falls_silent_is_opened_again():
    lines = []
    with Rtsp(fps=20, stalls_after={1: 12}) as server:
        frames = follow(server.url, 9, lines, silence_s=1.0)
    assert sum(frame.begins for frame in frames) == 2
    assert "sent no frame for 1 s" in lines[0]


def test_a_source_that_does_not_come_back_ends_with_an_error():
    lines = []
    with Rtsp(fps=20, stops_after={1: 10}, accepts=1) as server, pytest.raises(DataError, match="refuses"):
        follow(server.url, 1000, lines, reconnect_s=1.0)
    assert len(lines) == 1
    assert "has ended; trying again for 1 s" in lines[0]
    with Rtsp(fps=20, stops_after={1: 10}) as server, pytest.raises(DataError, match="has ended"):
        follow(server.url, 1000, lines, reconnect_s=0.0)
    assert len(lines) == 1


def test_a_password_is_used_and_a_wrong_one_is_told():
    with Rtsp(password="secret") as server:
        assert follow(server.url.replace("//", "//me:secret@"), 1, [])
        with pytest.raises(DataError, match="refuses the user name or password"):
            follow(server.url, 1, [])


def test_stamps_that_jump_begin_anew_and_are_told():
    lines = []
    with Rtsp(fps=20, jumps_after=12) as server:
        frames = follow(server.url, 9, lines)
    assert [frame.begins for frame in frames].count(True) == 2
    assert frames[-1].time_s < 60
    assert len(lines) == 1
    assert "jumped by" in lines[0]


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_recording_over_http_gives_every_frame_to_a_slow_consumer_and_ends(form, tmp_path):
    content = encoded(form)
    (tmp_path / "clip").write_bytes(content)
    with Source(str(tmp_path / "clip"), FORMAT, say=print) as source:
        expected = list(source)
    # A consumer that is slower than the limit on silence does not make the source silent.
    limits, frames = Limits(silence_s=1.0), []
    with Http(content) as server, Source(server.url, FORMAT, limits=limits, say=print) as source:
        # Bounded, since a recording that is taken for a live stream begins again and again.
        for frame, _ in zip(source, range(2 * len(expected)), strict=False):
            frames.append(frame)
            time.sleep(1.5 if len(frames) == 2 else 0.05)
    assert source.dropped == 0
    assert [frame.time_s for frame in frames] == [frame.time_s for frame in expected]
    for frame, whole in zip(frames, expected, strict=True):
        assert (frame.pixels == whole.pixels).all()


def test_a_recording_over_http_is_live_with_realtime():
    content = encoded("mpegts", num_frames=40)
    with Http(content) as server, Source(server.url, FORMAT, realtime=True, say=print) as source:
        num = sum(1 for _ in source if not time.sleep(0.5))
    assert num + source.dropped == 20
    assert source.dropped > 0


def test_a_live_playlist_over_http_is_no_recording(tmp_path):
    """It has a size, which is that of the list and no duration."""
    (tmp_path / "a.ts").write_bytes(encoded("mpegts", num_frames=200))
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n"
    (tmp_path / "live.m3u8").write_text(f"{head}#EXTINF:10,\na.ts\n")
    with folder_server(tmp_path) as url, Source(f"{url}/live.m3u8", FORMAT, say=print) as source:
        for _ in zip(range(3), source, strict=False):
            time.sleep(0.5)
        assert source.dropped > 0


def test_http_that_stalls_in_the_middle_ends_with_an_error():
    content = encoded("mpegts", num_frames=30, size=(120, 160), noise=True)
    with (
        Http(content, stops_after=len(content) // 2) as server,
        pytest.raises(DataError, match="sent no frame for 1 s"),
    ):
        follow(server.url, 1000, [], silence_s=1.0)


def test_motion_jpeg_goes_by_arrival_and_not_by_an_assumed_rate():
    with MotionJpeg(fps=10) as server, Source(server.url, FORMAT, say=print) as source:
        times_s = [frame.time_s for frame, _ in zip(source, range(12), strict=False)]
        assert 5 < source.fps < 15
    assert times_s[-1] >= 1.1


@pytest.mark.parametrize("size", [None, (48, 64)])
def test_a_size_that_changes_begins_anew_unless_the_model_has_a_size_of_its_own(size):
    wanted = FrameFormat(channels=3, fps=20, size=size)
    with MotionJpeg(fps=20, grows_after=10) as server, Source(server.url, wanted, say=print) as source:
        frames = [frame for frame, _ in zip(source, range(30), strict=False)]
    sizes = {tuple(frame.pixels.shape[1:]) for frame in frames}
    assert sizes == ({(48, 64), (60, 80)} if size is None else {size})
    assert [frame.begins for frame in frames].count(True) == (2 if size is None else 1)


@pytest.mark.parametrize(
    ("content", "status", "line"),
    [
        (b"<html>a page</html>", "200 OK", "sends no video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{file}\n#EXT-X-ENDLIST\n", "200 OK", "no video"),
        (b"", "404 Not Found", "is not on its server"),
    ],
)
def test_answers_without_video_are_told(content, status, line, tmp_path):
    (tmp_path / "own.ts").write_bytes(encoded("mpegts"))
    with (
        Http(content.replace(b"{file}", str(tmp_path / "own.ts").encode()), status=status) as server,
        pytest.raises(DataError, match=line),
    ):
        follow(f"{server.url}.m3u8", 1, [], connect_s=10)


def test_a_camera_that_is_not_there_or_no_camera_is_told():
    with pytest.raises(DataError, match="there is no camera at /dev/video77; cameras here:"):
        follow("77", 1, [])
    with pytest.raises(DataError, match="/dev/null is no camera"):
        follow(os.devnull, 1, [])


@pytest.mark.slow
def test_a_handshake_of_twenty_seconds_is_waited_for():
    began = time.monotonic()
    with Rtsp(fps=20, wait_s=20) as server:
        assert follow(server.url, 3, [])[0].begins
    assert time.monotonic() - began >= 20
