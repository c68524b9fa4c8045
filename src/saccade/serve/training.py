"""Trainings on the clips of a page, each in a process of its own, which outlives pages and the server."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import files
from saccade.errors import UsageError
from saccade.foreign import shown

LOCK = "training"
"""The name of the lock in the folder of runs; a training holds it."""

CHECKPOINT = "checkpoint.safetensors"
_LOG, _ERRORS = "log.jsonl", ".errors.txt"
_RUN = re.compile("model-([0-9]+)")
_FIELDS = ("began", "stage", "done", "total", "ended", "error")
_MAX_LOG_BYTES, _MAX_TOLD = 1 << 20, 200
# A training holds its lock before it imports torch; on a busy machine, even that takes some seconds.
_STARTS_S = 20.0
# With less room on its disk, a training could not even write why it ends.
_FULL_BYTES = 1 << 16


@dataclass(frozen=True)
class Training:
    """What is known of a training.

    Args:
        name: the name of its run folder; the number in it counts trainings.
        running: whether it is under way.
        seconds: for how long it has been under way, or how long it took.
        stage: what it does now.
        done: how much of that is done, of `total`; 0 of 0 is unknown.
        total: how much there is to do in this stage.
        ended: the figures of its test if it ended well, as `training_process.train` returns them.
        error: one line if it failed.
        said: lines about clips that were left out.
    """

    name: str
    running: bool
    seconds: int
    stage: str = "starting"
    done: int = 0
    total: int = 0
    ended: dict[str, Any] | None = None
    error: str | None = None
    said: tuple[str, ...] = ()


class Trainings:
    """The trainings on a folder of clips. Their runs lie in a folder beside it, numbered in order.

    Args:
        clips: the folder of clips.
    """

    def __init__(self, clips: Path) -> None:
        self._clips = clips
        self.runs = clips.with_name(f"{clips.name}-models")
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._own: Path | None = None  # the run of this process

    def start(self) -> None:
        """Start a training.

        Raises:
            UsageError: if one is under way.
            OSError: if its folder or its process cannot be created.
        """
        # Other threads of this server, and other servers on this folder.
        with self._starting, files.locked(self.runs / "start"):
            self._start()

    def is_running(self) -> bool:
        """Return whether a training is under way, of this server or of an earlier one."""
        folders = self._folders()
        # This is asked first: whoever has ended by now has written the last line.
        status = None if self._process is None else self._process.poll()
        # The last line of a training counts, though its process needs a moment to end.
        if not folders or not _read(folders[-1], running=True).running:
            return False
        if self._process is not None and self._own == folders[-1]:
            if status is not None and status < 0:
                self._note_killed(folders[-1], -status)
            return status is None
        try:
            with files.locked(self.runs / LOCK, timeout_s=0):
                # One that has just begun is not so far yet as to hold the lock. Clocks may be set back.
                return abs(_silent_s(folders[-1])) < _STARTS_S
        except TimeoutError:
            return True

    def latest(self) -> Training | None:
        """Return what is known of the latest training; None if there was none."""
        if not (folders := self._folders()):
            return None
        # In this order: a training that ends meanwhile has written its last line.
        running = self.is_running()
        return _read(folders[-1], running)

    def finished(self) -> list[Path]:
        """Return the run folders with a model, the latest last."""
        with_model = (folder for folder in self._folders() if (folder / CHECKPOINT).is_file())
        return [folder for folder in with_model if _read(folder, running=True).ended]

    def learned(self) -> frozenset[str] | None:
        """Return the classes that the latest model knows; None if there is no model yet."""
        finished = self.finished()
        ended = _read(finished[-1], running=False).ended if finished else None
        return None if ended is None else frozenset(ended["classes"])

    def _start(self) -> None:
        if self.is_running():
            raise UsageError("a training is under way already; wait until it has ended")
        if self._process is not None:
            self._process.wait()  # it has written its last line
        number = max(map(_number, self._folders()), default=0) + 1
        run = self.runs / f"model-{number}"
        run.mkdir()
        try:
            self._process = self._begun(run)
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            raise
        self._own = run

    def _begun(self, run: Path) -> subprocess.Popen[bytes]:
        (run / _LOG).write_text(json.dumps({"began": time.time()}) + "\n", encoding="ascii")
        with (run / _LOG).open("ab") as log, (run / _ERRORS).open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "saccade.serve.training_process", str(self._clips), str(run)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the terminal of the server does not reach it
            )
        # An ended process remains in the system until somebody asks for its status, and perhaps nobody looks any more.
        with suppress(RuntimeError):  # no thread can start; the training runs all the same
            threading.Thread(target=process.wait, daemon=True).start()
        return process

    def _note_killed(self, run: Path, number: int) -> None:
        """Write what only this server knows, so that later ones tell it too."""
        why = " (perhaps for lack of memory)" if number == signal.SIGKILL else ""
        error = f"the training was ended by the signal {_name_of(number)}{why}; train again"
        with suppress(OSError), (run / _LOG).open("a", encoding="ascii") as log:
            # What the process was writing when it died may have no end of line.
            log.write(f"\n{json.dumps({'error': error})}\n")

    def _folders(self) -> list[Path]:
        if not self.runs.is_dir():
            return []
        return sorted((path for path in self.runs.iterdir() if _RUN.fullmatch(path.name)), key=_number)


def _number(folder: Path) -> int:
    found = _RUN.fullmatch(folder.name)
    assert found is not None
    return int(found[1])


def _read(folder: Path, running: bool) -> Training:
    """Read what a training has written; lines that are not whole are left out."""
    fields: dict[str, Any] = {}
    said: list[str] = []
    for row in _rows(folder / _LOG):
        fields |= {name: row[name] for name in _FIELDS if name in row}
        said += [row["said"]] if "said" in row else []
    over = "ended" in fields or "error" in fields
    if not over and not running:
        why = _last_words(folder / _ERRORS) or _full_disk(folder)
        fields["error"] = f"the training was stopped before its end{why}; train again"
    began = fields.pop("began", time.time())
    seconds = fields["ended"]["seconds"] if "ended" in fields else max(0, round(time.time() - began))
    return Training(folder.name, running and not over, seconds, said=tuple(said), **fields)


def _rows(log: Path) -> Iterator[dict[str, Any]]:
    for line in _lines(log):
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def _lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _MAX_LOG_BYTES))
            return log.read().splitlines()
    except OSError:
        return []


def _last_words(path: Path) -> str:
    """Return the last line of an error that was not expected."""
    last = (_lines(path) or [b""])[-1].decode(errors="replace").strip()
    return f" ({shown(last[:_MAX_TOLD])})" if last else ""


def _full_disk(folder: Path) -> str:
    with suppress(OSError):
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            return " (its disk is full)"
    return ""


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return str(number)


def _silent_s(folder: Path) -> float:
    """Return the time since a training has written something."""
    try:
        return time.time() - (folder / _LOG).stat().st_mtime
    except OSError:
        return math.inf
