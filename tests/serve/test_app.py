"""The application in this process, where what it keeps can be counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from saccade.data import digits
from saccade.errors import DataError
from saccade.serve import upload
from saccade.serve.address import Name
from saccade.serve.app import create_app
from saccade.serve.engine import Engine, load_models
from saccade.serve.session import Session

from .talk import SETTINGS

testclient = pytest.importorskip("fastapi.testclient", reason="the application is called with httpx")


def application(load, *, max_clients=2):
    failures = []
    app = create_app(load, max_clients=max_clients, names=[Name("testserver")], failed=lambda: failures.append(1))
    return app, failures


@pytest.fixture
def client(untrained):
    def load():
        return Engine(load_models(untrained[:1]), digits.load("strokes", "test"), min_confidence=0.5)

    app, _ = application(load)
    with testclient.TestClient(app) as opened:
        yield opened


def take_until(socket, kind):
    while (message := socket.receive_json())["type"] != kind:
        pass
    return message


@pytest.fixture
def sessions(monkeypatch):
    """Tell which sessions are alive. (A list of all objects holds tuples that other threads are still building.)"""
    made, begin = weakref.WeakSet(), Session.__init__

    def noticed(session, *arguments):
        made.add(session)
        begin(session, *arguments)

    monkeypatch.setattr(Session, "__init__", noticed)

    def alive():
        gc.collect()
        return list(made)

    return alive


def test_closing_the_page_frees_its_state(client, sessions):
    for _ in range(2):
        with client.websocket_connect("/api/stream") as socket:
            take_until(socket, "hello")
            socket.send_text(json.dumps({"type": "start", "seed": 1, "settings": SETTINGS}))
            take_until(socket, "frame")
            assert len(sessions()) == 1
            socket.close()
            # The frame that was being computed may still be.
            end = time.monotonic() + 20
            while sessions() and time.monotonic() < end:
                time.sleep(0.05)
            assert sessions() == []
            assert client.get("/api/status").json()["pages"] == 0


def test_models_that_cannot_be_loaded_are_told_to_the_page_and_to_the_server():
    def load():
        raise ValueError("no such weights")

    app, failures = application(load)
    with testclient.TestClient(app) as opened, opened.websocket_connect("/api/stream") as socket:
        assert take_until(socket, "closed")["message"] == "the models cannot be loaded: no such weights"
    assert failures == [1]


def test_a_stream_that_fails_ends_and_its_place_is_free(client, monkeypatch):
    def fail(self, missed):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Session, "next_frame", fail)
    with client.websocket_connect("/api/stream") as socket:
        take_until(socket, "hello")
        socket.send_text(json.dumps({"type": "start", "seed": 1, "settings": SETTINGS}))
        assert socket.receive()["code"] == 1011
    assert client.get("/api/status").json()["pages"] == 0


def test_of_many_videos_two_are_decoded_at_once(untrained, monkeypatch):
    running = []

    async def decode(path, *_wanted):
        running.append(running[-1] + 1 if running else 1)
        await asyncio.sleep(0.2)
        running.append(running[-1] - 1)
        raise DataError("enough")

    monkeypatch.setattr(upload, "decode", decode)
    app, _ = application(lambda: Engine(load_models(untrained[:1]), min_confidence=0.5), max_clients=4)
    with testclient.TestClient(app) as opened, contextlib.ExitStack() as pages, ThreadPoolExecutor(4) as senders:
        sockets = [pages.enter_context(opened.websocket_connect("/api/stream")) for _ in range(4)]
        tokens = [take_until(socket, "hello")["token"] for socket in sockets]
        answers = senders.map(lambda token: opened.post(f"/api/video/{token}", content=b"a video"), tokens)
        assert [answer.json() for answer in answers] == [{"message": "enough"}] * 4
        for socket in sockets:
            socket.close()
        # The client fails where it takes a page away that has not ended yet.
        end = time.monotonic() + 20
        while opened.get("/api/status").json()["pages"] and time.monotonic() < end:
            time.sleep(0.02)
    assert max(running) == 2


def test_a_slash_too_many_is_no_address(server):
    for path in ("/index.html/", "/api/status/"):
        status, _, headers = server.get(path)
        assert status == 404
        assert "location" not in {name.lower() for name in headers}
