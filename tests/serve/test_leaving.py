"""Pages, uploads and the server itself that end in the middle of something: real processes, real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from saccade.data import video_writing

from .talk import Page


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video_writing.write_mp4(path, torch.zeros(8, 1, 64, 64, dtype=torch.uint8), fps=20)
    return path.read_bytes()


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def begin_upload(server, token, data, length=None):
    """Send the head of an upload, and what there is of its body."""
    connection = server.connect()
    head = f"POST /api/video/{token} HTTP/1.1\r\nHost: {server.netloc}\r\nContent-Length: {length or len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the decoder's process where Linux tells it")


def stopped_decoders(server, number):
    """Wait for the processes that decode, and stop them, so that they come to no end by themselves."""

    def decoders():
        children = server.children()
        # Until it has a program of its own, a new process holds up the one that made it.
        are_running = all(b"saccade.serve.decode" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children)
        return children if len(children) == number and are_running else None

    found = wait_for(decoders)
    for decoder in found:
        os.kill(decoder, signal.SIGSTOP)
    return found


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- Uploads


@needs_proc
def test_an_upload_whose_sender_goes_makes_room_for_the_next(server, page, clip):
    token = page.start()["token"]
    page.say("pause", paused=True)
    with begin_upload(server, token, clip):
        (decoder,) = stopped_decoders(server, 1)
        assert server.post(f"/api/video/{token}", clip)[0] == 409  # while it is under way
    wait_for(lambda: has_ended(decoder))

    def answered():
        status, body, _ = server.post(f"/api/video/{token}", clip)
        return status != 409 and (status, json.loads(body))  # the server may see the end a moment later

    status, answer = wait_for(answered)
    assert (status, answer["frames"]) == (200, 8)


@needs_proc
def test_senders_that_go_give_the_decoders_back_to_all(make_server, untrained, clip):
    made = make_server("--port", 0, "--max-clients", 4, "--model", untrained[0])
    made.wait_until_ready()
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(made)) for _ in range(4)]
        tokens = [page.start()["token"] for page in pages]
        gone = [begin_upload(made, token, clip) for token in tokens[:3]]
        stopped_decoders(made, 2)
        for connection in gone:
            connection.close()
        with begin_upload(made, tokens[3], clip) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")  # before stopped ones would be given up


@needs_proc
def test_an_upload_ends_with_its_page(make_server, untrained, clip, tmp_path):
    made = make_server("--port", 0, "--max-clients", 1, "--model", untrained[0], TMPDIR=tmp_path)
    made.wait_until_ready()
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # one after the other on the only place
            with Page(made) as page:
                token = page.start()["token"]
                stack.enter_context(begin_upload(made, token, clip[:100], 10_000_000))
                wait_for(lambda: list(tmp_path.glob("saccade-upload-*/upload")))
            made.wait_for_pages(0)
            wait_for(lambda: not list(tmp_path.glob("saccade-upload-*")))
        with Page(made) as page:
            stack.enter_context(begin_upload(made, page.start()["token"], clip))
            (decoder,) = stopped_decoders(made, 1)
        wait_for(lambda: has_ended(decoder))
    assert "Traceback" not in made.log.read_text()


@needs_proc
def test_a_disk_that_is_full_is_told(make_server, untrained, tmp_path):
    made = make_server("--port", 0, "--model", untrained[0], TMPDIR=tmp_path)
    made.wait_until_ready()
    resource.prlimit(made.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
    with Page(made) as page:
        token = page.start()["token"]
        page.say("pause", paused=True)
        status, body, _ = made.post(f"/api/video/{token}", bytes(1_000_000))
    assert (status, json.loads(body)["message"]) == (507, "the server cannot store the video: File too large")
    assert list(tmp_path.glob("saccade-upload-*")) == []


def test_clients_that_break_off_leave_no_debt(make_server, untrained):
    made = make_server("--port", 0, "--model", untrained[0])
    made.wait_until_ready()
    head = (
        f"GET /api/stream HTTP/1.1\r\nHost: {made.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for _ in range(1500):
        with contextlib.suppress(OSError), made.connect() as connection:
            connection.sendall(head.encode())
    # A hundred requests a second are allowed, so that a debt would last for over ten seconds.
    wait_for(lambda: made.get("/api/status")[0] == 200, seconds=6)
    assert "Traceback" not in made.log.read_text()


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=needs_proc)], ids=["receiving", "decoding"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_ended_leaves_no_video_behind(make_server, untrained, clip, tmp_path, is_whole, number):
    made = make_server("--port", 0, "--model", untrained[0], TMPDIR=tmp_path)
    made.wait_until_ready()
    with Page(made) as page:
        token = page.start()["token"]
        page.say("pause", paused=True)
        with begin_upload(made, token, clip, None if is_whole else 10_000_000):
            wait_for(lambda: list(tmp_path.glob("saccade-upload-*/upload")))
            decoders = stopped_decoders(made, 1) if is_whole else []
            made.process.send_signal(number)
            status = made.process.wait(30)
    assert list(tmp_path.glob("saccade-upload-*")) == []
    assert status == (-signal.SIGTERM if number == signal.SIGTERM else 0)
    assert all(map(has_ended, decoders))
    log = made.log.read_text()
    assert log.endswith("ended\n")
    assert "Traceback" not in log


# --- Pages


HELD_UP = """
import os, sys, time

class HeldUp:
    def find_spec(self, name, path=None, target=None):
        while name == "saccade.serve.engine" and not os.path.exists({go!r}):
            time.sleep(0.01)

sys.meta_path.insert(0, HeldUp())
"""
"""Hold up the thread that loads a single model until a file is there: on a fast machine it would end too early."""


def test_a_page_that_goes_while_models_load_leaves_its_place_and_no_traceback(make_server, untrained, tmp_path):
    go = tmp_path / "go"
    (tmp_path / "sitecustomize.py").write_text(HELD_UP.format(go=str(go)))
    made = make_server("--port", 0, "--max-clients", 1, "--model", untrained[0], PYTHONPATH=tmp_path)
    for _ in range(3):
        with Page(made) as page:
            assert page.take()["type"] == "loading"
            page.say("pause", paused=True)
        made.wait_for_pages(0, seconds=5)
    with Page(made) as page:
        assert page.take()["type"] == "loading"
        page.socket.socket.shutdown(socket.SHUT_RDWR)
    made.wait_for_pages(0, seconds=5)
    assert not made.status()["ready"]
    go.touch()
    made.wait_until_ready()
    with Page(made) as page:
        page.start()
        page.frames(2)
    made.interrupt()
    log = made.log.read_text()
    assert "Traceback" not in log
    assert "Exception" not in log


# --- Connections


def test_many_who_never_finish_their_request_keep_nobody_out(make_server, untrained):
    made = make_server("--port", 0, "--model", untrained[0])
    with contextlib.ExitStack() as stack:
        half = [stack.enter_context(made.connect()) for _ in range(140)]
        for connection in half:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        for _ in range(5):
            assert made.get("/")[0] == 200
        # Nor is any of them waited for forever.
        for connection in half:
            connection.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1000) == b""


# --- Digits


def write_idx(folder: Path, labels):
    """Write a digit source whose test part has these labels."""
    count = len(labels)
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(
            b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28)) + bytes(count * 28 * 28)
        )
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(labels))


def test_digits_that_lack_a_class_are_told_at_the_start(make_server, untrained, tmp_path):
    write_idx(tmp_path, [0, 1, 2, 4, 5, 6, 8, 9] * 3)
    made = make_server("--port", 0, "--model", untrained[0], "--digits", tmp_path)
    assert made.process.wait(60) == 1
    told = made.log.read_text().strip().splitlines()[-1]
    assert told == f"saccade: the test images of --digits {tmp_path} lack 3, 7; the page needs all ten digits"


def test_a_folder_with_all_ten_digits_is_shown(make_server, untrained, tmp_path):
    write_idx(tmp_path, range(10))
    made = make_server("--port", 0, "--model", untrained[0], "--digits", tmp_path)
    made.wait_until_ready()
    with Page(made) as page:
        page.start()
        assert page.frames(1)[0]["digits"]
