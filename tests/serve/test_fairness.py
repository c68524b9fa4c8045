"""A page or a program that asks for much, and how little the others notice: a real server, real sockets."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol

from saccade.data import digits
from saccade.data.digits import DigitStream, strokes
from saccade.serve import messages

from .talk import SETTINGS, UPGRADE, Page, rate


def scribble(num_strokes, num_points):
    chance = random.Random(0)
    return [[[chance.randrange(256), chance.randrange(256)] for _ in range(num_points)] for _ in range(num_strokes)]


def message(kind, **fields):
    return json.dumps({"type": kind, **fields})


DRAW = message("draw", slot=0, strokes=scribble(32, 158))  # 57 kB
START = message("start", seed=1, settings=SETTINGS)
START_WITH_DRAWINGS = message(
    "start",
    seed=1,
    settings=SETTINGS,
    digits=[{"type": "draw", "slot": slot, "strokes": scribble(32, 150)} for slot in range(2)],
)


def alone_s(function, times=1):
    """Return how long something takes here."""
    begin = time.perf_counter()
    for _ in range(times):
        function()
    return time.perf_counter() - begin


def draw():
    strokes.draw(scribble(32, 158))


def start():
    DigitStream(digits.load("strokes", "test"), seed=1)


@pytest.mark.parametrize(
    ("sent", "times", "work"),
    [(DRAW, 2, draw), (START_WITH_DRAWINGS, 1, draw), (START, 250, start)],
    ids=["draw", "start with drawings", "start"],
)
def test_the_server_answers_while_it_does_what_a_page_asks_for(server, page, sent, times, work):
    page.start()
    page.frames(2)
    work()
    whole_s = alone_s(work, times)
    longest_s = 0.0
    for _ in range(times):
        page.socket.send(sent)
    for _ in range(8):
        longest_s = max(longest_s, alone_s(server.status))
    # Were the work done where messages are read, the first to ask would wait for all of it.
    assert longest_s < whole_s / 2


def frames_while(honest, hostile, sent, answers):
    """Count the frames of a page between the first and the last of so many answers to another."""
    counted, ended = [], threading.Event()

    def watch():
        while not ended.is_set():
            honest.take_until("frame")
            counted.append(1)

    watching = threading.Thread(target=watch)
    watching.start()
    for _ in range(answers):
        hostile.socket.send(sent)
    hostile.take_until("digit")
    before = len(counted)
    for _ in range(answers - 1):
        hostile.take_until("digit")
    number = len(counted) - before
    ended.set()
    watching.join()
    return number


def test_between_two_drawings_of_a_page_another_gets_its_frames(server, page):
    page.start()
    with Page(server) as hostile:
        hostile.start()
        for watched in (page, hostile):
            watched.say("show", models=["lenet-lstm"], saliency=[], clean=True)
        page.frames(5)
        hostile.say("pause", paused=True)
        # Drawing after drawing, a fifth of a processor is theirs: in between there is time for several frames.
        assert frames_while(page, hostile, DRAW, answers=9) >= 2 * 8


class Flood:
    """A page that says one thing over and over, and shows all frames that it gets."""

    def __init__(self, server, sent, pause_s):
        self.page, self.sent, self.pause_s = Page(server), sent, pause_s
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.talk, self.listen)]

    def __enter__(self):
        self.page.__enter__().start()
        for thread in self.threads:
            thread.start()

    def __exit__(self, *how):
        self.ended.set()
        # What is still on its way is nobody's concern.
        with contextlib.suppress(OSError):
            self.page.socket.socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.page.__exit__(*how)

    def talk(self):
        with contextlib.suppress(ConnectionClosed):
            while not self.ended.is_set():
                for text in self.sent:
                    self.page.socket.send(text)
                time.sleep(self.pause_s)

    def listen(self):
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.page.take_until("frame")


MODELS = ["lenet-lstm", "stn-lstm", "dcn-lstm"]


@pytest.mark.parametrize(
    ("sent", "pause_s"),
    [
        ([DRAW], 0.1),
        ([message("show", models=MODELS * 10, saliency=MODELS, clean=True)], 0.01),
    ],
    ids=["draw", "show everything ten times"],
)
def test_a_page_keeps_its_rate_beside_one_that_floods(server, page, sent, pause_s):
    # Side by side. The machine may be busy with other things, hence a wide margin where nine tenths are meant.
    page.start()
    page.say("show", models=["lenet-lstm"], saliency=[], clean=True)
    alone, beside = 0.0, 0.0
    for _ in range(3):
        alone += rate(page, 1.0)
        with Flood(server, sent, pause_s):
            beside += rate(page, 1.5)
    assert beside > 0.5 * alone


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\0\x80\0\0\0\0"], ids=["pings", "empty parts of a message"])
def test_a_flood_of_frames_without_a_message_holds_nobody_up(server, frame):
    flood = frame * 40_000
    begin = b"\x01\x81\0\0\0\0{"  # of a message, masked with zeros, whose parts are to come
    whole_s = alone_s(lambda: ServerProtocol(state=State.OPEN).receive_data(begin + flood))
    server.wait_for_pages(0)
    with server.connect() as flooding:
        flooding.sendall(UPGRADE.format(netloc=server.netloc).encode())
        flooding.recv(1000)
        flooding.sendall(begin)
        sending = threading.Thread(target=send_all, args=(flooding, flood))
        sending.start()
        longest_s = max(alone_s(server.status) for _ in range(8))
        flooding.shutdown(socket.SHUT_RDWR)
        sending.join()
    assert longest_s < whole_s / 2
    server.wait_for_pages(0)


def send_all(connection, data):
    with contextlib.suppress(OSError):
        connection.sendall(data)


def test_a_drawing_of_very_many_points_costs_little_more_than_one_of_many():
    from saccade.serve.sources import drawn_image

    def cost_s(num_strokes, num_points):
        drawn = messages.Drawn(slot=0, strokes=[[tuple(p) for p in s] for s in scribble(num_strokes, num_points)])
        begin = time.thread_time()
        drawn_image(drawn)
        return time.thread_time() - begin

    cost_s(1, 512)
    assert cost_s(32, 512) < 8 * cost_s(1, 512)
