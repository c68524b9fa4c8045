"""Disk full, folder read-only, clock set back, two runs on one folder, SIGTERM, and memory that ends in a decoder."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from recipes.faults.kills import Undisturbed
from recipes.faults.verbs import Verb, names_in

# What sets the clock back by an hour in the middle of a run: Python imports it before the program.
CLOCK = """
import threading, time, datetime
before = time.time
time.time = lambda: before() - (3600 if time.monotonic() > {turn!r} else 0)
"""
SAVED_WITHIN_S = 10.0


@contextmanager
def disk(place: Path, size_kb: int) -> Iterator[None]:
    """Mount a small disk in memory while the block runs; this needs root."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    """Change the options of a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def disk_full(verb: Verb, place: Path, name: str, wanted: Undisturbed, share: float) -> str:
    """Run on a disk that holds a share of the files, then again with room; return what is wrong."""
    size_kb = max(4, int(share * wanted.size / 1024))
    with disk(place, size_kb):
        status, told = verb.run(place / name)
        if wrong := _one_line(status, told):
            return wrong
        remount(place, "size=1g")
        return _ends_as(verb, place / name, wanted)


def read_only(verb: Verb, place: Path, name: str, wanted: Undisturbed, share: float) -> str:
    """Make the disk read-only at a moment of the run, then writable again; return what is wrong."""
    with disk(place, 2**20):
        process = verb.start(place / name)
        while process.poll() is None and not names_in(place / name):
            time.sleep(0.005)
        time.sleep(share * wanted.took_s)
        # An open file is in the way of a change to read-only; then the moment is a little later.
        while process.poll() is None:
            done = subprocess.run(["mount", "-o", "remount,ro", str(place)], check=False, capture_output=True)
            if done.returncode == 0:
                break
            time.sleep(0.002)
        told, _ = process.communicate(timeout=600)
        if process.returncode != 0 and (wrong := _one_line(process.returncode, told)):
            return wrong
        remount(place, "rw")
        return _ends_as(verb, place / name, wanted)


def clock_set_back(verb: Verb, place: Path, name: str, wanted: Undisturbed, share: float) -> str:
    """Set the clock of the process back by an hour at a moment of the run; return what is wrong."""
    place.mkdir(parents=True, exist_ok=True)
    patch = place / "patch"
    patch.mkdir(exist_ok=True)
    (patch / "sitecustomize.py").write_text(CLOCK.format(turn=time.monotonic() + 3 + share * wanted.took_s))
    status, told = verb.run(place / name, PYTHONPATH=str(patch))
    if status:
        return f"ends with {status}: {told}"
    return "" if verb.digest(place / name) == wanted.digest else "another result"


def twice(verb: Verb, place: Path, name: str, wanted: Undisturbed, share: float) -> str:
    """Start a second run on the folder of a running one; return what is wrong."""
    place.mkdir(parents=True, exist_ok=True)
    first = verb.start(place / name)
    while first.poll() is None and not names_in(place / name):
        time.sleep(0.005)
    time.sleep(share * wanted.took_s / 4)
    status, told = verb.run(place / name)
    first_told, _ = first.communicate(timeout=600)
    if first.returncode:
        return f"the first run ends with {first.returncode}: {first_told}"
    if "Traceback" in told or (status and len(told.strip().splitlines()) > 3):
        return f"the second run says: {told}"
    return "" if verb.digest(place / name) == wanted.digest else "another result"


def terminated(verb: Verb, place: Path, name: str, wanted: Undisturbed, share: float) -> str:
    """Send SIGTERM at a moment of the run; return what is wrong, also if it takes more than ten seconds to end."""
    place.mkdir(parents=True, exist_ok=True)
    process = verb.start(place / name)
    while process.poll() is None and not names_in(place / name):
        time.sleep(0.005)
    time.sleep(share * wanted.took_s)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    told, _ = process.communicate(timeout=600)
    if (took := time.monotonic() - sent) > SAVED_WITHIN_S:
        return f"it took {took:.1f} s to end"
    if "Traceback" in told:
        return f"a traceback: {told}"
    return _ends_as(verb, place / name, wanted)


def no_memory(verb: Verb, place: Path) -> str:
    """Predict clips of which one needs more memory than a worker has; return what is wrong."""
    import pyarrow.parquet

    clips = place / "clips"
    clips.mkdir(parents=True)
    for number in range(6):
        np.savez(clips / f"{number}.npz", frames=np.full((4, 64, 64), 40 * number, np.uint8))
    # Three gigabytes as soon as it is unpacked, a few megabytes as a file.
    np.savez_compressed(clips / "large.npz", frames=np.zeros((3000, 1024, 1024), np.uint8))
    words = ("predict", str(clips), "--model", "lenet-lstm", "--memory-gb", "2")
    status, told = Verb(words, verb.digest).run(place / "found")
    rows = [
        row
        for path in sorted((place / "found").glob("*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    failed = [Path(row["clip"]).name for row in rows if row["error"]]
    if failed != ["large.npz"] or len(rows) != 7 or "Traceback" in told:
        return f"ends with {status}; failed: {failed} of {len(rows)}: {told}"
    return ""


ON_EVERY_VERB: dict[str, Callable[[Verb, Path, str, Undisturbed, float], str]] = {
    "disk full": disk_full,
    "read-only": read_only,
    "clock set back": clock_set_back,
    "two runs": twice,
    "SIGTERM": terminated,
}


def _one_line(status: int, told: str) -> str:
    """Return what is wrong with the end of a run that could not write."""
    last = told.strip().splitlines()[-1:] or [""]
    if "Traceback" in told or status in (0, -1) or "saccade: " not in told:
        return f"ends with {status}: {told[-2000:]}"
    return "" if last else "nothing is said"


def _ends_as(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    status, told = verb.run(out)
    if status and "already holds a finished run" not in told:
        return f"the next run ends with {status}: {told[-2000:]}"
    return "" if verb.digest(out) == wanted.digest else "the next run has another result"
