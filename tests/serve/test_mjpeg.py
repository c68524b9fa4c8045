"""The stream of pictures: who gets which, who waits for whom, and that it ends."""

import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image

from saccade.errors import UsageError
from saccade.serve.mjpeg import MjpegServer
from saccade.serve.newest import MAX_VIEWERS

from ..stream.sources import encoded

LARGE = 4 << 20
"""Bytes of a picture that no buffer of the system holds."""


class Drawing:
    """Draws a number as a picture of some bytes, and tells which it has drawn."""

    def __init__(self, num_bytes=100):
        self.drawn, self._num_bytes = [], num_bytes
        self.may_draw = threading.Event()
        self.may_draw.set()

    def __call__(self, number):
        self.may_draw.wait()
        self.drawn.append(number)
        return f"{number:09}".encode() * (self._num_bytes // 9)


@contextmanager
def serving(draw, **options):
    with MjpegServer(draw, host="127.0.0.1", port=0, **options) as server:
        yield server


class Viewer:
    """A client that has asked for the stream, and reads when it is told to."""

    def __init__(self, address, host="127.0.0.1"):
        self._socket = socket.create_connection(("127.0.0.1", httpx.URL(address).port), timeout=60)
        self._socket.sendall(f"GET /stream.mjpeg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")

    def head(self):
        """Return the first line of the answer, and its headers."""
        lines = list(iter(self._file.readline, b"\r\n"))
        return lines[0].decode().strip(), dict(line.decode().strip().split(": ", 1) for line in lines[1:])

    def picture(self):
        """Return the next picture; None at the end."""
        length = None
        while line := self._file.readline():
            if line.lower().startswith(b"content-length"):
                length = int(line.partition(b":")[2])
            if line == b"\r\n" and length is not None:
                return self._file.read(length)
        return None

    def number(self):
        picture = self.picture()
        return None if picture is None else int(picture[:9])

    def close(self):
        self._file.close()
        self._socket.close()


def wait_until(condition):
    """Wait for a condition, far longer than it takes on a busy machine."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_viewer_gets_each_picture_if_it_keeps_up():
    with serving(Drawing()) as server, closing(Viewer(server.address)) as viewer:
        status, headers = viewer.head()
        assert status == "HTTP/1.0 200 OK"
        assert headers["Content-Type"] == "multipart/x-mixed-replace; boundary=saccade"
        for number in range(1, 6):
            server.show(number)
            assert viewer.number() == number


def test_nothing_is_drawn_while_nobody_watches():
    draw = Drawing()
    with serving(draw) as server:
        for number in range(50):
            server.show(number)
        assert not server.is_watched()
        with closing(Viewer(server.address)) as viewer:
            assert viewer.number() == 49  # what is there is shown at once
            assert server.is_watched()
        wait_until(lambda: server.show(50) or not server.is_watched())
        num = len(draw.drawn)
        for number in range(60, 90):
            server.show(number)
        draw.may_draw.clear()
        with closing(Viewer(server.address)) as viewer:
            threading.Timer(0.3, draw.may_draw.set).start()
            assert viewer.number() == 89  # and no picture of before
    assert draw.drawn[num:] in ([89], [50, 89])  # one may have been wanted when the viewer left


def test_a_viewer_that_does_not_read_delays_nobody_and_gets_the_newest():
    draw = Drawing(LARGE)
    with serving(draw) as server, closing(Viewer(server.address)) as idle, closing(Viewer(server.address)) as viewer:
        idle.head()
        wait_until(server.is_watched)
        for number in range(1, 11):
            server.show(number)
            assert viewer.number() == number
        # One picture was on its way; what came between it and the newest is left out.
        assert idle.number() <= 10
        assert idle.number() == 10


def test_there_are_only_so_many_viewers():
    with serving(Drawing()) as server:
        server.show(1)
        viewers = [Viewer(server.address) for _ in range(MAX_VIEWERS)]
        assert [viewer.number() for viewer in viewers] == [1] * MAX_VIEWERS
        answer = httpx.get(f"{server.address}stream.mjpeg")
        assert (answer.status_code, "later" in answer.text) == (503, True)
        assert httpx.get(server.address).status_code == 200
        viewers.pop().close()
        while len(viewers) < MAX_VIEWERS:  # that it has left is noticed when something is sent to it
            server.show(2)
            viewers.append(Viewer(server.address))
            if "503" in viewers[-1].head()[0]:
                viewers.pop().close()
        assert viewers[-1].number() == 2
        for viewer in viewers:
            viewer.close()


def test_the_page_holds_the_stream_and_takes_no_markup():
    with serving(Drawing(), title="<script>x</script>", caption="a & {b}") as server:
        answer = httpx.get(server.address)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert '<img src="stream.mjpeg"' in answer.text
    assert "<h1>&lt;script&gt;x&lt;/script&gt;</h1>" in answer.text
    assert "a &amp; {b}" in answer.text
    assert "Python" not in answer.headers["server"]


def test_other_addresses_and_foreign_names_are_refused():
    with serving(Drawing()) as server:
        assert httpx.get(f"{server.address}other").status_code == 404
        for path in ("", "stream.mjpeg"):
            answer = httpx.get(f"{server.address}{path}", headers={"Host": "evil.example"})
            assert (answer.status_code, "IP address" in answer.text) == (403, True)
        for host in ("localhost:1", "192.168.1.7"):
            assert httpx.get(server.address, headers={"Host": host}).status_code == 200
        for host in ("", "[", "localhost.evil.example", "evil.example@localhost"):
            with closing(Viewer(server.address, host)) as viewer:
                assert viewer.head()[0].startswith("HTTP/1.0 403")


def test_it_ends_with_the_stream_whatever_viewers_do():
    num_threads = threading.active_count()
    with serving(Drawing(LARGE)) as server:
        idle, viewer = Viewer(server.address), Viewer(server.address)
        silent = socket.create_connection(("127.0.0.1", httpx.URL(server.address).port))
        server.show(1)
        assert viewer.number() == 1
        idle.head()
        wait_until(lambda: threading.active_count() == num_threads + 2 + 3)  # the server's, and one a connection
    assert viewer.number() is None
    assert threading.active_count() == num_threads
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.address)
    for one in (idle, viewer, silent):
        one.close()


def test_an_error_of_drawing_ends_the_stream():
    def draw(number):
        raise ValueError(f"cannot draw {number}")

    with serving(draw) as server, closing(Viewer(server.address)), pytest.raises(ValueError, match="cannot draw"):
        wait_until(lambda: server.show(1))


def test_a_port_in_use_is_told():
    with serving(Drawing()) as server:
        port = httpx.URL(server.address).port
        with pytest.raises(UsageError, match=f"port {port} .*in use"):
            MjpegServer(Drawing(), host="127.0.0.1", port=port)


def test_the_terminal_shows_a_stream_in_the_browser_too(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(encoded("mp4", num_frames=50, fps=10, size=(96, 128)))
    command = [sys.executable, "-m", "saccade.cli", "stream", str(tmp_path / "clip.mp4"), "--model", "stn-lstm"]
    options = ["--realtime", "--mjpeg", "--port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = re.fullmatch("see the stream: (http.*/)\n", process.stderr.readline())[1]
        assert "clip.mp4" in httpx.get(address).text
        with closing(Viewer(address)) as viewer:
            pictures = [viewer.picture() for _ in range(4)]
        lines = process.stdout.read().splitlines()
        told = process.stderr.read()
    # A busy machine may be too slow for the model.
    assert re.fullmatch(r"(\d+ of 50 frames were dropped: .*\n)?", told)
    assert process.returncode == 0
    assert all("probability" in json.loads(line) for line in lines)
    for picture in pictures:
        shown = np.asarray(Image.open(io.BytesIO(picture), formats=["JPEG"])).astype(int)
        assert max(shown.shape) >= 640
        # The outline of the transformer's area: orange, in no grey frame. The first picture may be of a frame before.
    orange = (np.abs(shown - [238, 119, 51]).max(-1) < 40).sum()
    assert orange > 500


@pytest.mark.parametrize("options", [["--port", "9000"], ["--host", "0.0.0.0"], ["--mjpeg", "--port", "70000"]])
def test_a_wrong_port_is_refused(tmp_path, options):
    from saccade.cli import main

    assert main(["stream", str(tmp_path / "clip.mp4"), "--model", "stn-lstm", *options]) == 2
