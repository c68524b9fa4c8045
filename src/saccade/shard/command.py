"""The command `saccade shard`: plan the archives of a collection, and write those that are missing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade import files
from saccade.data import Folder, members, video
from saccade.data.archives import MANIFEST
from saccade.data.labelled import LabelledClip
from saccade.data.split import SPLITS
from saccade.errors import DataError, Interrupted, UsageError
from saccade.foreign import UNREADABLE
from saccade.shard.config import ShardConfig

Begin = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class Written:
    """What the archives of a collection hold.

    Args:
        archives: the archives.
        num_clips: the number of clips of each split.
        left_out: the clips that cannot be read, by name, each with the reason.
        num_before: the number of archives that an earlier call had written.
    """

    archives: tuple[Path, ...]
    num_clips: dict[str, int]
    left_out: dict[str, str]
    num_before: int = 0


@dataclass(frozen=True)
class _Archive:
    name: str
    split: str
    clips: tuple[LabelledClip, ...]
    first: int


def shard(config: ShardConfig, *, begin: Begin | None = None) -> Written:
    """Write the archives of a collection; after an interrupted call, those that are missing.

    Args:
        config: the options.
        begin: a function from the name of a stage to one that is called with the number of clips done and the total.

    Raises:
        UsageError: if the folder holds archives of other clips or options, or other files.
        DataError: if the collection cannot be read.
        OSError: if an archive cannot be written.
        Interrupted: if Ctrl-C stops the writing; whole archives stay.
    """
    counters = begin or (lambda _stage: lambda _done, _total: None)
    folder = Folder(config.data, group=config.group, seed=config.split_seed, progress=counters("clips read"))
    folder.scanned()
    planned = list(_planned(folder, config))
    with files.locked(config.out / MANIFEST):
        files.remove_leftovers(config.out)
        _claim(config.out, planned)
        counted = counters("clips written")
        num, num_done, num_before = sum(len(archive.clips) for archive in planned), 0, 0
        try:
            for archive in planned:
                path = config.out / archive.name
                if path.exists():
                    num_before += 1
                else:
                    _write(path, archive)
                num_done += len(archive.clips)
                counted(num_done, num)
        except KeyboardInterrupt as error:
            raise Interrupted(f"{num_done} of {num} clips are in archives in {config.out}") from error
    sizes = {split: sum(len(a.clips) for a in planned if a.split == split) for split in SPLITS}
    return Written(tuple(config.out / a.name for a in planned), sizes, folder.left_out, num_before)


def _planned(folder: Folder, config: ShardConfig) -> Iterator[_Archive]:
    """Yield the archives of a collection with the clips of each: a function of the clips and the options."""
    room = config.shard_mb * 1e6
    for place, split in enumerate(SPLITS):
        clips = folder.of_split(split)
        order = np.random.default_rng((config.split_seed, place)).permutation(len(clips))
        parts: list[list[LabelledClip]] = []
        filled = room
        for index in order.tolist():
            size = members.state(clips[index].path)[0]
            if filled + size > room and (filled or not parts):
                parts.append([])
                filled = 0
            parts[-1].append(clips[index])
            filled += size
        first = 0
        for number, part in enumerate(parts):
            yield _Archive(f"{split}-{number:06d}{members.SUFFIX}", split, tuple(part), first)
            first += len(part)


def _claim(out: Path, planned: Sequence[_Archive]) -> None:
    """Write what the folder will hold, or compare it with what it holds."""
    plan = [[a.name, [[clip.name, clip.digest, clip.label, clip.group] for clip in a.clips]] for a in planned]
    digest = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    manifest = out / MANIFEST
    if manifest.exists():
        try:
            came = json.loads(manifest.read_text(encoding="utf-8"))["plan_sha256"]
        except UNREADABLE as error:
            raise DataError(f"{manifest} cannot be read ({error}); remove {out} or choose another --out") from error
        if came != digest:
            raise UsageError(f"{out} holds archives of other clips or options; choose another --out")
        return
    others = sorted(path.name for path in out.glob("[!.]*"))
    if others:
        raise UsageError(f"{out} holds {others[0]}, but no {MANIFEST}; choose a new or empty folder as --out")
    archives = [{"name": a.name, "split": a.split, "num_clips": len(a.clips)} for a in planned]
    files.write_json(manifest, {"plan_sha256": digest, "archives": archives})


def _write(path: Path, archive: _Archive) -> None:
    with files.whole(path) as temporary, tarfile.open(temporary, "w") as written:
        for number, clip in enumerate(archive.clips, archive.first):
            key = f"{number:09d}"
            with members.opened(clip.path) as file:
                _add(written, f"{key}{_ending(clip.path)}", file, members.state(clip.path)[0])
            told = json.dumps(_described(clip, archive.split)).encode()
            _add(written, f"{key}.json", io.BytesIO(told), len(told))


def _ending(path: Path) -> str:
    """Return the ending of a clip in an archive; a file that is named without one is recognised by its content."""
    ending = path.suffix.lower()
    return ending if ending in video.SUFFIXES else ".mp4"


def _add(written: tarfile.TarFile, name: str, content: Any, num_bytes: int) -> None:
    header = tarfile.TarInfo(name)  # its owner and time are empty, so that equal clips give equal archives
    header.size = num_bytes
    written.addfile(header, content)


def _described(clip: LabelledClip, split: str) -> dict[str, Any]:
    entry = clip.entry
    told = {"name": clip.name, "class": list(clip.classes) if len(clip.classes) != 1 else clip.classes[0]}
    others = {"split": split, "group": entry.group, "start_s": entry.start_s, "end_s": entry.end_s}
    return told | {name: value for name, value in others.items() if value is not None} | {"sha256": clip.digest}
