"""The process that trains on the clips of a page: `python -m saccade.serve.training_process CLIPS RUN`.

It does what `saccade train --data CLIPS --folds N --out RUN` does. It writes a line of JSON for each step and each
result, so that the server can tell pages how far it is. It holds a lock in the folder of the runs, and does not need
the server: a training that was started ends by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import files
from saccade.errors import DataError, SaccadeError, UsageError
from saccade.serve.training import LOCK

if TYPE_CHECKING:  # the lock is held before torch is imported, and processes that read clips import this module
    from saccade.data import Folder

_MAX_FOLDS = 3
_MAX_LEFT_OUT = 5
# The process that held the lock may be about to end.
_WAIT_S = 5.0


def train(clips: Path, run: Path) -> dict[str, Any]:
    """Train a model on a folder of clips; return the figures of its test.

    Clips of one recording session are kept together in the test if each class was recorded in two sessions or more.

    Raises:
        UsageError, DataError: as `saccade train`.
        OSError: if the run cannot be written.
    """
    from saccade.train import TrainConfig, pretrained_run

    begin = time.monotonic()
    folder, num_folds, by_session = _folder(clips)
    records = folder.scanned()
    for reason in list(folder.left_out.values())[:_MAX_LEFT_OUT]:
        _write(said=f"left out: {reason}")
    outcome = pretrained_run.train(TrainConfig(), folder, records, run, num_folds=num_folds, progress=_stage)
    return {
        "classes": list(folder.labels.names),
        "right": int(outcome.model.correct.sum()),
        "tested": len(outcome.model.correct),
        "by_session": by_session,
        "stream": None if outcome.events is None else outcome.events.told,
        "seconds": round(time.monotonic() - begin),
    }


def _folder(clips: Path) -> tuple[Folder, int, bool]:
    """Return the clips, the number of folds, and whether sessions are kept together."""
    from saccade.data.grouping import RECORDED

    try:
        return *_with_folds(clips, RECORDED), True
    except (DataError, UsageError):  # too few sessions, or clips that were not recorded here
        return *_with_folds(clips, None), False


def _with_folds(clips: Path, group: str | None) -> tuple[Folder, int]:
    from saccade.data import Folder, FrameChoice
    from saccade.train import TrainConfig, pretrained, pretrained_run

    num_folds = _fewest(clips, group)
    choice = FrameChoice(pretrained.SHORT_SIDE_PX, enlarge=True)
    folder = Folder(clips, group=group, frame_choice=choice, hold_out=False, progress=_stage("clips read"))
    pretrained_run.check_folds(folder, num_folds, TrainConfig().seed)
    return folder, num_folds


def _fewest(clips: Path, group: str | None) -> int:
    """Return the number of folds: that of sessions, or of clips, of the class with the fewest; 3 are enough."""
    from saccade.data import collection

    entries = collection.read(clips, group=group).entries
    of_class: dict[str, set[object]] = {}
    for entry in entries:
        of_class.setdefault(entry.classes[0], set()).add(entry.path if group is None else entry.group)
    return min(_MAX_FOLDS, *map(len, of_class.values()))


def _stage(name: str) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        _write(stage=name, done=done, total=total)

    told(0, 0)
    return told


def _write(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main(arguments: list[str]) -> int:
    """Train; write the figures, or the error in one line."""
    clips, run = map(Path, arguments)
    try:
        with files.locked(run.parent / LOCK, timeout_s=_WAIT_S):
            _write(stage="starting", done=0, total=1)
            from saccade.device import prepared_process

            with prepared_process():
                _write(ended=train(clips, run))
    except (SaccadeError, OSError) as error:
        told = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            told = f"{os.fsdecode(error.filename)}: {error.strerror}"
        with suppress(OSError):  # the log lies on the same disk, which may be full
            _write(error=" ".join(told.split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
