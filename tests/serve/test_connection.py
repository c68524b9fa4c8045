"""What one connection may take: a real server with a small application, and bare sockets."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="connections are limited in front of uvicorn")
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402

from saccade.serve import connection  # noqa: E402
from saccade.serve.connection import Connections, Limited  # noqa: E402

LARGE = 32 << 20


async def application(scope, receive, send):
    """Answer `/` at once, `/slow` after a second, and `/large` at length; say yes to every WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = bytes(LARGE) if scope["path"] == "/large" else b"here"
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def address():
    """Start a server in a thread; return its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Limited(application), http=Connections(H11Protocol), lifespan="off", log_level="error", ws_ping_interval=None,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join()


def request(path="/", *, method="GET", headers=""):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def ask(address, sent=None):
    """Send a request, and return the beginning of the answer."""
    with socket.create_connection(address, timeout=30) as asking:
        asking.sendall(request() if sent is None else sent)
        return asking.recv(1000)


def send_for_a_while(asking, what):
    for _ in range(200):
        asking.sendall(what)
        time.sleep(0.1)


def seconds_until_closed(asking, most=20):
    begin = time.monotonic()
    asking.settimeout(most)
    with contextlib.suppress(ConnectionResetError):
        while asking.recv(1 << 16):
            pass
    return time.monotonic() - begin


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        request() + b"GET / HT",
        # An answer does not make up for the body that never comes.
        request(method="POST", headers="Content-Length: 1000000\r\n") + b"some",
        request(headers="Content-Length: 5\r\n") + b"s",
    ],
)
def test_who_does_not_ask_is_not_kept(address, monkeypatch, sent):
    monkeypatch.setattr(connection, "MAX_ASK_S", 0.5)
    with socket.create_connection(address) as asking:
        asking.sendall(sent)
        assert seconds_until_closed(asking) > 0.3


def test_who_sends_a_letter_at_a_time_is_not_kept(address, monkeypatch):
    monkeypatch.setattr(connection, "MAX_ASK_S", 0.5)
    with socket.create_connection(address) as asking, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        send_for_a_while(asking, b"x")


def test_who_is_being_answered_is_kept(address, monkeypatch):
    monkeypatch.setattr(connection, "MAX_ASK_S", 0.3)
    assert ask(address, request("/slow")).startswith(b"HTTP/1.1 200")
    with socket.create_connection(address, timeout=30) as page:
        page.sendall(request(headers=UPGRADE))
        assert page.recv(1000).startswith(b"HTTP/1.1 101")
        page.settimeout(1)
        with pytest.raises(TimeoutError):
            page.recv(1000)


def test_one_who_asks_on_gets_all_answers(address):
    with socket.create_connection(address, timeout=30) as asking:
        for _ in range(3):
            asking.sendall(request())
            answer = b""
            while not answer.endswith(b"here\r\n0\r\n\r\n"):
                answer += asking.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")


def test_of_those_who_do_not_ask_the_oldest_make_room(address):
    with contextlib.ExitStack() as stack:
        half = [stack.enter_context(socket.create_connection(address)) for _ in range(connection.MAX_ASKING + 30)]
        for asking in half:
            asking.sendall(b"GET / HT")
        assert ask(address).startswith(b"HTTP/1.1 200")
        assert seconds_until_closed(half[0]) < connection.MAX_ASK_S / 2
        half[-1].sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert half[-1].recv(1000).startswith(b"HTTP/1.1 200")


def test_who_does_not_read_is_not_kept(address, monkeypatch):
    monkeypatch.setattr(connection, "MAX_STALL_S", 0.5)
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect(address)
        asking.settimeout(20)
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            send_for_a_while(asking, request("/large"))
        assert ask(address).startswith(b"HTTP/1.1 200")


def test_who_reads_slowly_gets_all_of_it(address, monkeypatch):
    monkeypatch.setattr(connection, "MAX_STALL_S", 1.0)
    with socket.create_connection(address, timeout=30) as asking:
        asking.sendall(request("/large", headers="Connection: close\r\n"))
        read = 0
        begin = time.monotonic()
        while piece := asking.recv(1 << 20):
            read += len(piece)
            if time.monotonic() - begin < 2:
                time.sleep(0.1)
        assert read > LARGE
