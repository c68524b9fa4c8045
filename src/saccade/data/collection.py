"""Labelled clips of a collection: a folder with one folder per class, or a CSV file that names files and classes."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.data import csv_rows, video
from saccade.data.finding import check_pattern, find_clips, visible_files
from saccade.errors import DataError, UsageError
from saccade.foreign import shown

SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""The names of splits in a collection, and what each of them is called here."""

COLUMNS = ("path", "class", "split", "group", "start_s", "end_s")
"""The columns of a CSV file that names clips; the first two are needed."""

CLASS_SEPARATOR = "|"


@dataclass(frozen=True)
class Entry:
    """A labelled clip: a file, or a part of it.

    Args:
        path: the file.
        classes: the names of its classes: one, or any number if classes do not exclude each other.
        group: the name of its group, which is never split; None if the clip is a group by itself.
        split: train, validation or test; None if the collection does not say it.
        start_s: the time in seconds at which the clip starts in the file; None for the start of the file.
        end_s: the time in seconds at which the clip ends in the file; None for the end of the file.
    """

    path: Path
    classes: tuple[str, ...]
    group: str | None = None
    split: str | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Collection:
    """Labelled clips, and what was left out of them.

    Args:
        source: the folder or CSV file.
        entries: the clips, in order of their names in a folder, else in order of the rows.
        exclusive: whether every clip has exactly one class.
        left_out: files that are no clips of the collection, each with the reason.
        problems: one line for each doubt that does not prevent reading, such as a class with a single clip.
    """

    source: Path
    entries: tuple[Entry, ...]
    exclusive: bool = True
    left_out: tuple[tuple[Path, str], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted({name for entry in self.entries for name in entry.classes}))

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the order train, validation, test; empty if the collection has none."""
        found = {entry.split for entry in self.entries}
        return tuple(name for name in dict.fromkeys(SPLIT_NAMES.values()) if name in found)


def read(source: Path, *, group: str | None = None) -> Collection:
    """Return the labelled clips of a folder or a CSV file, without reading the clips.

    In a folder, the first folder below it names the class, and deeper folders belong to that class. If the folders
    below it are called train, test, and validation or val, they are splits, and the folders in them name the classes.

    A CSV file has a header with the columns `path` and `class`, and any of `split`, `group`, `start_s` and `end_s`;
    other columns are not used. It is separated by commas, semicolons or tabs. Paths are relative to the folder of the
    file. Classes that are joined by `|` are present together. A row without a class is a clip that shows none of them.

    *Conventions:* times are in seconds from the start of the file. Several parts of one file are one group, unless
    groups are given.

    Args:
        source: the folder or CSV file.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group.

    Raises:
        UsageError: if `group` is not a regular expression with a group, or the CSV file has groups already.
        DataError: if `source` is missing, holds no clips, or a row cannot be understood; if there is only one class,
            two classes differ only in case or blanks, a split lacks a class, or a group is in two splits.
    """
    if group is not None:
        check_pattern(group)
    if source.is_dir():
        found = _in_folder(source)
    elif source.exists():
        found = _in_csv(source)
    else:
        raise DataError(f"{source} does not exist; give a folder with one folder per class, or a CSV file of clips")
    if group is not None:
        if any(entry.group is not None for entry in found.entries):
            raise UsageError(f"{source} has a column 'group'; leave out the pattern {group!r}, or remove the column")
        found = replace(found, entries=tuple(replace(e, group=_captured(group, e.path)) for e in found.entries))
    elif all(entry.group is None for entry in found.entries):
        found = replace(found, entries=_parts_together(found.entries, source.parent))
    _check_classes(found)
    _check_splits(found)
    return replace(found, problems=(*found.problems, *_rare(found)))


def _in_folder(root: Path) -> Collection:
    paths = [(path, path.relative_to(root).parts) for path in find_clips(root)]
    in_splits = {parts[0] for _, parts in paths} <= SPLIT_NAMES.keys()
    depth = 2 if in_splits else 1
    entries, unreadable = [], []
    for path, parts in paths:
        if len(parts) <= depth:
            raise DataError(f"{path} is not in a class folder; move it into a folder named after its class")
        if why := _unreadable(path):
            unreadable.append((path, why))
        # Names that are not UTF-8 could not be stored with a model.
        split = SPLIT_NAMES[parts[0]] if in_splits else None
        entries += [] if why else [Entry(path, (shown(parts[depth - 1]),), split=split)]
    others = sorted(path for path in visible_files(root) if not video.is_named_as_clip(path))
    left_out = [(path, f"its ending {path.suffix!r} is not that of a video") for path in others]
    if not entries:
        raise DataError(f"no clip in {root} can be read: {unreadable[0][0]} {unreadable[0][1]}")
    return Collection(root, tuple(entries), left_out=(*unreadable, *left_out))


def _in_csv(source: Path) -> Collection:
    columns, rows = csv_rows.read(source, needed=COLUMNS[:2])
    entries: dict[tuple[Path, float | None, float | None], Entry] = {}
    lines: dict[Entry, int] = {}
    left_out = []
    for line, cells in rows:
        entry = _entry(source, line, cells)
        before = entries.setdefault((entry.path, entry.start_s, entry.end_s), entry)
        if before is entry:
            lines[entry] = line
        elif before == entry:
            left_out.append((entry.path, f"line {line} names it again, after line {lines[before]}"))
        else:
            raise DataError(
                f"{source} line {line} names {entry.path.name!r} again with other cells than line {lines[before]};"
                f" keep one of them, or join classes that are present together with {CLASS_SEPARATOR!r}"
            )
    exclusive = all(len(entry.classes) < 2 for entry in lines)
    if exclusive and (empty := [line for entry, line in lines.items() if not entry.classes]):
        raise DataError(f"{source} line {empty[0]} has no class; write its class, or remove the line")
    reasons = {entry: _unreadable(entry.path) for entry in lines}
    kept = tuple(entry for entry, why in reasons.items() if why is None)
    if not kept:
        first = next(iter(lines)).path if lines else None
        came = f"none of its {len(lines)} clips can be read, such as {first}" if lines else "it names no clip"
        raise DataError(f"{source}: {came}; paths are relative to the folder of the CSV file")
    left_out += [(entry.path, f"{why} (line {lines[entry]})") for entry, why in reasons.items() if why]
    unused = [name for name in columns if name not in COLUMNS]
    problems = (f"columns that are not used: {', '.join(unused)}; known: {', '.join(COLUMNS)}",) if unused else ()
    return Collection(source, kept, exclusive, tuple(left_out), problems)


def _entry(source: Path, line: int, cells: Mapping[str, str]) -> Entry:
    place = f"{source} line {line}"
    if not cells["path"]:
        raise DataError(f"{place} has no path; write the file of the clip, or remove the line")
    classes = [name.strip() for name in cells["class"].split(CLASS_SEPARATOR)] if cells["class"] else []
    if not all(classes):
        raise DataError(f"{place} has the class {cells['class']!r}, with an empty name; write it as in 'run|jump'")
    split = cells.get("split", "").casefold()
    if "split" in cells and split not in SPLIT_NAMES:
        raise DataError(f"{place} has the split {cells['split']!r}; one of {', '.join(SPLIT_NAMES)} is needed")
    start_s, end_s = (_seconds(place, name, cells.get(name, "")) for name in ("start_s", "end_s"))
    if end_s is not None and (start_s or 0.0) >= end_s:
        raise DataError(f"{place} starts at {start_s or 0.0:g} s and ends at {end_s:g} s; end_s must be above start_s")
    path, names = source.parent / cells["path"], tuple(sorted(set(classes)))
    return Entry(path, names, cells.get("group") or None, SPLIT_NAMES.get(split), start_s, end_s)


def _seconds(place: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f"{place} has the {name} {cell!r}; a number of seconds is needed, such as 2.5")
    return value


def _unreadable(path: Path) -> str | None:
    """Return why a file cannot be opened, or None."""
    try:
        if not path.is_file():  # to open a pipe would wait for ever
            return "is not a file" if path.exists() else "does not exist"
        path.open("rb").close()
    except (OSError, ValueError) as error:
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    return None


def _captured(pattern: str, path: Path) -> str:
    found = re.search(pattern, path.name)
    if found is None or found[1] is None:
        raise DataError(f"the pattern {pattern!r} captures nothing in {path.name}; give one that fits all clips")
    return found[1]


def _parts_together(entries: Sequence[Entry], root: Path) -> tuple[Entry, ...]:
    """Make one group of the parts of a file."""
    num = Counter(entry.path for entry in entries)
    return tuple(replace(e, group=shown(os.path.relpath(e.path, root))) if num[e.path] > 1 else e for e in entries)


def _check_classes(found: Collection) -> None:
    if len(found.classes) < 2:
        named = f"only one class, {found.classes[0]!r}" if found.classes else "no class"
        raise DataError(f"{found.source} has {named}; clips of at least two classes are needed")
    alike: dict[str, str] = {}
    for name in found.classes:
        # Systems also differ in how they write letters with accents.
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if (other := alike.setdefault(key, name)) != name:
            raise DataError(
                f"{found.source} has the classes {other!r} and {name!r}, which differ only in case or blanks;"
                " give both the same name"
            )


def _check_splits(found: Collection) -> None:
    if not found.splits:
        return
    if "train" not in found.splits:
        raise DataError(f"{found.source} has no clip of the split 'train', only of {', '.join(found.splits)}")
    for split in found.splits:
        inside = {name for entry in found.entries if entry.split == split for name in entry.classes}
        if missing := [name for name in found.classes if name not in inside]:
            more = f" and {len(missing) - 1} other classes" if missing[1:] else ""
            raise DataError(
                f"the split {split!r} of {found.source} has no clip of the class {missing[0]!r}{more};"
                " move clips of it there, or leave the class out"
            )
    splits = defaultdict(set)
    for entry in found.entries:
        if entry.group is not None and entry.split is not None:
            splits[entry.group].add(entry.split)
    if torn := [group for group, names in splits.items() if len(names) > 1]:
        names = " and ".join(sorted(splits[torn[0]]))
        raise DataError(
            f"the group {torn[0]!r} of {found.source} is in the splits {names}; move all its clips into one"
            f" ({len(torn)} of {len(splits)} groups are split)"
        )


def _rare(found: Collection) -> Iterable[str]:
    """Yield a line about classes with a single clip: none is left to test what was learned."""
    num = Counter(name for entry in found.entries for name in entry.classes)
    if alone := sorted(name for name, clips in num.items() if clips == 1):
        named = ", ".join(map(repr, alone[:3])) + (", ..." if alone[3:] else "")
        which = "1 class has a single clip" if len(alone) == 1 else f"{len(alone)} classes have a single clip each"
        yield f"{which}: {named}; a class needs at least 3, to learn from, to validate and to test"
