"""The process that reads a live source: standard input, secrets, and that nothing is left of it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from saccade.clips import FrameFormat
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError
from saccade.stream.source import Source

from .sources import Silent, encoded, varying

FORMAT = FrameFormat(channels=3, fps=10)
FOLLOW = """
import sys
from saccade.clips import FrameFormat
from saccade.stream.source import Source
with Source(sys.argv[1], FrameFormat(channels=3, fps=10), say=print) as source:
    next(iter(source))
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="processes are looked up in /proc")


def children(pid):
    """Return the processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


def wait_until(condition, limit_s=60.0):
    """Wait for a condition, far longer than it takes on a busy machine."""
    until = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def reads(pid):
    with contextlib.suppress(OSError):
        return b"reader.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def standard_input(content):
    """Let standard input of this process give these bytes, as behind a pipe of the shell."""
    before, (theirs, ours) = os.dup(0), os.pipe()
    os.dup2(theirs, 0)
    os.close(theirs)
    with os.fdopen(ours, "wb") as file:
        writer = threading.Thread(target=lambda: (file.write(content), file.close()))
        writer.start()
        yield
        writer.join()
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.parametrize("form", ["mpegts", "matroska"])
def test_standard_input_gives_every_frame_of_the_file_to_a_slow_consumer(form, tmp_path):
    content = encoded(form, num_frames=60)
    (tmp_path / "clip").write_bytes(content)
    with Source(str(tmp_path / "clip"), FORMAT, say=print) as source:
        expected = list(source)
    lines, frames = [], []
    with standard_input(content), Source("-", FORMAT, say=lines.append) as source:
        asked_s = 0.0
        for frame in source:
            assert frame.arrived_s >= asked_s  # its latency counts from here, as that of a frame of a file
            frames.append(frame)
            time.sleep(0.05)
            asked_s = time.monotonic()
    assert (source.dropped, lines) == (0, [])
    assert [(f.time_s, f.begins) for f in frames] == [(f.time_s, f.begins) for f in expected]
    assert torch.equal(torch.stack([f.pixels for f in frames]), torch.stack([f.pixels for f in expected]))


def test_with_realtime_the_newest_frame_of_standard_input_wins():
    lines = []
    with (
        standard_input(encoded("mpegts", num_frames=200)),
        Source("-", FORMAT, realtime=True, say=lines.append) as source,
    ):
        num = sum(1 for _ in source if not time.sleep(0.3))
    assert num + source.dropped == 100
    assert source.dropped > 50
    assert lines == [f"{source.dropped} of 100 frames were dropped: they came faster than they were processed"]


def test_a_recording_on_standard_input_is_not_paced_without_realtime():
    content = encoded("matroska", num_frames=60, fps=1)
    with standard_input(content), Source("-", FrameFormat(channels=3), say=print) as source:
        frames = list(source)
    assert [frame.time_s for frame in frames] == list(range(60))
    assert frames[-1].arrived_s - frames[0].arrived_s < 50  # far below the 59 seconds that it shows


def at_rates(*parts):
    """Return time stamps at one rate after another, each given with its length in seconds."""
    stamps_s = [0.0]
    for fps, lasts_s in parts:
        stamps_s += [stamps_s[-1] + (number + 1) / fps for number in range(fps * lasts_s)]
    return stamps_s


@pytest.mark.parametrize(
    ("stamps_s", "line"),
    [
        (at_rates((10, 8), (4, 20)), "standard input gives 4"),  # as a camera in the dark
        (at_rates((4, 20), (10, 8)), "standard input gives 4 frames/s"),
        (at_rates((10, 30)), None),
        ([*at_rates((10, 8)), *(9.5 + stamp_s for stamp_s in at_rates((10, 20)))], None),  # a pause
    ],
)
def test_a_source_that_is_slow_from_some_moment_on_is_told_once(stamps_s, line):
    lines = []
    with standard_input(varying(stamps_s)), Source("-", FORMAT, say=lines.append) as source:
        frames = list(source)
    assert [frame.begins for frame in frames] == [True] + [False] * (len(frames) - 1)
    assert frames[-1].time_s == pytest.approx(stamps_s[-1], abs=0.1)
    assert len(lines) == (line is not None)
    assert line is None or line in lines[0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "standard input is empty"),
        (b"no video", "standard input sends no video that can be read; pipe MPEG-TS or Matroska"),
    ],
)
def test_standard_input_without_video_is_told(content, line):
    with standard_input(content), pytest.raises(DataError, match=line), Source("-", FORMAT, say=print) as source:
        list(source)


def test_standard_input_from_an_empty_file_is_told():
    command = [sys.executable, "-c", FOLLOW, "-"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert "standard input is empty" in done.stderr


def test_no_process_shows_a_password_or_outlives_its_parent():
    """Also not while FFmpeg waits for a server that is silent."""
    with Silent() as server:
        parent = subprocess.Popen([sys.executable, "-c", FOLLOW, f"rtsp://me:secret@127.0.0.1:{server.port}/x"])
        reader = wait_until(lambda: [pid for pid in children(parent.pid) if reads(pid)])[0]
        wait_until(lambda: server.connections)
        shown = Path(f"/proc/{reader}/cmdline").read_bytes() + Path(f"/proc/{reader}/environ").read_bytes()
        parent.kill()
        parent.wait()
        wait_until(lambda: not reads(reader))
    assert b"secret" not in shown


def test_nothing_is_left_open_behind_a_source(tmp_path):
    """Whether it was read to its end, left in the middle, cannot be opened, or is left while it is opened.

    Also while its queue is full.
    """
    write_mp4(tmp_path / "a.mp4", torch.zeros(10, 1, 48, 64, dtype=torch.uint8), 20)
    content = tmp_path / "pipe"
    os.mkfifo(content)  # nobody writes into it

    def opened():
        return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count(), len(children(os.getpid()))

    before = opened()
    for address, num in ((str(tmp_path / "a.mp4"), 100), (str(tmp_path / "a.mp4"), 2), ("77", 1), (str(content), 0)):
        with contextlib.suppress(DataError), Source(address, FORMAT, realtime=num > 0, say=print) as source:
            for _ in zip(range(num), source, strict=False):
                pass
        assert opened() == before, address
    with standard_input(encoded("mpegts", num_frames=200)):
        with Source("-", FORMAT, say=print) as source:
            next(iter(source))
            wait_until(lambda: source.fps is not None)
            time.sleep(0.5)  # the queue is full
        assert not [pid for pid in children(os.getpid()) if reads(pid)]
        assert "saccade-source" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.slow
def test_the_memory_of_the_reader_does_not_grow(tmp_path):
    write_mp4(tmp_path / "long.mp4", torch.zeros(6000, 1, 96, 128, dtype=torch.uint8), 200)
    taken_kb = []
    wanted = FrameFormat(channels=3, fps=150)
    with Source(str(tmp_path / "long.mp4"), wanted, realtime=True, picture_px=128, say=print) as source:
        for frame in source:
            if frame.time_s > 10 * (len(taken_kb) + 0.5):
                reader = next(pid for pid in children(os.getpid()) if reads(pid))
                status = Path(f"/proc/{reader}/status").read_text()
                taken_kb.append(int(status.split("VmRSS:")[1].split()[0]))
    assert len(taken_kb) == 3
    assert taken_kb[-1] < taken_kb[0] + 4000
