"""Live sources for tests, each in threads of its own on the loopback address: RTSP with PyAV at both ends, and HTTP."""

import contextlib
import io
import socket
import threading
import time
from fractions import Fraction

import av
import numpy as np

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)


def picture(number, size=(48, 64)):
    """Return a grey picture whose level tells its number."""
    return np.full((*size, 3), 20 + 5 * (number % 40), np.uint8)


def encoded(form, *, num_frames=24, fps=20, size=(48, 64), noise=False):
    """Return a video in a container of a form."""
    content, random = io.BytesIO(), np.random.default_rng(0)
    with av.open(content, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(num_frames):
            pixels = random.integers(0, 256, (*size, 3)).astype(np.uint8) if noise else picture(number, size)
            container.mux(stream.encode(_frame(pixels, number, fps)))
        container.mux(stream.encode(None))
    return content.getvalue()


def varying(times_s, size=(48, 64)):
    """Return a Matroska recording whose frames have these time stamps."""
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=20, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return content.getvalue()


def _frame(pixels, number, fps):
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts, frame.time_base = number, Fraction(1, fps)
    return frame


class _Server:
    """Accept connections and hold each of them in a thread until the block ends.

    Args:
        accepts: how many connections are accepted, before the port is closed.
    """

    def __init__(self, accepts=1000):
        self._accepts = accepts
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.connections, self._open, self._threads = 0, [], []
        self.is_closed = threading.Event()

    def __enter__(self):
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self.is_closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            if self.is_closed.is_set():
                connection.close()
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._held, args=(connection, self.connections)))
            self._threads[-1].start()
            if self.connections == self._accepts:
                self._listening.close()
                return

    def _held(self, connection, number):
        with contextlib.suppress(OSError, ValueError, av.FFmpegError):
            self.serve(connection, number)

    def serve(self, connection, number):
        """Talk over a connection; it stays open behind this, as one that is silent."""

    def drop(self, connection):
        """Close a connection, as a camera that loses its power."""
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


class Silent(_Server):
    """Accepts connections and never answers."""


class Rtsp(_Server):
    """A camera that sends H.264 over RTSP.

    Args:
        fps: frames per second, by its stamps and its pace.
        stops_after: after how many frames a connection is closed, by its number from 1; others never are.
        stalls_after: after how many frames a connection stays open without any more, by its number.
        jumps_after: after how many frames the stamps jump by an hour.
        wait_s: the time before the first answer.
        password: what is asked for; None for nothing.
        accepts: as for all servers.
    """

    def __init__(
        self,
        fps=20,
        *,
        stops_after=None,
        stalls_after=None,
        jumps_after=None,
        wait_s=0.0,
        password=None,
        accepts=1000,
    ):
        super().__init__(accepts)
        self._fps, self._jumps_after = fps, jumps_after
        self._stops_after, self._stalls_after = stops_after or {}, stalls_after or {}
        self._wait_s, self._password = wait_s, password
        self.url = f"rtsp://127.0.0.1:{self.port}/door"

    def serve(self, connection, number):
        self.is_closed.wait(self._wait_s)
        requests = connection.makefile("rb")
        while lines := _request(requests):
            method, headers = lines[0].split()[0], "\r\n".join(lines[1:])
            sequence = next(line for line in lines if line.lower().startswith("cseq"))
            status, more, body = "200 OK", "", ""
            if self._password and "authorization" not in headers.lower():
                status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="door"\r\n'
            elif method == "DESCRIBE":
                body, more = _SDP, f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n"
            elif method == "SETUP":
                more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "PLAY":
                more = "Session: 1\r\n"
            connection.sendall(f"RTSP/1.0 {status}\r\n{sequence}\r\n{more}\r\n{body}".encode())
            if method == "PLAY":
                self._play(connection, self._stops_after.get(number), self._stalls_after.get(number))

    def _play(self, connection, stops_after, stalls_after):
        began = time.monotonic()
        # Packets are as large as the muxer's buffer, which is far larger than these frames.
        with av.open(_Interleaved(connection), "w", format="rtp") as container:
            stream = container.add_stream("libx264", rate=self._fps, options={"tune": "zerolatency", "g": "10"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            number = 0
            while not self.is_closed.is_set() and number not in (stops_after, stalls_after):
                has_jumped = self._jumps_after is not None and number >= self._jumps_after
                frame = _frame(picture(number), number + has_jumped * 3600 * self._fps, self._fps)
                container.mux(stream.encode(frame))
                number += 1
                self.is_closed.wait(max(0.0, began + number / self._fps - time.monotonic()))
            if number == stalls_after:
                self.is_closed.wait()
            if number == stops_after:
                self.drop(connection)


class _Interleaved:
    """A file that sends each RTP packet over the RTSP connection."""

    def __init__(self, connection):
        self._connection = connection

    def write(self, packet):
        channel = 1 if 200 <= packet[1] <= 204 else 0  # RTCP or RTP
        self._connection.sendall(bytes((0x24, channel)) + len(packet).to_bytes(2, "big") + bytes(packet))
        return len(packet)


class Http(_Server):
    """Answers each request with the same bytes.

    Args:
        content: the bytes.
        stops_after: after how many bytes no more come, while the connection stays open.
        status: the line of the answer.
    """

    def __init__(self, content=b"", *, stops_after=None, status="200 OK"):
        super().__init__()
        self._content, self._stops_after, self._status = content, stops_after, status
        self.url = f"http://127.0.0.1:{self.port}/clip"

    def serve(self, connection, number):
        _request(connection.makefile("rb"))
        head = f"HTTP/1.1 {self._status}\r\nContent-Length: {len(self._content)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + self._content[: self._stops_after])
        if self._stops_after is None:
            self.drop(connection)


class MotionJpeg(_Server):
    """A camera that sends JPEG pictures over HTTP, without time stamps.

    Args:
        fps: pictures per second.
        grows_after: after how many pictures they get larger.
    """

    def __init__(self, fps, *, grows_after=None):
        super().__init__()
        self._fps, self._grows_after, self.url = fps, grows_after, f"http://127.0.0.1:{self.port}/video"

    def serve(self, connection, number):
        _request(connection.makefile("rb"))
        kind = "multipart/x-mixed-replace; boundary=next"
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
        number = 0
        while not self.is_closed.wait(1 / self._fps):
            has_grown = self._grows_after is not None and number >= self._grows_after
            jpeg = _jpeg(picture(number, (60, 80) if has_grown else (48, 64)))
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            connection.sendall(head.encode() + jpeg + b"\r\n")
            number += 1


def _jpeg(pixels):
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *pixels.shape[:2], "yuvj420p", Fraction(1, 25)
    frame = _frame(pixels, 0, 25).reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _request(file):
    lines = []
    while (line := file.readline().decode().strip()) or not lines:
        if not line:
            return []
        lines.append(line)
    return lines
