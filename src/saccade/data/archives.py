"""Labelled clips in tar archives, laid out as webdataset does: files of one sample share a name up to the first dot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict

from saccade import foreign
from saccade.data import members, video
from saccade.errors import DataError

_SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")
_SPLIT = re.compile(r"(train|validation|val|test)(?![a-z])", re.IGNORECASE)
_MOST_BYTES = 1 << 20
MANIFEST = "shards.json"
"""What `saccade shard` writes beside the archives: their names, and how many clips they hold."""

_CLASS, _JSON = "cls", "json"

Rows = list[tuple[str, dict[str, str]]]


class _Sample(TypedDict, total=False):
    """The types of the entries of a sample that are read; numbers may be whole."""

    split: str | None
    group: str | None
    start_s: float | None
    end_s: float | None


def are_named_by(source: Path) -> bool:
    """Return whether a path names archives: one, a pattern of several, or a folder with archives and no other folder.

    >>> are_named_by(Path("shards/train-*.tar"))
    True
    """
    if source.suffix == members.SUFFIX:
        return True
    if not source.is_dir():
        return False
    visible = [path for path in source.iterdir() if not path.name.startswith(".")]
    return any(path.suffix == members.SUFFIX for path in visible) and not any(path.is_dir() for path in visible)


def named_by(source: Path) -> list[Path]:
    """Return the archives that a path names, in the order of their names.

    Raises:
        DataError: if there is none.
    """
    pattern = source / f"*{members.SUFFIX}" if source.is_dir() else source
    if pattern.is_file():
        return [pattern]
    visible = (path for path in pattern.parent.glob(pattern.name) if not path.name.startswith("."))
    if not (found := sorted(path for path in visible if path.is_file())):
        raise DataError(f"there is no archive at {source}; give a pattern such as 'shards/*.tar', in quotes")
    there = {path.name for path in found}
    for name in _written(pattern.parent):
        if fnmatch(name, pattern.name) and name not in there:
            raise DataError(f"{pattern.parent / name} is missing, which {MANIFEST} names; run saccade shard again")
    return found


def _written(folder: Path) -> dict[str, int]:
    """Return the archives that `saccade shard` wrote into a folder, by name, with the number of their clips."""
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {str(archive["name"]): int(archive["num_clips"]) for archive in told["archives"]}
    except foreign.UNREADABLE as error:
        raise DataError(f"{folder / MANIFEST} cannot be read ({error}); run saccade shard again") from error


def rows(source: Path) -> Rows:
    """Return the samples of archives as rows of a CSV file of clips, each with the place that messages name.

    Raises:
        DataError: if an archive cannot be read, or a sample has no clip, several clips, or no class.
    """
    archives = named_by(source)
    written = _written(archives[0].parent)
    found = [row for archive in archives for row in _of(archive, written.get(archive.name))]
    with_split = [place for place, cells in found if "split" in cells]
    if with_split and len(with_split) < len(found):
        without = next(place for place, cells in found if "split" not in cells)
        raise DataError(f"{with_split[0]} names its split, and {without} does not; name it in all samples or in none")
    return found


def _of(archive: Path, wanted: int | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the samples of an archive, which has a wanted number of them if that is known."""
    samples: dict[str, dict[str, str]] = {}
    for name in members.names(archive):
        if (parts := _SAMPLE.fullmatch(name)) and not Path(name).name.startswith("."):
            samples.setdefault(parts[1], {})[parts[2].lower()] = name
    if not samples:
        raise DataError(
            f"{archive} holds no samples; a sample is a clip and a file with its class, as 7.mp4 and 7.json"
        )
    if wanted is not None and len(samples) != wanted:
        raise DataError(f"{archive} holds {len(samples)} clips, {MANIFEST} says {wanted}; remove it and shard again")
    by_name = _SPLIT.match(archive.name)
    for key, files in samples.items():
        place = f"{archive.name}/{key}"
        clips = [name for ending, name in files.items() if f".{ending.rpartition('.')[2]}" in video.SUFFIXES]
        if len(clips) != 1:
            raise DataError(
                f"{archive}: the sample {key!r:.80} has {len(clips) or 'no'} clips; a sample has one, beside its .json"
                " or .cls"
            )
        cells = {"path": f"{archive.name}/{clips[0]}"}
        if by_name:
            cells["split"] = by_name[1].lower()
        yield place, cells | _labels(archive, key, files)


def _labels(archive: Path, key: str, files: dict[str, str]) -> dict[str, str]:
    told: dict[str, Any] = {}
    try:
        if _JSON in files:
            told = json.loads(_text(archive / files[_JSON]))
            foreign.check_types({name: told[name] for name in _Sample.__annotations__ if name in told}, _Sample)
        if _CLASS in files and "class" not in told:
            told["class"] = _text(archive / files[_CLASS]).strip()
        named = told["class"]
        classes = named if isinstance(named, list) else [named]
        if not all(isinstance(name, str | int) for name in classes):
            raise TypeError(f"class is {named!r:.60}; a name, a number or a list of names is needed")
    except KeyError as error:
        raise DataError(f"{archive}: the sample {key!r:.80} has no class; write it into its .json or .cls") from error
    except foreign.UNREADABLE as error:
        raise DataError(f"{archive}: the sample {key!r:.80} cannot be read ({error!s:.100}); write it again") from error
    others = {name: str(told[name]) for name in _Sample.__annotations__ if told.get(name) is not None}
    return {"class": "|".join(map(str, classes))} | others


def _text(path: Path) -> str:
    with members.opened(path) as file:
        return file.read(_MOST_BYTES).decode()
