"""A stream of pictures for browsers, as Motion JPEG over HTTP, with nothing but the standard library."""

from __future__ import annotations

import html
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Generic
from urllib.parse import urlsplit

from saccade.serve.address import Name, is_address, is_among, own_names
from saccade.serve.newest import MAX_VIEWERS, Item, Newest
from saccade.serve.server import listening_socket

_MAX_CONNECTIONS = 32
_TIMEOUT_S = 10.0
# Of the system: what waits there is late.
_SEND_BUFFER_BYTES = 1 << 17
_BOUNDARY = b"--saccade\r\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 1rem; background: #14181d; color: #e8ebee; font: 1rem/1.5 system-ui, sans-serif; text-align: center }}
img {{ max-width: 100%; max-height: 85vh }}
</style>
<h1>{title}</h1>
<img src="stream.mjpeg" alt="the newest frame, with where the model looked and its verdict">
<p>{caption}</p>
"""


class MjpegServer(Generic[Item]):
    """Show the newest item of a stream to any browser; a context manager.

    `/` is a page with the picture, `/stream.mjpeg` the pictures alone. **The newest item wins**, for each viewer: one
    that is slow or does not read gets fewer pictures, and delays neither the stream nor the others. While nobody
    watches, nothing is drawn.

    Requests for foreign host names are refused, as by `saccade serve`.

    Args:
        draw: returns an item as a JPEG file; it is called in one thread of its own.
        host: the address to listen on.
        port: the port to listen on; 0 selects a free port.
        title: the title of the page.
        caption: the text below the picture.

    Attributes:
        address: the address of the page.

    Raises:
        UsageError: if the port is in use, or this machine does not have the address.
    """

    def __init__(
        self, draw: Callable[[Item], bytes], *, host: str, port: int, title: str = "Live", caption: str = ""
    ) -> None:
        self._draw, self._newest = draw, Newest[Item]()
        page = _PAGE.format(title=html.escape(title), caption=html.escape(caption)).encode(errors="backslashreplace")
        self._server = _Server(listening_socket(host, port), own_names(host), page, self._newest)
        named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.address = f"http://{f'[{named}]' if ':' in named else named}:{self._server.server_address[1]}/"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), name="saccade-mjpeg"),
            threading.Thread(target=self._paint, name="saccade-mjpeg-drawing"),
        ]

    def __enter__(self) -> MjpegServer[Item]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._newest.close()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def is_watched(self) -> bool:
        """Return whether anybody watches."""
        return self._newest.num_viewers > 0

    def show(self, item: Item) -> None:
        """Show an item in place of the one before; this never waits.

        Raises:
            Exception: the error of `draw`, if it has failed.
        """
        self._newest.put(item)

    def _paint(self) -> None:
        try:
            for number, item in self._newest.wanted():
                self._newest.put_picture(number, self._draw(item))
        except Exception as error:
            self._newest.fail(error)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, listening: socket.socket, names: Iterable[Name], page: bytes, newest: Newest[Any]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.server_address = listening, listening.getsockname()[:2]
        self.names, self.page, self.newest = tuple(names), page, newest
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_full = len(self._connections) >= _MAX_CONNECTIONS
            if not is_full:
                self._connections.add(request)
        if is_full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Let every thread that sends or receives end."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # those are viewers that have left
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        host = self.headers.get("Host", "")
        if not is_address(host) and not is_among(host, self.server.names):
            self._answer(403, b"this host name is not accepted; open the page by the IP address of its machine\n")
            return
        match urlsplit(self.path).path:
            case "/":
                self._answer(200, self.server.page, "text/html; charset=utf-8")
            case "/stream.mjpeg":
                self._stream()
            case _:
                self._answer(404, b"there is no page at this address; open /\n")

    def version_string(self) -> str:
        """Return the name of this server; its versions are nobody's business."""
        return "saccade"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows predictions."""

    def _stream(self) -> None:
        if not self.server.newest.enter():
            self._answer(503, f"{MAX_VIEWERS} viewers watch already; try again later\n".encode())
            return
        try:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._begin(200, "multipart/x-mixed-replace; boundary=saccade")
            self.wfile.write(_BOUNDARY)
            with closing(self.server.newest.pictures()) as pictures:
                for jpeg in pictures:
                    self.wfile.write(_part(jpeg))
        finally:
            self.server.newest.leave()

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self._begin(status, kind)
        self.wfile.write(body)

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _part(jpeg: bytes) -> bytes:
    if not jpeg:  # nothing is drawn yet
        return b"\r\n"
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
    # Browsers show a picture when they see the boundary behind it.
    return head + jpeg + b"\r\n" + _BOUNDARY
