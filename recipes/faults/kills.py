"""Kill -9 at a random moment, then the same command again: same bits or rows, no half file, nothing left.

Of several processes, a worker is killed, which the launcher starts again by itself.
"""

import os
import random
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from recipes.faults.verbs import Running, Verb, names_in

# Files of tensorboard have the time and the process in their names; a resumed run has one more.
_UNLIKE = re.compile(r"(.*/)?tensorboard/.*")
_FINISHED = "already holds a finished run"
# What a killed process had started notices its end within a second or two.
_NOTICED_S = 10.0


class Undisturbed:
    """A run without a fault: how long it takes, from its first file on too, what it leaves, and the bytes of that."""

    def __init__(self, verb: Verb, out: Path) -> None:
        started = time.monotonic()
        running = verb.start(out)
        begun = wait_for_a_file(running, out)
        status, told = running.end()
        self.whole_s, self.took_s = time.monotonic() - started, time.monotonic() - begun
        if status:
            raise SystemExit(f"{verb.words[0]} fails without a fault: {told}")
        self.digest, self.names = verb.digest(out), _names(out)
        self.size = sum((out / name).stat().st_size for name in names_in(out)) if out.is_dir() else out.stat().st_size


def killed(verb: Verb, out: Path, wanted: Undisturbed, rng: random.Random) -> tuple[str, bool]:
    """Kill a run and repeat it; return what is wrong at the end, or "", and whether the kill came before the end."""
    running = verb.start(out)
    # In the first third Python imports torch.
    time.sleep(rng.uniform(0.3, 1) * wanted.whole_s)
    in_time = running.is_running
    if in_time:
        # As the kernel does without memory: only this process; what it started has to notice.
        os.kill(running.process.pid, signal.SIGKILL)
    running.end()
    return left_behind(running) or again(verb, out, wanted), in_time


def worker_killed(verb: Verb, out: Path, wanted: Undisturbed, rng: random.Random) -> tuple[str, bool]:
    """Kill one of several processes; return what is wrong at the end, or "", and whether it came before the end."""
    running = verb.start(out)
    time.sleep(rng.uniform(0.3, 1) * wanted.whole_s)
    workers = running.workers() if running.is_running else []
    if workers:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    status, told = running.end()
    if status:
        return f"it ends with {status}: {told[-2000:]}", bool(workers)
    return _difference(verb, out, wanted) or left_behind(running), bool(workers)


def again(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    """Repeat a command that was disturbed; return what is wrong at its end, or ""."""
    running = verb.start(out)
    status, told = running.end()
    if status and not (verb.resumes and _FINISHED in told):
        return f"the next run ends with {status}: {told[-2000:]}"
    if "Traceback" in told:
        return f"a traceback: {told}"
    return _difference(verb, out, wanted) or left_behind(running)


def left_behind(running: Running) -> str:
    """Return "" once every process that an ended one had started has ended too; else what is wrong."""
    end = time.monotonic() + _NOTICED_S
    while left := running.processes():
        if time.monotonic() > end:
            return f"processes are left: {left}"
        time.sleep(0.05)
    return ""


def wait_for_a_file(running: Running, out: Path) -> float:
    """Wait until a command has written a file, or has ended; return the time."""
    while running.is_running and not names_in(out):
        time.sleep(0.005)
    return time.monotonic()


def remove(out: Path) -> None:
    """Remove what a run wrote."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        for name in names_in(out):
            (out.parent / name).unlink()


def _names(out: Path) -> list[str]:
    return [name for name in names_in(out) if not _UNLIKE.fullmatch(name)]


def _difference(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    """Return in what files and results differ from those of an undisturbed run, or ""."""
    if (found := verb.digest(out)) != wanted.digest:
        names = sorted(n for n in {*found, *wanted.digest} if found.get(n) != wanted.digest.get(n))
        return f"another result: {names[:5]}"
    left = set(_names(out)) ^ set(wanted.names)
    return f"other files: {sorted(left)}" if left else ""
