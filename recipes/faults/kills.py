"""Kill -9 at a random moment, then the same command again: same bits or rows, no half file, nothing left."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from recipes.faults.verbs import Verb, names_in, processes_of

# Files of tensorboard have the time and the process in their names; a resumed run has one more.
_UNLIKE = re.compile(r"(.*/)?tensorboard/.*")


class Undisturbed:
    """A run without a fault: how long it takes, from its first file on too, what it leaves, and the bytes of that."""

    def __init__(self, verb: Verb, out: Path) -> None:
        started = time.monotonic()
        process = verb.start(out)
        begun = _first_file(process, out)
        told, _ = process.communicate()
        self.whole_s, self.took_s = time.monotonic() - started, time.monotonic() - begun
        if process.returncode:
            raise SystemExit(f"{verb.words[0]} fails without a fault: {told}")
        self.digest, self.names = verb.digest(out), _names(out)
        self.size = sum((out / name).stat().st_size for name in names_in(out)) if out.is_dir() else out.stat().st_size


def killed(verb: Verb, out: Path, wanted: Undisturbed, rng: random.Random) -> tuple[str, bool]:
    """Kill a run and repeat it; return what is wrong at the end, or "", and whether the kill came before the end."""
    process = verb.start(out)
    # In the first third Python imports torch.
    time.sleep(rng.uniform(0.3, 1) * wanted.whole_s)
    in_time = process.poll() is None
    if in_time:
        # As the kernel does without memory: only this process; what it started has to notice.
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    status, told = verb.run(out)
    finished = verb.resumes and "already holds a finished run" in told
    if status and not finished:
        return f"the next run ends with {status}: {told.strip().splitlines()[-1:]}", in_time
    if "Traceback" in told:
        return f"a traceback: {told}", in_time
    if (found := verb.digest(out)) != wanted.digest:
        return f"another result: {_differences(found, wanted.digest)}", in_time
    if left := set(_names(out)) ^ set(wanted.names):
        return f"other files: {sorted(left)}", in_time
    if processes_of(out):
        return "a process is left", in_time
    return "", in_time


def remove(out: Path) -> None:
    """Remove what a run wrote."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        for name in names_in(out):
            (out.parent / name).unlink()


def _first_file(process: subprocess.Popen[str], out: Path) -> float:
    while process.poll() is None and not names_in(out):
        time.sleep(0.005)
    return time.monotonic()


def _names(out: Path) -> list[str]:
    return [name for name in names_in(out) if not _UNLIKE.fullmatch(name)]


def _differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))[:5]
