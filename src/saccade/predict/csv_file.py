"""A CSV file of predictions, written while they come."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from saccade import files
from saccade.labels import Labels
from saccade.predict.prediction import Failure, Prediction

PROBABILITY = "probability_"
"""The prefix of the columns of the classes' probabilities; the name of the class follows."""

_BEFORE = ("path", "verdict", "sure", "probability")
_AFTER = ("decided_at_s", "num_frames", "fps", "warning", "error")


def unfinished(path: Path) -> Path:
    """Return where the rows of a CSV file are until it is complete.

    >>> unfinished(Path("found.csv")).name
    'found.csv.part'
    """
    return path.with_name(f"{path.name}.part")


@contextmanager
def rows_into(path: Path, labels: Labels) -> Iterator[Callable[[Prediction | Failure], None]]:
    """Yield a function that adds the row of a clip.

    Each row is in the file `unfinished(path)` when the function returns. If the block ends without an error, that file
    replaces `path`; otherwise it stays, and holds whole rows only.

    Args:
        path: the CSV file.
        labels: the classes of the model, which have a column each.

    Raises:
        OSError: if the file cannot be written.
    """
    files.check_writable(path)
    part = unfinished(path)
    with part.open("wb", buffering=0) as file:
        names = [f"{PROBABILITY}{name}" for name in labels.names]
        _append(file, part, [*_BEFORE, *names, *_AFTER])
        yield lambda outcome: _append(file, part, _cells(outcome, len(names)))
        with files.errors_named(part):
            os.fsync(file.fileno())
    part.replace(path)


def no_rows() -> nullcontext[Callable[[Prediction | Failure], None]]:
    """Return what `rows_into` does where no file is wanted."""
    return nullcontext(lambda outcome: None)


def _cells(outcome: Prediction | Failure, num_classes: int) -> list[object]:
    if isinstance(outcome, Failure):
        empty = [""] * (len(_BEFORE) + num_classes + len(_AFTER) - 2)
        return [outcome.clip, *empty, " ".join(str(outcome.error).split())]
    said = [f"{value:.6f}" for value in outcome.probabilities.values()]
    return [
        *(outcome.clip, outcome.verdict, str(outcome.sure).lower(), f"{outcome.probability:.6f}", *said),
        "" if outcome.decided_at_s is None else f"{outcome.decided_at_s:.3f}",
        outcome.num_frames,
        "" if outcome.fps is None else f"{outcome.fps:g}",
        *(outcome.warning or "", ""),
    ]


def _append(file: BinaryIO, path: Path, cells: Sequence[object]) -> None:
    """Add a row as a whole; if that fails, the file ends with the row before."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    # Bytes of file names that are not UTF-8 become escapes.
    rest = memoryview(text.getvalue().encode("utf-8", "backslashreplace"))
    end = file.tell()
    try:
        with files.errors_named(path):
            while rest:
                rest = rest[file.write(rest) :]
    except BaseException:
        with suppress(OSError):
            file.truncate(end)
        raise
