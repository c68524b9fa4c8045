"""Disk full, folder read-only, clock set back, two runs on one folder, SIGTERM, and memory that ends in a decoder.

Each returns what is wrong at the end, or "", and whether the disturbance came before the end of the run.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from recipes.faults.kills import Undisturbed, again, left_behind, wait_for_a_file
from recipes.faults.verbs import HANGS, Running, Verb, files_of

Outcome = tuple[str, bool]
# What sets every clock of a process back by an hour at a moment; Python imports it before the program.
CLOCK = """
import datetime, time
turn = {turn!r}
now, now_ns, real = time.time, time.time_ns, datetime.datetime
time.time = lambda: now() - (3600 if time.monotonic() > turn else 0)
time.time_ns = lambda: now_ns() - (3600 * 10**9 if time.monotonic() > turn else 0)
class Datetime(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(time.time(), tz)
datetime.datetime = Datetime
"""
SAVED_WITHIN_S = 10.0
ROOM_KB = 2**20


@contextmanager
def disk(place: Path) -> Iterator[None]:
    """Mount a disk in memory while the block runs; this needs root."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def disk_full(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Run on a disk with room for a share of the files, then again with more."""
    with disk(place):
        filling, room_kb = place / "filling", max(4, int(share * wanted.size) >> 10)
        subprocess.run(["fallocate", "-l", f"{ROOM_KB - room_kb}k", str(filling)], check=True)
        running = verb.start(place / "run")
        status, told = running.end()
        if status and (wrong := _one_line(status, told)):
            return wrong, True
        filling.unlink()
        return left_behind(running) or again(verb, place / "run", wanted), bool(status)


def read_only(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Make the folders of the run immutable at a moment, so that no file is made in them, then as they were."""
    out, running, in_time = _at_a_moment(verb, place, wanted, share)
    folders = [str(folder) for folder in (place, out, *out.rglob("*")) if folder.is_dir()]
    subprocess.run(["chattr", "+i", *folders], check=True)
    status, told = running.end()
    subprocess.run(["chattr", "-i", *folders], check=True)
    wrong = _one_line(status, told) if status else _another(verb, out, wanted)
    return wrong or left_behind(running) or again(verb, out, wanted), in_time and bool(status)


def clock_set_back(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Set the clocks of the process back by an hour at a moment of the run."""
    patch = place / "patch"
    patch.mkdir(parents=True)
    turn = time.monotonic() + wanted.whole_s - wanted.took_s + share * wanted.took_s
    (patch / "sitecustomize.py").write_text(CLOCK.format(turn=turn))
    running = verb.start(place / "run", PYTHONPATH=str(patch))
    status, told = running.end()
    in_time = time.monotonic() > turn
    if status or "Traceback" in told:
        return f"it ends with {status}: {told[-2000:]}", in_time
    return _another(verb, place / "run", wanted) or left_behind(running), in_time


def same_folder(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Start a second run on the folder of a running one: the first does not suffer, the second waits or is refused."""
    out, first, in_time = _at_a_moment(verb, place, wanted, share / 4)
    second = verb.start(out, printed="second")
    status, told = second.end()
    first_status, first_told = first.end()
    if first_status:
        return f"the first run ends with {first_status}: {first_told[-2000:]}", in_time
    if status and (wrong := _one_line(status, told)):
        return f"the second run: {wrong}", in_time
    return _another(verb, out, wanted) or left_behind(first) or left_behind(second), in_time


def terminated(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Send SIGTERM at a moment of the run, which has to end within ten seconds."""
    out, running, in_time = _at_a_moment(verb, place, wanted, share)
    running.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    status, told = running.end()
    if (took := time.monotonic() - sent) > SAVED_WITHIN_S:
        return f"it took {took:.1f} s to end", in_time
    if "Traceback" in told:
        return f"a traceback: {told}", in_time
    wrong = "" if status else _another(verb, out, wanted)
    return wrong or left_behind(running) or again(verb, out, wanted), in_time and bool(status)


def no_memory(place: Path) -> Outcome:
    """Predict clips of which one needs more memory than a worker has: it alone fails, and its row says why."""
    import pyarrow.parquet

    clips = place / "clips"
    clips.mkdir(parents=True)
    for number in range(6):
        np.savez(clips / f"{number}.npz", frames=np.full((4, 64, 64), 40 * number, np.uint8))
    # Three gigabytes as soon as it is unpacked, a few megabytes as a file.
    np.savez_compressed(clips / "large.npz", frames=np.zeros((3000, 1024, 1024), np.uint8))
    words = ("predict", str(clips), "--model", "lenet-lstm", "--memory-gb", "2", "--max-frames", "4000")
    status, told = Verb(words, files_of).start(place / "found").end()
    parts = sorted((place / "found").glob("*.parquet"))
    rows = [row for path in parts for row in pyarrow.parquet.read_table(path).to_pylist()]
    failed = {Path(row["clip"]).name: row["error"] for row in rows if row["error"]}
    good = list(failed) == ["large.npz"] and "--memory-gb" in failed["large.npz"] and len(rows) == 7 and status == 1
    return "" if good and "Traceback" not in told else f"it ends with {status}; {failed} of {len(rows)}: {told}", True


ON_EVERY_VERB: dict[str, Callable[[Verb, Path, Undisturbed, float], Outcome]] = {
    "disk full": disk_full,
    "folder read-only": read_only,
    "clock set back": clock_set_back,
    "same folder": same_folder,
    "SIGTERM": terminated,
}


def _at_a_moment(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> tuple[Path, Running, bool]:
    """Start a run in a new folder, and wait for a share of it; return its output, it, and whether it still runs."""
    place.mkdir(parents=True)
    out = place / "run"
    running = verb.start(out)
    wait_for_a_file(running, out)
    time.sleep(share * wanted.took_s)
    return out, running, running.is_running


def _one_line(status: int, told: str) -> str:
    """Return what is wrong with the end of a run that has failed: it says why in its last line, without a traceback."""
    if status == HANGS:
        return told
    last = told.strip().rpartition("\n")[2]
    good = status in (1, 2) and "Traceback" not in told and last.startswith("saccade: ")
    return "" if good else f"it ends with {status}: {told[-2000:]}"


def _another(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    """Return what is wrong with a run that has ended well: its result is that of an undisturbed one."""
    try:
        return "" if verb.digest(out) == wanted.digest else "it ends well with another result"
    except (OSError, ValueError) as error:
        return f"it ends well, and its files cannot be read: {error}"
