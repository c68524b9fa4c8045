"""Run what should run for weeks: a stream of a million frames, ten thousand requests, a page beside hostile clients.

Memory and times must not grow: the first tenth is compared with the last, and the call fails if a time of the last is
longer by a half, which is more than a shared machine does, or if the memory has grown by more than a tenth. The hostile
clients send half requests, pings without end, foreign hosts, uploads that are no video, and drawings of thousands of
points. Turns with them and without them alternate, and an honest page counts its frames in both; the call fails if it
gets less than nine tenths of them.

Usage, in the root of the repository: OMP_NUM_THREADS=1 python -m recipes.soak [--frames 1000000] [--requests 10000]
[--minutes 20]; 0 leaves one out. Rows go to results/soak.json
"""

import contextlib
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from recipes.stamped import stamp
from tests.serve.talk import SETTINGS, UPGRADE, Page, Server, rate

from saccade import console, files, weights
from saccade.data import digits
from saccade.data.digits import Motion, MovingDigits
from saccade.data.video_writing import write_mp4
from saccade.stream import Classifier

FPS = 25.0
# Of a turn with hostile clients; one without them takes a third. An attack that has begun goes on for some seconds.
TURN_S, PAUSE_S, START_S = 30.0, 5.0, 300.0
# Between requests, so that the server's limit on requests of one client is not what is measured.
BETWEEN_S = 0.012
MOST_GROWTH = {"_ms": 1.5, "_mb": 1.1}
LEAST_RATIO = 0.9
NOISE = random.Random(0).randbytes(2_000_000)


@dataclass(frozen=True)
class Options:
    """How long.

    Args:
        frames: the frames of the stream.
        requests: the requests to the server.
        minutes: the minutes of the page beside hostile clients; those without them come on top.
        out: the file of the results.
    """

    frames: int = 1_000_000
    requests: int = 10_000
    minutes: float = 20.0
    out: Path = Path("results/soak.json")


def main(options: Options) -> None:
    """Run all three, and add what came out of each to the file."""
    torch.set_num_threads(1)

    def write(name: str, found: dict[str, Any]) -> None:
        known = json.loads(options.out.read_text()) if options.out.exists() else {}
        known[name] = found | stamp()
        files.write_text(options.out, json.dumps(known, indent=2) + "\n")
        print(json.dumps({name: known[name]}, indent=2), flush=True)
        failed.extend(f"{name}: {figure} grows" for figure in grown(found))

    failed: list[str] = []
    if options.frames:
        write("stream", streamed(options.frames))
    with tempfile.TemporaryDirectory() as name:
        if options.requests:
            with serving(Path(name)) as server:
                write("requests", requested(server, options.requests))
        if options.minutes:
            with serving(Path(name)) as server:
                found = beside_hostile(server, options.minutes)
            write("hostile clients", found)
            if found["ratio"] < LEAST_RATIO:
                failed.append(f"hostile clients: the honest page has {found['ratio']:.2f} of its frames")
            failed += [
                f"hostile clients: {attack} was never tried" for attack, num in found["tried"].items() if not num
            ]
    if failed:
        raise SystemExit(", ".join(failed))


def streamed(num_frames: int) -> dict[str, Any]:
    """Push frames into one classifier, as of a camera that is never switched off."""
    clips = MovingDigits(digits.load("strokes", "test"), Motion("rotation_scaling"), labels="digits", num_clips=40)
    frames = clips.batch(torch.arange(40)).frames[:, :, 0].flatten(0, 1).numpy()
    classifier = Classifier(weights.find("dcn-lstm"), device="cpu")
    took_s = np.full(num_frames, np.nan, np.float32)  # its memory is taken now
    memory_mb = np.zeros(10)
    with console.counting_bar("stream") as progress:
        for number in range(num_frames):
            begun = time.perf_counter()
            classifier.push(frames[number % len(frames)], number / FPS)
            took_s[number] = time.perf_counter() - begun
            if (number + 1) % max(1, num_frames // 10) == 0:
                memory_mb[min(9, number * 10 // num_frames)] = resident_mb(os.getpid())
                progress(number + 1, num_frames)
    return {"frames": num_frames} | compared(took_s) | {"memory_mb": memory_mb.round(1).tolist()}


def requested(server: Server, num: int) -> dict[str, Any]:
    """Ask for the page, its files and the status, one after the other, and upload a video after every ninety-nine."""
    paths = ("/", "/app.js", "/app.css", "/api/status", "/nothing")
    with tempfile.TemporaryDirectory() as name:
        frames = torch.zeros(12, 1, 64, 64, dtype=torch.uint8)
        frames[:, :, 20:40, 20:40] = 255
        write_mp4(Path(name) / "clip.mp4", frames, 10.0)
        video = (Path(name) / "clip.mp4").read_bytes()
    small_s: list[float] = []
    uploads_s: list[float] = []
    memory_mb = np.zeros(10)
    with console.counting_bar("requests") as progress:
        for number in range(num):
            begun = time.perf_counter()
            if number % 100 == 99:
                with Page(server) as page:
                    token = page.start()["token"]
                    page.frames(2)
                    status, told, _ = server.post(f"/api/video/{token}", video)
                    assert status == 200, told
                uploads_s.append(time.perf_counter() - begun)
            else:
                path = paths[number % len(paths)]
                status, _, _ = server.get(path)
                assert status == (404 if path == "/nothing" else 200), (path, status)
                small_s.append(time.perf_counter() - begun)
                time.sleep(BETWEEN_S)
            if (number + 1) % max(1, num // 10) == 0:
                memory_mb[min(9, number * 10 // num)] = resident_mb(server.process.pid)
                progress(number + 1, num)
    return {
        "requests": num,
        "small": compared(np.array(small_s)),
        "uploads": {"p50_ms": compared(np.array(uploads_s))["p50_ms"]},  # a tenth of them has no 99th percentile
        "memory_mb": memory_mb.tolist(),
    }


def beside_hostile(server: Server, minutes: float) -> dict[str, Any]:
    """Count the frames of an honest page in turns with hostile clients and without them."""
    alone: list[float] = []
    beside: list[float] = []
    memory_mb: list[float] = []
    with Page(server) as page, hostile(server) as clients, console.counting_bar("hostile clients") as progress:
        page.start()
        rate(page, 5)
        memory_mb.append(resident_mb(server.process.pid))
        while (attacked_s := TURN_S * len(beside)) < 60 * minutes:
            progress(round(attacked_s), round(60 * minutes))
            alone.append(rate(page, TURN_S / 3))
            clients.attacking.set()
            time.sleep(1)  # they look twice a second
            beside.append(rate(page, TURN_S))
            clients.attacking.clear()
            time.sleep(PAUSE_S)
            memory_mb.append(resident_mb(server.process.pid))
        assert server.status()["ready"]
        counted = {name: (tried.value, done.value) for name, (tried, done) in clients.counts.items()}
    return {
        "minutes": minutes,
        "frames_per_s_alone": float(np.median(alone)),
        "frames_per_s_beside": float(np.median(beside)),
        "ratio": float(np.median(np.array(beside) / np.array(alone))),
        "tried": {name: tried for name, (tried, _) in counted.items()},
        "completed": {name: done for name, (_, done) in counted.items()},
        "memory_mb": memory_mb,
    }


@dataclass(frozen=True)
class Clients:
    """Hostile clients: whether they attack, and how often each has tried and has not been cut off."""

    attacking: Any
    counts: dict[str, tuple[Any, Any]]


@contextlib.contextmanager
def hostile(server: Server) -> Iterator[Clients]:
    """Start the clients, each in a process of its own, which attack whenever they are told to."""
    context = multiprocessing.get_context("spawn")
    attacking, ended = context.Event(), context.Event()
    counts = {name: (context.Value("q"), context.Value("q")) for name in ATTACKS}
    ready = context.Semaphore(0)
    processes = [
        context.Process(target=attack, args=(name, server.netloc, attacking, ended, ready, *counts[name]), daemon=True)
        for name in ATTACKS
    ]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            assert ready.acquire(timeout=START_S), "a hostile client did not start"
        yield Clients(attacking, counts)
    finally:
        ended.set()
        attacking.set()
        for process in processes:
            process.join(START_S)
            process.kill()


def attack(name: str, netloc: str, attacking: Any, ended: Any, ready: Any, tried: Any, completed: Any) -> None:
    """Repeat an attack whenever the clients are told to, and count."""
    os.nice(5)  # the clients are not to take the processor from the server that they attack
    client = Client(netloc)
    ready.release()
    while not ended.is_set():
        if not attacking.wait(0.5) or ended.is_set():
            continue
        tried.value += 1
        with contextlib.suppress(Exception):  # a server that defends itself cuts off at any place
            ATTACKS[name](client, ended)
            completed.value += 1


class Client(Server):
    """A server that another process has started."""

    def __init__(self, netloc: str) -> None:
        self.address = f"http://{netloc}"


def half_requests(server: Server, ended: Any) -> None:
    """Open a hundred connections, and send each a request that does not end."""
    held = []
    for _ in range(100):
        with contextlib.suppress(OSError):
            connection = server.connect()
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            held.append(connection)
    ended.wait(2)
    for connection in held:
        connection.close()


def pings(server: Server, ended: Any) -> None:
    """Send pings, and read none of the answers."""
    with server.connect() as connection:
        connection.sendall(UPGRADE.format(netloc=server.netloc).encode())
        assert connection.recv(12) == b"HTTP/1.1 101", "no WebSocket"
        connection.settimeout(1)
        for _ in range(100):
            connection.sendall(b"\x89\x80\0\0\0\0" * 1000)


def foreign_hosts(server: Server, ended: Any) -> None:
    """Ask in the name of another page, and for paths outside."""
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/" + "a" * 5000):
        status, _, _ = server.get(path)
        assert status >= 400, (path, status)
    status, _, _ = server.get("/", Host="evil.example")
    assert status >= 400, status
    ended.wait(0.05)


def no_videos(server: Server, ended: Any) -> None:
    """Upload noise as a video, of a page of its own."""
    with Page(server) as page:
        token = page.take_until("hello")["token"]
        for _ in range(3):
            status, _, _ = server.post(f"/api/video/{token}", NOISE)
            assert status >= 400, status


def drawings(server: Server, ended: Any) -> None:
    """Draw five thousand points, again and again, and show every frame."""
    chance = random.Random(0)
    strokes = [[[chance.randrange(256), chance.randrange(256)] for _ in range(158)] for _ in range(32)]
    with Page(server) as page:
        page.take_until("hello")
        page.say("start", seed=1, settings=SETTINGS)
        for _ in range(20):
            page.say("draw", slot=0, strokes=strokes)
            page.take_until("frame")


ATTACKS: dict[str, Callable[[Server, Any], None]] = {
    attacker.__name__: attacker for attacker in (half_requests, pings, foreign_hosts, no_videos, drawings)
}


def compared(took_s: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Compare the times of the first tenth and of the last."""
    tenth = max(1, len(took_s) // 10)
    return {
        f"{name}_ms": [round(1000 * float(np.quantile(part, q)), 3) for part in (took_s[:tenth], took_s[-tenth:])]
        for name, q in (("p50", 0.5), ("p99", 0.99))
    }


def grown(found: dict[str, Any]) -> list[str]:
    """Return the figures of which the last is too much larger than the first.

    >>> grown({"p99_ms": [1.0, 1.6], "uploads": {"p50_ms": [1.0, 1.4]}, "memory_mb": [100.0, 180.0, 105.0]})
    ['p99_ms']
    >>> grown({"memory_mb": [100.0, 115.0]})
    ['memory_mb']
    """
    names = []
    for name, value in found.items():
        if isinstance(value, dict):
            names += grown(value)
        elif (most := MOST_GROWTH.get(name[-3:])) is not None and value[-1] > most * value[0]:
            names.append(name)
    return names


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve the models of the package in a second process."""
    server = Server(folder / "log.txt", "--port", "0", "--max-clients", "8")
    try:
        server.wait_until_ready()
        yield server
        assert "Traceback" not in server.log.read_text(encoding="utf-8"), server.log
    finally:
        server.end()


def resident_mb(process: int) -> float:
    """Return the memory of a process in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
