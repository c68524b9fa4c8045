"""Labelled clips of a collection: a folder with one folder per class, or a CSV file that names files and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from saccade.data import archives, csv_rows, video
from saccade.data.collection_checks import check_classes, check_splits, like_splits, rare_classes
from saccade.data.finding import captured, check_pattern, find_clips, unreadable, visible_files
from saccade.data.grouping import parts_together
from saccade.errors import DataError, UsageError
from saccade.foreign import shown

SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""The names of splits in a collection, and what each of them is called here."""

COLUMNS = ("path", "class", "split", "group", "start_s", "end_s")
"""The columns of a CSV file that names clips; the first two are needed."""

CLASS_SEPARATOR = "|"

_MAX_LETTERS = {"path": 4096, "class": 200, "group": 200}


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
        entries: the clips, in order of their names: results must not depend on the order of the rows of a CSV file.
        exclusive: whether every clip has exactly one class.
        left_out: files that are no clips of the collection, and folders that cannot be opened, each with the reason.
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

    @cached_property
    def unreadable(self) -> tuple[tuple[Path, str], ...]:
        """What was left out although it was meant as a clip, each with the reason: a CSV file names only such files."""
        return tuple(
            (path, why)
            for path, why in self.left_out
            if not self.source.is_dir() or video.is_named_as_clip(path) or path.is_dir()
        )

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

    Tar archives, named by a pattern such as `shards/*.tar`, hold clips as webdataset does: beside `000017.mp4`, the
    file `000017.json` has the entries `class`, and if needed `split`, `group`, `start_s` and `end_s`, as in a CSV file;
    or `000017.cls` has the class alone. Without these entries, the beginning of the archive's name tells the split, if
    it is that of one: `train-000000.tar`.

    A CSV file has a header with the columns `path` and `class`, and any of `split`, `group`, `start_s` and `end_s`;
    other columns are not used. It is separated by commas, semicolons or tabs. Paths are relative to the folder of the
    file. Classes that are joined by `|` are present together. A row without a class is a clip that shows none of them.

    *Conventions:* times are in seconds from the start of the file. Several parts of one file are one group, unless
    different groups are given.

    Args:
        source: the folder or CSV file.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group.

    Raises:
        UsageError: if `group` is not a regular expression with a group, or the CSV file has groups already.
        DataError: if `source` is missing, holds no clips, or a row cannot be understood; if there is only one class,
            two classes differ only in case or blanks, a split lacks a class, or a group is in two splits; if only some
            of the folders are named as splits; if some parts of a file are given different groups, and others none.
    """
    if group is not None:
        check_pattern(group)
    if archives.are_named_by(source):
        found = _of_rows(source, COLUMNS, archives.rows(source))
    elif source.is_dir():
        found = _in_folder(source)
    elif source.exists():
        found = _in_csv(source)
    else:
        raise DataError(f"{source} does not exist; give a folder with one folder per class, or a CSV file of clips")
    if group is not None:
        if any(entry.group is not None for entry in found.entries):
            raise UsageError(f"{source} has a column 'group'; leave out the pattern {group!r}, or remove the column")
        found = replace(found, entries=tuple(replace(e, group=captured(group, e.path)) for e in found.entries))
    else:
        found = replace(found, entries=_parts_together(found))
    check_classes(found)
    check_splits(found)
    return replace(found, problems=(*found.problems, *like_splits(found), *rare_classes(found)))


def _in_folder(root: Path) -> Collection:
    closed: dict[Path, str] = {}
    paths = [(path, path.relative_to(root).parts) for path in find_clips(root, closed=closed.__setitem__)]
    in_splits = _is_in_splits(root, [parts for _, parts in paths])
    depth = 2 if in_splits else 1
    entries, failed = [], []
    for path, parts in paths:
        if len(parts) <= depth:
            raise DataError(f"{path} is not in a class folder; move it into a folder named after its class")
        if why := unreadable(path):
            failed.append((path, why))
            continue
        name = shown(parts[depth - 1])  # names that are not UTF-8 could not be stored with a model
        if CLASS_SEPARATOR in name:
            raise DataError(
                f"the class {name!r} of {path} contains {CLASS_SEPARATOR!r}, which joins the names of classes that are"
                " present together; give its folder another name"
            )
        entries.append(Entry(path, (name,), split=SPLIT_NAMES[parts[0].casefold()] if in_splits else None))
    files = visible_files(root, closed=closed.__setitem__)
    others = sorted(path for path in files if not video.is_named_as_clip(path))
    left_out = [(path, f"its ending {path.suffix!r} is not that of a video") for path in others]
    if not entries:
        raise DataError(f"no clip in {root} can be read: {failed[0][0]} {failed[0][1]}")
    return Collection(root, tuple(entries), left_out=(*closed.items(), *failed, *left_out))


def _is_in_splits(root: Path, paths: Sequence[tuple[str, ...]]) -> bool:
    """Return whether the first folders are splits.

    Raises:
        DataError: if they seem to be, but one of them has another name.
    """
    folders = sorted({parts[0] for parts in paths})
    odd = [name for name in folders if name.casefold() not in SPLIT_NAMES]
    in_folders = {name for name in folders if all(len(parts) > 2 for parts in paths if parts[0] == name)}
    if odd and (splits := sorted(in_folders.difference(odd))):
        raise DataError(
            f"{splits[0]!r} in {root} is named as a split and holds folders, but {odd[0]!r} beside it is none of the"
            f" splits {', '.join(SPLIT_NAMES)}; rename it or move it away, or rename {splits[0]!r} if it is a class"
        )
    return not odd


def _in_csv(source: Path) -> Collection:
    columns, rows = csv_rows.read(source, needed=COLUMNS[:2])
    return _of_rows(source, columns, [(f"line {line}", cells) for line, cells in rows])


def _of_rows(source: Path, columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, str]]]) -> Collection:
    """Return the clips that rows name; each has a place, such as the number of its line, for messages."""
    entries: dict[tuple[Path, float | None, float | None], Entry] = {}
    places: dict[Entry, str] = {}
    left_out = []
    for place, cells in rows:
        entry = _entry(source, place, cells)
        before = entries.setdefault((entry.path, entry.start_s, entry.end_s), entry)
        if before is entry:
            places[entry] = place
        elif before == entry:
            left_out.append((entry.path, f"{place} names it again, after {places[before]}"))
        else:
            raise DataError(
                f"{source} {place} names {entry.path.name!r} again with other cells than {places[before]};"
                f" keep one of them, or join classes that are present together with {CLASS_SEPARATOR!r}"
            )
    exclusive = all(len(entry.classes) < 2 for entry in places)
    if exclusive and (empty := [place for entry, place in places.items() if not entry.classes]):
        raise DataError(f"{source} {empty[0]} has no class; write its class, or remove the line")
    reasons = {entry: unreadable(entry.path) for entry in places}
    kept = tuple(entry for entry, why in reasons.items() if why is None)
    if not kept:
        first = next(iter(places)).path if places else None
        came = f"none of its {len(places)} clips can be read, such as {first}" if places else "it names no clip"
        raise DataError(f"{source}: {came}; paths are relative to the folder of the CSV file")
    left_out += [(entry.path, f"{why} ({places[entry]})") for entry, why in reasons.items() if why]
    unused = [name for name in columns if name not in COLUMNS]
    problems = (f"columns that are not used: {', '.join(unused)}; known: {', '.join(COLUMNS)}",) if unused else ()
    found = Collection(source, kept, exclusive, tuple(left_out), problems)
    return replace(found, entries=tuple(sorted(kept, key=lambda entry: _place(found, entry))))


def _place(found: Collection, entry: Entry) -> tuple[tuple[str, ...], float, float]:
    """Return what orders clips: their files as in a folder, and then the times."""
    end_s = math.inf if entry.end_s is None else entry.end_s
    return PurePosixPath(found.name_of(entry.path)).parts, entry.start_s or 0.0, end_s


def _entry(source: Path, place: str, cells: Mapping[str, str]) -> Entry:
    place = f"{source} {place}"
    if not cells["path"]:
        raise DataError(f"{place} has no path; write the file of the clip, or remove the line")
    for name, most in _MAX_LETTERS.items():
        parts = cells.get(name, "").split(CLASS_SEPARATOR)
        if long := [part for part in parts if len(part) > most]:
            raise DataError(
                f"{place} has a {name} of {len(long[0])} letters, {long[0][:20]!r}...; at most {most} are allowed"
            )
    classes = [shown(name.strip()) for name in cells["class"].split(CLASS_SEPARATOR)] if cells["class"] else []
    if not all(classes):
        raise DataError(f"{place} has the class {cells['class']!r:.200}, with an empty name; write it as in 'run|jump'")
    split = cells.get("split", "").casefold()
    if "split" in cells and split not in SPLIT_NAMES:
        raise DataError(f"{place} has the split {cells['split']!r:.60}; one of {', '.join(SPLIT_NAMES)} is needed")
    start_s, end_s = (_seconds(place, name, cells.get(name, "")) for name in ("start_s", "end_s"))
    if end_s is not None and (start_s or 0.0) >= end_s:
        raise DataError(f"{place} starts at {start_s or 0.0:g} s and ends at {end_s:g} s; end_s must be above start_s")
    path, names = (source if source.is_dir() else source.parent) / cells["path"], tuple(sorted(set(classes)))
    return Entry(path, names, cells.get("group") or None, SPLIT_NAMES.get(split), start_s, end_s)


def _seconds(place: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f"{place} has the {name} {cell!r:.60}; a number of seconds is needed, such as 2.5")
    return value


def _parts_together(found: Collection) -> tuple[Entry, ...]:
    """Make one group of the parts of a file, which may have several spellings and links."""
    entries = found.entries
    real = {path: path.resolve() for path in {entry.path for entry in entries}}
    files = [found.name_of(entry.path) for entry in entries]
    names = [found.name_of_entry(entry) for entry in entries]
    return tuple(parts_together(entries, [real[entry.path] for entry in entries], files, names))
