"""Labelled clips of a collection: a folder with one folder per class, or a CSV file that names files and classes."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from saccade.data import csv_rows, video
from saccade.data.finding import captured, check_pattern, find_clips, unreadable, visible_files
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

    @cached_property
    def folder(self) -> Path:
        """The folder that the names of clips are relative to."""
        return self.source if self.source.is_dir() else self.source.parent

    @cached_property
    def _starts(self) -> tuple[Path, Path]:
        return self.folder, self.folder.resolve()

    @property
    def unreadable(self) -> tuple[tuple[Path, str], ...]:
        """What was left out although it was meant as a clip, each with the reason: a CSV file names only such files."""
        return tuple(one for one in self.left_out if not self.source.is_dir() or video.is_named_as_clip(one[0]))

    def name_of_entry(self, entry: Entry) -> str:
        """Return the name of a clip: that of its file, and its part as in the address of a medium.

        >>> clips = Collection(Path("clips.csv"), ())
        >>> clips.name_of_entry(Entry(Path("a.mp4"), ("run",), start_s=1.5, end_s=3.0))
        'a.mp4#t=1.5,3'

        Source: W3C, "Media Fragments URI 1.0", 2012, for the part.
        """
        name = self.name_of(entry.path)
        if entry.start_s is None and entry.end_s is None:
            return name
        return f"{name}#t={entry.start_s or 0:.10g}" + ("" if entry.end_s is None else f",{entry.end_s:.10g}")

    def name_of(self, path: Path) -> str:
        """Return the name of a file: its path in the folder.

        The name stays the same if the whole collection moves. A file outside the folder that was given by its full
        path is called by it.
        """
        inside = next((start for start in self._starts if path.is_relative_to(start)), None)
        return (path if inside is None else path.relative_to(inside)).as_posix()

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

    In a folder, the first folder below it names the class, and deeper folders belong to that class. If all folders
    below it are called train, test, validation or val, they are splits, and the folders in them name the classes.

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
        found = replace(found, entries=tuple(replace(e, group=captured(group, e.path)) for e in found.entries))
    elif all(entry.group is None for entry in found.entries):
        found = replace(found, entries=_parts_together(found))
    _check_classes(found)
    _check_splits(found)
    return replace(found, problems=(*found.problems, *_rare(found)))


def _in_folder(root: Path) -> Collection:
    paths = [(path, path.relative_to(root).parts) for path in find_clips(root)]
    in_splits = {parts[0].casefold() for _, parts in paths} <= SPLIT_NAMES.keys()
    depth = 2 if in_splits else 1
    entries, failed = [], []
    for path, parts in paths:
        if len(parts) <= depth:
            raise DataError(f"{path} is not in a class folder; move it into a folder named after its class")
        if why := unreadable(path):
            failed.append((path, why))
        # Names that are not UTF-8 could not be stored with a model.
        split = SPLIT_NAMES[parts[0].casefold()] if in_splits else None
        entries += [] if why else [Entry(path, (shown(parts[depth - 1]),), split=split)]
    others = sorted(path for path in visible_files(root) if not video.is_named_as_clip(path))
    left_out = [(path, f"its ending {path.suffix!r} is not that of a video") for path in others]
    if not entries:
        raise DataError(f"no clip in {root} can be read: {failed[0][0]} {failed[0][1]}")
    return Collection(root, tuple(entries), left_out=(*failed, *left_out))


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
    reasons = {entry: unreadable(entry.path) for entry in lines}
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
    classes = [shown(name.strip()) for name in cells["class"].split(CLASS_SEPARATOR)] if cells["class"] else []
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


def _parts_together(found: Collection) -> tuple[Entry, ...]:
    """Make one group of the parts of a file."""
    num = Counter(entry.path for entry in found.entries)
    return tuple(replace(e, group=found.name_of(e.path)) if num[e.path] > 1 else e for e in found.entries)


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
