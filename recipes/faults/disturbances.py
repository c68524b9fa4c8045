"""Disk full, folder read-only, clock set back, two runs on one folder, SIGTERM, and memory that ends in a decoder.

Each returns what came of it.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from recipes.faults.kills import Outcome, Undisturbed, again, left_behind, wait_for_a_file
from recipes.faults.verbs import HANGS, OFTEN, Running, Verb, files_of, names_in, steps_begun

from saccade import run_folder

# What sets the clock of Python back by an hour at a moment; Python imports it before the program. The times of files,
# which are the kernel's, and those of `datetime`, which are read in C, do not change.
CLOCK = """
import time
turn, now, now_ns = {turn!r}, time.time, time.time_ns
time.time = lambda: now() - (3600 if time.monotonic() > turn else 0)
time.time_ns = lambda: now_ns() - (3600 * 10**9 if time.monotonic() > turn else 0)
"""
SAVED_WITHIN_S = 10.0
_INTERRUPTED = 130
ROOM_KB, PAGE_KB = 2**20, 4
# A verb that takes less from its first file on writes when all is done.
AT_ONCE_S = 1.0


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
        filling, room_kb = place / "filling", int(share * wanted.size) // (1024 * PAGE_KB) * PAGE_KB
        subprocess.run(["fallocate", "-l", f"{ROOM_KB - room_kb}k", str(filling)], check=True)
        running = verb.start(place / "run")
        status, told = running.end()
        if status and (wrong := _one_line(status, told)):
            return Outcome(wrong, struck=True)
        filling.unlink()
        return Outcome(left_behind(running) or again(verb, place / "run", wanted), bool(status))


def read_only(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Make the folders of the run immutable at a moment, so that no file is made in them, then as they were."""
    out, running, struck = _at_a_moment(verb, place, wanted, share)
    folders = [str(folder) for folder in (place, out, *out.rglob("*")) if folder.is_dir()]
    try:
        subprocess.run(["chattr", "+i", *folders], check=True)
        status, told = running.end()
    finally:
        subprocess.run(["chattr", "-i", *folders], check=True)
    wrong = _one_line(status, told) if status else _another(verb, out, wanted)
    return Outcome(wrong or left_behind(running) or again(verb, out, wanted), struck and bool(status))


def clock_set_back(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Set the clocks of the process back by an hour at a moment of the run."""
    patch = place / "patch"
    patch.mkdir(parents=True)
    turn = time.monotonic() + wanted.whole_s - wanted.took_s + share * wanted.took_s
    (patch / "sitecustomize.py").write_text(CLOCK.format(turn=turn) + (OFTEN if verb.patch else ""))
    running = verb.start(place / "run", PYTHONPATH=str(patch))
    status, told = running.end()
    struck = time.monotonic() > turn
    if status or "Traceback" in told:
        return Outcome(f"it ends with {status}: {told[-2000:]}", struck)
    return Outcome(_another(verb, place / "run", wanted) or left_behind(running), struck)


def same_folder(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Start a second run on the folder of a running one: the first does not suffer, the second waits or is refused.

    The first is held until the second has had the time of a whole run, or has ended.
    """
    out, first, struck = _at_a_moment(verb, place, wanted, share / 4)
    with suppress(ProcessLookupError):
        first.process.send_signal(signal.SIGSTOP)
    try:
        second = verb.start(out, printed="second")
        end = time.monotonic() + 1.5 * wanted.whole_s
        while second.is_running and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            first.process.send_signal(signal.SIGCONT)
    status, told = second.end()
    first_status, first_told = first.end()
    if first_status:
        return Outcome(f"the first run ends with {first_status}: {first_told[-2000:]}", struck)
    if status and (wrong := _one_line(status, told)):
        return Outcome(f"the second run: {wrong}", struck)
    return Outcome(_another(verb, out, wanted) or left_behind(first) or left_behind(second), struck)


def terminated(verb: Verb, place: Path, wanted: Undisturbed, share: float) -> Outcome:
    """Send SIGTERM at a moment of the run, which has to end within ten seconds; a training loses no step."""
    out, running, struck = _at_a_moment(verb, place, wanted, share)
    begun = bool(steps_begun(out))
    running.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    status, told = running.end()
    struck &= bool(status)
    if (took := time.monotonic() - sent) > SAVED_WITHIN_S:
        return Outcome(f"it took {took:.1f} s to end", struck)
    if "Traceback" in told:
        return Outcome(f"a traceback: {told}", struck)
    saved = status == _INTERRUPTED and "saved at step" in told
    # It may also come when all is written, and the process has only to end.
    if begun and status and not saved and not run_folder.read(out).get("finished"):
        return Outcome(f"it ends with {status}, and not with its state saved: {told[-2000:]}", struck)
    wrong = "" if status else _another(verb, out, wanted)
    wrong = wrong or left_behind(running) or again(verb, out, wanted)
    if not wrong and begun and len(starts := steps_begun(out)) > 1:
        wrong = f"steps were taken twice: {[(steps[0], steps[-1]) for steps in starts]}"
    return Outcome(wrong, struck, bool(names_in(out)), 0 if begun else None)


def no_memory(place: Path) -> Outcome:
    """Predict clips of which one needs more memory than a worker has: it alone fails, and its row says why."""
    import pyarrow.parquet

    clips = place / "clips"
    clips.mkdir(parents=True)
    for number in range(6):
        np.savez(clips / f"{number}.npz", frames=np.full((4, 64, 64), 40 * number, np.uint8))
    # A frame of 36 MB that becomes 144 as numbers of the model; a few kilobytes as a file.
    np.savez_compressed(clips / "large.npz", frames=np.zeros((2, 6000, 6000), np.uint8))
    words = ("predict", str(clips), "--model", "lenet-lstm", "--memory-gb", "0.1")
    status, told = Verb(words, files_of).start(place / "found").end()
    parts = sorted((place / "found").glob("*.parquet"))
    rows = [row for path in parts for row in pyarrow.parquet.read_table(path).to_pylist()]
    failed = {Path(row["clip"]).name: row["error"] for row in rows if row["error"]}
    good = list(failed) == ["large.npz"] and "--memory-gb" in failed["large.npz"] and len(rows) == 7 and status == 1
    wrong = "" if good and "Traceback" not in told else f"it ends with {status}; {failed} of {len(rows)}: {told}"
    return Outcome(wrong, struck=True)


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
    if wanted.took_s < AT_ONCE_S:
        time.sleep((0.3 + 0.6 * share) * wanted.whole_s)
    else:
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
