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
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from recipes.faults.verbs import Running, Verb, names_in, steps_begun, steps_file

from saccade import checkpoint

# Files of tensorboard have the time and the process in their names; a resumed run has one more.
_UNLIKE = re.compile(r"(.*/)?tensorboard/.*")
_FINISHED = "already holds a finished run"
# What a killed process had started notices its end when its imports are done.
_NOTICED_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        wrong: what is wrong at the end, or "".
        struck: whether the fault came before the end of the run.
        begun: whether the run had written a file by then.
        repeated: the steps of a training that were taken again; None for other commands.
    """

    wrong: str
    struck: bool
    begun: bool = True
    repeated: int | None = None


class Undisturbed:
    """A run without a fault: how long it takes, from its first file on too, what it leaves, and the bytes of that."""

    def __init__(self, verb: Verb, out: Path) -> None:
        started = time.monotonic()
        running = verb.start(out)
        begun = wait_for_a_file(running, out)
        status, told = running.end()
        self.whole_s, self.took_s = time.monotonic() - started, time.monotonic() - begun
        if status:
            raise RuntimeError(f"{verb.words[0]} fails without a fault: {told}")
        self.digest, self.names = verb.digest(out), _names(out)
        self.size = sum((out / name).stat().st_size for name in names_in(out)) if out.is_dir() else out.stat().st_size


def killed(verb: Verb, out: Path, wanted: Undisturbed, rng: random.Random) -> Outcome:
    """Kill a run and repeat it."""
    running = verb.start(out)
    wait_for_a_moment(running, out, wanted, rng)
    begun, struck = bool(names_in(out)), running.is_running
    if struck:
        # As the kernel does without memory: only this process; what it started has to notice.
        os.kill(running.process.pid, signal.SIGKILL)
    running.end()
    if wrong := left_behind(running):
        return Outcome(wrong, struck, begun)
    saved = checkpoint_step(verb, out)
    return finished(again(verb, out, wanted), struck, begun, verb, out, saved)


def worker_killed(verb: Verb, out: Path, wanted: Undisturbed, rng: random.Random) -> Outcome:
    """Kill one of several processes, which their launcher starts again."""
    running = verb.start(out)
    wait_for_a_moment(running, out, wanted, rng)
    workers = running.workers() if running.is_running else []
    begun, saved = bool(names_in(out)), checkpoint_step(verb, out)
    if workers:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    status, told = running.end()
    if status:
        return Outcome(f"it ends with {status}: {told[-2000:]}", bool(workers), begun)
    return finished(difference(verb, out, wanted) or left_behind(running), bool(workers), begun, verb, out, saved)


def wait_for_a_moment(running: Running, out: Path, wanted: Undisturbed, rng: random.Random) -> None:
    """Wait until a random moment: in every second trial, of what comes after the first file."""
    if rng.random() < 0.5:
        wait_for_a_file(running, out)
        time.sleep(rng.uniform(0, 1) * wanted.took_s)
    else:
        # In the first third Python imports torch.
        time.sleep(rng.uniform(0.3, 1) * wanted.whole_s)


def checkpoint_step(verb: Verb, out: Path) -> int:
    """Return the step of the checkpoint of a training; 0 without one."""
    if not verb.resumes or not (out / checkpoint.NAME).exists():
        return 0
    return int(checkpoint.read_header(out).training["step"])


def finished(wrong: str, struck: bool, begun: bool, verb: Verb, out: Path, saved: int) -> Outcome:
    """Return what came of a trial whose run was repeated, after a fault at which the checkpoint was of a step."""
    if not verb.resumes:
        return Outcome(wrong, struck, begun)
    starts = steps_begun(out)
    lost = [before[-1] + 1 - after[0] for before, after in pairwise(starts)]
    if not wrong and any(after[0] < saved for after in starts[1:]):
        wrong = f"it went on before step {saved} of the checkpoint: {[steps[0] for steps in starts]}"
    return Outcome(wrong, struck, begun, max(lost, default=0))


def again(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    """Repeat a command that was disturbed; return what is wrong at its end, or ""."""
    running = verb.start(out)
    status, told = running.end()
    if status and not (verb.resumes and _FINISHED in told):
        return f"the next run ends with {status}: {told[-2000:]}"
    if "Traceback" in told:
        return f"a traceback: {told}"
    return difference(verb, out, wanted) or left_behind(running)


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
    steps_file(out).unlink(missing_ok=True)
    if out.is_dir():
        shutil.rmtree(out)
    else:
        for name in names_in(out):
            (out.parent / name).unlink()


def difference(verb: Verb, out: Path, wanted: Undisturbed) -> str:
    """Return in what files and results differ from those of an undisturbed run, or ""."""
    try:
        found = verb.digest(out)
    except (OSError, ValueError) as error:
        return f"its files cannot be read: {error}"
    if found != wanted.digest:
        names = sorted(n for n in {*found, *wanted.digest} if found.get(n) != wanted.digest.get(n))
        return f"another result: {names[:5]}"
    left = set(_names(out)) ^ set(wanted.names)
    return f"other files: {sorted(left)}" if left else ""


def _names(out: Path) -> list[str]:
    return [name for name in names_in(out) if not _UNLIKE.fullmatch(name)]
