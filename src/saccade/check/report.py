"""What a check finds in a collection, and the CSV file of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saccade import files
from saccade.check.config import CheckConfig
from saccade.data import collection, duplicates, leaks, video
from saccade.data.collection import Collection, Entry
from saccade.data.duplicates import Duplicate
from saccade.data.labelled import LabelledClip, copies_together, without_duplicates
from saccade.data.leaks import Leak
from saccade.data.scan import Record, read_small, scan
from saccade.data.split import held_out
from saccade.errors import DataError


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        collection: the clips.
        records: what was found in each clip, in order of the entries.
        duplicates: the groups of clips that are equal, and of clips that look alike.
        leak: how well metadata alone predicts the class; None if there are too few clips to tell.
    """

    collection: Collection
    records: tuple[Record, ...]
    duplicates: tuple[Duplicate, ...]
    leak: Leak | None

    @cached_property
    def unreadable(self) -> tuple[tuple[Path, str], ...]:
        """The clips that cannot be read, each with the reason."""
        return (*self.collection.unreadable, *((r.entry.path, r.error) for r in self.records if r.error is not None))

    @cached_property
    def others(self) -> tuple[tuple[Path, str], ...]:
        """The files in the folder that are no videos, each with the reason."""
        unreadable = set(self.unreadable)
        return tuple(item for item in self.collection.left_out if item not in unreadable)

    @cached_property
    def damaged(self) -> tuple[tuple[Path, str], ...]:
        """The clips of which only a part can be read, each with the damage."""
        return tuple((r.entry.path, r.warning) for r in self.records if r.warning is not None)

    @cached_property
    def root(self) -> Path:
        """The deepest folder that holds all files of the collection."""
        paths = [entry.path for entry in self.collection.entries] + [path for path, _ in self.collection.left_out]
        return Path(os.path.commonpath([path.parent for path in paths]))

    @property
    def has_groups(self) -> bool:
        """Whether clips belong to groups."""
        return any(entry.group is not None for entry in self.collection.entries)

    @cached_property
    def attention(self) -> tuple[str, ...]:
        """One line for each finding that needs attention before a training."""
        crossing = {
            "across classes": [found for found in self.duplicates if found.across_classes],
            "across splits": [found for found in self.duplicates if found.across_splits],
            "that a split can part": []
            if self.collection.splits
            else [d for d in self.duplicates if d.across_groups and not d.across_classes],
        }
        found = [f"{_count(len(self.unreadable), 'clip')} cannot be read"] if self.unreadable else []
        found += [f"{_count(len(some), 'set')} of duplicates {kind}" for kind, some in crossing.items() if some]
        found += ["metadata tells the class"] if self.leak is not None and self.leak.found else []
        found += [f"a training is refused: {self.refusal}"] if self.refusal is not None else []
        return tuple(found)

    @cached_property
    def refusal(self) -> str | None:
        """Why the clips that can be read cannot be split for a training, in one line, or None."""
        names = {record.entry: self.collection.name_of_entry(record.entry) for record in self.records}
        clips = [
            LabelledClip(record.entry, names[record.entry], record.entry.group or names[record.entry], record.digest)
            for record in self.records
            if record.error is None and record.digest is not None
        ]
        with suppress(DataError):  # equal clips of different classes are told as duplicates
            clips = list(without_duplicates(clips)[0])
        try:
            held_out(copies_together(clips, self.collection), seed=0)
        except DataError as error:
            return str(error)
        return None

    @property
    def exit_status(self) -> int:
        """0 if nothing needs attention, else 1."""
        return 1 if self.attention else 0


def check(
    config: CheckConfig,
    *,
    read: Callable[[Entry], video.Clip] = read_small,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check a collection of clips, and write the CSV file if one is wanted.

    Args:
        config: the collection and the options.
        read: the function that reads a clip, as for `scan`.
        progress: a function that is called with the number of clips read and the total.

    Raises:
        UsageError: if `group` is not a regular expression with a group.
        DataError: if the collection cannot be read, as for `collection.read`.
        OSError: if the CSV file cannot be written.
    """
    if config.csv is not None:
        files.check_writable(config.csv)
    clips = collection.read(config.data, group=config.group)
    records = scan(clips, read=read, workers=config.workers, time_limit_s=config.time_limit_s, progress=progress)
    found = Report(clips, tuple(records), tuple(duplicates.find(records)), leaks.check_leak(records, config.seed))
    if config.csv is not None:
        _write_csv(config.csv, found)
    return found


def _write_csv(path: Path, report: Report) -> None:
    equal, alike = ({}, {})  # type: tuple[dict[Entry, int], dict[Entry, int]]
    for number, found in enumerate(report.duplicates, 1):
        (equal if found.exact else alike).update(dict.fromkeys(found.entries, number))
    rows = [
        {
            **_of_entry(record.entry),
            **{name: getattr(record, name) for name in ("num_frames", "duration_s", "fps", "codec", "bit_rate_bps")},
            **dict(zip(("height", "width"), record.size or (None, None), strict=True)),
            **{name: getattr(record, name) for name in ("num_bytes", "digest", "warning", "error")},
            "equal_set": equal.get(record.entry),
            "alike_set": alike.get(record.entry),
        }
        for record in report.records
    ]
    left_out = [{"path": str(path), "error": why} for path, why in report.collection.left_out]
    columns = list(rows[0])
    lines = [[row.get(name) for name in columns] for row in (*rows, *left_out)]
    files.write_text(path, files.csv_text([columns, *lines]))


def _of_entry(entry: Entry) -> dict[str, object]:
    classes = collection.CLASS_SEPARATOR.join(entry.classes)
    return {
        "path": str(entry.path),
        "class": classes,
        "split": entry.split,
        "group": entry.group,
        "start_s": entry.start_s,
        "end_s": entry.end_s,
    }


def _count(num: int, what: str) -> str:
    return f"{num} {what}{'' if num == 1 else 's'}"
