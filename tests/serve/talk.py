"""A server in a second process, and what talks to it as a page does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from websockets.sync.client import connect

SETTINGS = {
    "num_digits": 2,
    "max_angle_deg": 60.0,
    "scale_low": 0.6,
    "scale_high": 1.0,
    "speed_px": 1.5,
    "tempo": 1.0,
    "per_digit": True,
    "clutter": 0,
    "noise": 0.0,
}

UPGRADE = (
    "GET /api/stream HTTP/1.1\r\nHost: {netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Server:
    """`saccade serve` in a second process, with environment variables of its own."""

    def __init__(self, log: Path, *words: object, **variables: object) -> None:
        self.log = log
        command = [sys.executable, "-m", "saccade.cli", "serve", "--digits", "strokes", *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in variables.items()}
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stderr=errors, env=environment, start_new_session=True)
        self.address = self.wait_for(r"(http://\S+)").rstrip("/")

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        """Wait until the log has a line like this; return its first group."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {pattern} in: {self.log.read_text()}")

    @property
    def netloc(self) -> str:
        return self.address.split("/")[2]

    @property
    def port(self) -> int:
        return int(self.netloc.rpartition(":")[2])

    def connect(self) -> socket.socket:
        """Open a bare connection."""
        return socket.create_connection((self.netloc.rpartition(":")[0], self.port), timeout=60)

    def children(self) -> list[int]:
        """List the processes that it has started."""
        folder = Path(f"/proc/{self.process.pid}/task")
        return [int(child) for task in folder.iterdir() for child in (task / "children").read_text().split()]

    def get(self, path: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Ask for a path; errors are answers too."""
        request = urllib.request.Request(self.address + path, headers=headers)
        return _answer(request)

    def post(self, path: str, data: bytes, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        request = urllib.request.Request(self.address + path, data=data, method="POST", headers=headers)
        return _answer(request)

    def status(self) -> dict[str, object]:
        return json.loads(self.get("/api/status")[1])

    def wait_until_ready(self) -> None:
        self.wait_for("(models loaded)")

    def wait_for_pages(self, number: int, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while self.status()["pages"] != number:
            assert time.monotonic() < end, self.status()
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _answer(request: urllib.request.Request) -> tuple[int, bytes, Mapping[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=180) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


class Page:
    """What a page in a browser is to the server."""

    def __init__(self, server: Server, **options: object) -> None:
        address = server.address.replace("http", "ws") + "/api/stream"
        self._connecting = connect(address, max_size=1 << 20, **options)

    def __enter__(self) -> Page:
        self.socket = self._connecting.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        self._connecting.__exit__(*how)

    def take(self, timeout: float = 30) -> dict[str, object]:
        return json.loads(self.socket.recv(timeout=timeout))

    def take_until(self, kind: str, most: int = 500) -> dict[str, object]:
        """Take messages, and show frames, until one of this type comes."""
        for _ in range(most):
            message = self.take()
            if message["type"] == "frame":
                self.say("seen", number=message["number"])
            if message["type"] == kind:
                return message
        raise AssertionError(f"no {kind} among {most} messages")

    def say(self, kind: str, /, **fields: object) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def start(self, seed: int = 1, **settings: object) -> dict[str, object]:
        """Begin a stream of digits; return the server's hello."""
        hello = self.take_until("hello")
        self.say("start", seed=seed, settings=SETTINGS | settings)
        return hello

    def frames(self, number: int) -> list[dict[str, object]]:
        return [self.take_until("frame") for _ in range(number)]

    def rest(self, seconds: float, *, see: bool) -> list[dict[str, object]]:
        """Take what comes until nothing comes for so long."""
        taken = []
        while True:
            try:
                taken.append(self.take(seconds))
            except TimeoutError:
                return taken
            if see:
                self.say("seen", number=taken[-1]["number"])


def rate(page: Page, seconds: float) -> float:
    """Return how many frames a page gets in a second."""
    page.frames(2)
    begin, number = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        page.take_until("frame")
        number += 1
    return number / (time.monotonic() - begin)
