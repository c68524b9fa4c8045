"""A CSV file of predictions, written while they come, which the same call continues after an interruption."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from saccade import files, foreign
from saccade.data.collection import CLASS_SEPARATOR
from saccade.errors import DataError, UsageError
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


def made_with(path: Path) -> Path:
    """Return the JSON file that says how the rows of an unfinished CSV file were made.

    >>> made_with(Path("found.csv")).name
    'found.csv.part.json'
    """
    return path.with_name(f"{path.name}.part.json")


@dataclass
class Rows:
    """The rows of a CSV file that is being written.

    Args:
        add: a function that adds the row of a clip; the row is in the file when the function returns.
        done: the clips, as in the column `path`, that an earlier, interrupted call classified.
    """

    add: Callable[[Prediction | Failure], None] = lambda outcome: None
    done: Collection[str] = field(default_factory=frozenset)

    def has(self, clip: Path) -> bool:
        """Return whether an earlier call classified a clip."""
        return _cell(clip) in self.done


@contextmanager
def rows_into(path: Path, labels: Labels, settings: Mapping[str, Any], clips: Sequence[Path]) -> Iterator[Rows]:
    """Yield the rows of a CSV file, those of an interrupted call included.

    The rows are in the file `unfinished(path)`, which holds whole rows only. If the block ends without an error, they
    replace `path` in the order of the clips; otherwise the file stays, and the same call continues it. The classes of a
    verdict are joined as in a CSV file of clips: by `|`, and no class is an empty cell.

    Args:
        path: the CSV file.
        labels: the classes of the model, which have a column each.
        settings: what the rows depend on: the model and the options, as JSON types. They must not change when a file is
            continued.
        clips: the clips, in the order of the rows. Rows of clips that do not exist any more come first.

    Raises:
        UsageError: if the unfinished file was made with other settings or for other clips, or if another process is
            writing it.
        DataError: if the unfinished file is damaged.
        OSError: if the file cannot be written.
    """
    files.check_writable(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(path, timeout_s=0))
        except TimeoutError as error:
            raise UsageError(
                f"another process is writing {path}; wait until it has ended, or choose another file"
            ) from error
        header = [*_BEFORE, *(f"{PROBABILITY}{name}" for name in labels.names), *_AFTER]
        part = unfinished(path)
        with _begun(path, header, settings, clips) as (file, done):
            yield Rows(lambda outcome: _append(file, part, _cells(outcome, len(labels.names))), done)
            with files.errors_named(part):
                os.fsync(file.fileno())
        _finish(path, header, clips)


def no_rows() -> nullcontext[Rows]:
    """Return what `rows_into` does where no file is wanted."""
    return nullcontext(Rows())


@contextmanager
def _begun(
    path: Path, header: Sequence[str], settings: Mapping[str, Any], clips: Sequence[Path]
) -> Iterator[tuple[BinaryIO, frozenset[str]]]:
    """Open the unfinished file behind its last whole row; yield it, and the clips that it has a verdict of."""
    part = unfinished(path)
    end, done = 0, set()
    for row, row_end in _whole_rows(part):
        if not end:
            _check_same(path, settings, header, row)
        elif len(row) == len(header) and not row[-1]:  # what failed is tried again
            done.add(row[0])
        end = row_end
    _check_clips(part, done, clips)
    if not end:
        files.write_json(made_with(path), settings)
    with part.open("ab", buffering=0) as file:
        with files.errors_named(part):
            file.truncate(end)
        if not end:
            _append(file, part, header)
        yield file, frozenset(done)


def _whole_rows(part: Path) -> Iterator[tuple[list[str], int]]:
    """Yield each row of an unfinished file and where it ends; a last row that was cut off is left out."""
    content, end = b"", 0
    with part.open("rb") if part.exists() else io.BytesIO() as file:
        for line in file:
            content += line
            # A line break within quotes belongs to a name.
            if content.endswith(b"\n") and content.count(b'"') % 2 == 0:
                end += len(content)
                (row,) = csv.reader(io.StringIO(content.decode("utf-8", "replace"), newline=""))
                yield row, end
                content = b""


def _check_same(path: Path, settings: Mapping[str, Any], header: Sequence[str], came: Sequence[str]) -> None:
    part, settings_file = unfinished(path), made_with(path)
    remedy = f"give the same to continue, or remove {part} to begin again"
    try:
        before = json.loads(settings_file.read_text(encoding="utf-8"))
        foreign.check_types(before, dict[str, Any])
    except foreign.UNREADABLE as error:
        raise DataError(
            f"{part} holds rows of an earlier call, but {settings_file.name}, which says how they were made, cannot be"
            f" read ({error}); move {part} away to begin again"
        ) from error
    for name, wanted in settings.items():
        if (made := before.get(name)) != wanted:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{part} was made with {option} {made}, now {option} {wanted}; {remedy}")
    if list(header) != list(came):
        raise UsageError(f"{part} has other columns than this version writes; {remedy}")


def _check_clips(part: Path, done: Collection[str], clips: Sequence[Path]) -> None:
    strange = sorted(set(done).difference(map(_cell, clips)))
    if found := next((name for name in strange if Path(name).exists()), None):
        raise UsageError(
            f"{part} has a row of {found}, which is not among the clips of this call; give the same clips to continue,"
            f" or remove {part} to begin again"
        )


def _finish(path: Path, header: Sequence[str], clips: Sequence[Path]) -> None:
    """Let the rows take the place of the CSV file, in the order of the clips; of each clip, the last row counts."""
    part = unfinished(path)
    _, *rows = (row for row, _ in _whole_rows(part))
    last = {row[0]: row for row in rows if len(row) == len(header)}
    named = [name for name in map(_cell, clips) if name in last]
    of_others = [name for name in last if name not in set(named)]
    order = [*of_others, *named]
    if [row[0] for row in rows] == order:
        part.replace(path)
    else:
        files.write_text(path, files.csv_text([header, *(last[name] for name in order)]))
        part.unlink()
    made_with(path).unlink(missing_ok=True)


def _cell(clip: Path) -> str:
    """Return a clip as it stands in the column `path`: bytes of file names that are not UTF-8 become escapes."""
    return str(clip).encode("utf-8", "backslashreplace").decode()


def _cells(outcome: Prediction | Failure, num_classes: int) -> list[object]:
    if isinstance(outcome, Failure):
        empty = [""] * (len(_BEFORE) + num_classes + len(_AFTER) - 2)
        return [outcome.clip, *empty, " ".join(str(outcome.error).split())]
    said = [f"{value:.6f}" for value in outcome.probabilities.values()]
    return [
        *(
            outcome.clip,
            CLASS_SEPARATOR.join(outcome.classes),
            str(outcome.sure).lower(),
            f"{outcome.probability:.6f}",
            *said,
        ),
        "" if outcome.decided_at_s is None else f"{outcome.decided_at_s:.3f}",
        outcome.num_frames,
        "" if outcome.fps is None else f"{outcome.fps:g}",
        *(outcome.warning or "", ""),
    ]


def _append(file: BinaryIO, path: Path, cells: Sequence[object]) -> None:
    """Add a row as a whole; if that fails, the file ends with the row before."""
    rest = memoryview(files.csv_text([cells]).encode("utf-8", "backslashreplace"))
    end = file.tell()
    try:
        with files.errors_named(path):
            while rest:
                rest = rest[file.write(rest) :]
    except BaseException:
        with suppress(OSError):
            file.truncate(end)
        raise
