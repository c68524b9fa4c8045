"""A folder of labelled clips: the first folder below it names the class."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.clips import MAX_PX, MIN_PX, SHORT_SIDE_PX, FrameFormat, Size
from saccade.data import video
from saccade.data.collection import SPLIT_NAMES, Collection, Entry
from saccade.data.finding import check_pattern, find_clips, visible_files
from saccade.data.scan import Record, read_cached, scan
from saccade.data.split import SPLITS, LabelledFile, choose_held_out
from saccade.data.stored import StoredBatches, StoredClips
from saccade.errors import DataError, UsageError, unknown_name
from saccade.foreign import check_types, shown
from saccade.labels import Labels

# Training uses about this frame rate: of a faster clip it takes every second, third, ... frame.
_ABOUT_FPS = 15.0


_OPTIONS = ("group", "seed", "short_side", "num_frames", "hold_out")


class _Described(TypedDict, total=False):
    """The types of the fields that `Folder.as_json` writes."""

    root: str
    group: str | None
    seed: int
    short_side: int
    num_frames: int
    hold_out: bool
    frame_format: FrameFormat
    classes: tuple[str, ...]
    held_out: dict[str, tuple[str, ...]]
    clips: dict[str, tuple[str, ...]]


class Folder:
    """Labelled clips in a folder, split into training, validation and test clips.

    The class of a clip is the first folder below `root`; deeper folders belong to that class. Clips may have any
    length, size and format, in grey or colour. Of exact duplicates, one clip is kept. One fifth of the groups is held
    out for test, and one fifth of the rest for validation. Clips are decoded when they are first needed. They are kept
    in memory at the size and frame rate of the model.

    Args:
        root: the folder.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group, which is never split. None: each clip is a group.
        seed: the seed of the split.
        short_side: the length in pixels of the shorter side of frames after resizing. If all training clips have the
            same size, at most this and at least 28 px, they keep it.
        num_frames: the largest number of frames of a training clip; longer clips are cut at random.
        remembered: the split and frame format of an earlier training, as returned by `as_json`; None chooses new ones.
        enlarge: whether smaller frames are enlarged to `short_side`.
        hold_out: whether clips are held out for validation and test; otherwise all clips are for training.
        progress: a function that is called with the number of decoded clips and the total.

    Raises:
        UsageError: if a number is too small, or `group` is not a regular expression with a group.
        DataError: on first use, if the folder is missing or has no classes, a class has too few clips, or a clip is
            missing or cannot be read.

    >>> Folder(Path("clips"), group=r"_(\\d+)_").seed
    0
    """

    KIND = "folder"
    default_input = "both"

    def __init__(
        self,
        root: Path | str,
        *,
        group: str | None = None,
        seed: int = 0,
        short_side: int = SHORT_SIDE_PX,
        num_frames: int = 32,
        remembered: Mapping[str, Any] | None = None,
        enlarge: bool = False,
        hold_out: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.root, self.group, self.seed, self.hold_out = Path(root), group, seed, hold_out
        self.short_side, self.enlarge, self.num_frames, self.progress = short_side, enlarge, num_frames, progress
        self._remembered = remembered or {}
        for name, value, least in (
            ("seed", seed, 0),
            ("short_side", short_side, MIN_PX),
            ("num_frames", num_frames, 1),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")
        if group is not None:
            check_pattern(group)
        self._decoded: dict[Path, Tensor] = {}
        self._descriptions: dict[Path, video.Description] = {}
        self.left_out: dict[Path, str] = {}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Folder:
        """Create the folder from the result of `as_json`, with the same split and frame format."""
        check_types(described, _Described)
        if "frame_format" in described:  # used later, checked now
            channels = FrameFormat.from_json(described["frame_format"]).channels
            if channels not in (1, 3):
                raise ValueError(f"frame_format.channels is {channels}; 1 (grey) or 3 (RGB) is needed")
        names = _OPTIONS
        return cls(Path(described["root"]), **{n: described[n] for n in names if n in described}, remembered=described)

    def moved(self, root: Path) -> Folder:
        """Return the same clips and split in another folder.

        Raises:
            DataError: on first use, if the folder is missing or lacks clips of the split.
        """
        names = _OPTIONS
        kept = {name: getattr(self, name) for name in names}
        return Folder(root, **kept, remembered=self._remembered, progress=self.progress)

    def as_json(self) -> dict[str, Any]:
        """Return the arguments and the choices made: held-out groups, classes and frame format."""
        return {
            "kind": self.KIND,
            "root": str(self.root.resolve()),
            "group": self.group,
            "seed": self.seed,
            "short_side": self.short_side,
            "num_frames": self.num_frames,
            "hold_out": self.hold_out,
            "frame_format": self.frame_format.as_json(),
            "classes": list(self.labels.names),
            "held_out": {split: sorted(groups) for split, groups in self._held_out.items()},
            "clips": {split: [self._name_of(file) for file in self._of_split(split)] for split in self._held_out},
        }

    def identity(self) -> dict[str, Any]:
        """Return the facts that must not change when training continues; the location of the folder may change."""
        described = {name: value for name, value in self.as_json().items() if name not in ("root", "clips")}
        described["split_seed"] = described.pop("seed")  # training has a seed of its own
        learned = [f"{self._name_of(file)} {file.digest}" for file in self._of_split("train")]
        return described | {"clips_sha256": hashlib.sha256(os.fsencode("\n".join(learned))).hexdigest()}

    @cached_property
    def labels(self) -> Labels:
        """The classes, in order of their names."""
        if "classes" in self._remembered:
            return Labels(tuple(self._remembered["classes"]))
        return Labels(tuple(sorted({file.label for file in self.files})))

    @property
    def facts(self) -> dict[str, Any]:
        """A description of the clips, as columns of a result row."""
        return {"data": self.root.resolve().name, "split_seed": self.seed, "group": self.group}

    @cached_property
    def files(self) -> tuple[LabelledFile, ...]:
        """The clips in order of their names, without duplicates."""
        self._check_root()
        if (first := self._split_folders()) is not None:
            raise DataError(
                f"{self.root} holds folders named after splits, such as {first!r}; training takes a folder with one"
                " folder in it per class, and splits the clips itself"
            )
        found: list[LabelledFile] = []
        seen: dict[str, LabelledFile] = {}
        for path in find_clips(self.root):
            if path in self.left_out:
                continue
            parts = path.relative_to(self.root).parts
            if len(parts) < 2:
                raise DataError(f"{path} is not in a class folder; move it into a folder named after its class")
            file = LabelledFile(path, shown(parts[0]), self._group_of(path), _digest(path))
            before = seen.setdefault(file.digest, file)
            if before is file:
                found.append(file)
            elif before.label == file.label:
                self.duplicates.append((path, before.path))
            else:
                raise DataError(f"{path} and {before.path} are the same clip in two classes; keep one of them")
        return tuple(found)

    def _split_folders(self) -> str | None:
        """Return the name of a folder if all folders are named after splits, as `collection.read` takes them."""
        names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return names[0] if names and all(name.lower() in SPLIT_NAMES for name in names) else None

    @cached_property
    def duplicates(self) -> list[tuple[Path, Path]]:
        """Pairs of an omitted file and the kept file with the same content."""
        return []

    @cached_property
    def frame_format(self) -> FrameFormat:
        """The frames that a model for these clips expects, chosen from the training clips."""
        if "frame_format" in self._remembered:
            return FrameFormat.from_json(self._remembered["frame_format"])
        described = self._described()
        kinds = [described[file.path] for file in self._of_split("train")]
        rates = [kind.fps for kind in kinds if kind.fps]
        usual = median(rates) if rates else None
        fps = usual / max(1, round(usual / _ABOUT_FPS)) if usual else None
        channels = 1 if all(kind.grey for kind in kinds) else 3
        return FrameFormat(channels, self._size([kind.size for kind in kinds]), fps=fps)

    def parts(self) -> list[Folder]:
        """Return one part with all clips."""
        return [self]

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> Folder:
        """Return the folder itself; its test split holds the clips that were held out.

        Raises:
            UsageError: if fields of another kind of clips are given.
        """
        if given:
            option = "--" + next(iter(given)).replace("_", "-")
            raise UsageError(f"{option} is not an option of clips in a folder; leave it out for {self.root}")
        return self

    def clips(self, split: str) -> StoredClips:
        """Return the decoded clips of a split.

        Raises:
            UsageError: if the split is unknown.
            DataError: if a clip is missing or cannot be read.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        files = self._of_split(split)
        if not files:
            raise UsageError(
                f"no clip of {self.root} was held out for {split}: the model learned from all of them; the figures of"
                " its cross-validation are in the folder of its run"
            )
        number = {name: index for index, name in enumerate(self.labels.names)}
        frames = self._decode([file.path for file in files])
        targets = torch.tensor([number[file.label] for file in files])
        names = tuple(map(self._name_of, files))
        groups = None if self.group is None else tuple(file.group for file in files)
        return StoredClips(frames, targets, self.labels, self.facts | {"split": split}, names=names, groups=groups)

    def batches(self, size: int, seed: int) -> StoredBatches:
        """Return training batches of `size` clips."""
        return StoredBatches(self.clips("train"), size, self.num_frames, seed)

    def scanned(self, workers: int | None = None) -> list[Record]:
        """Decode all clips into the frame cache, in parallel processes; return what was found in each.

        Clips that cannot be read are left out: `left_out` holds their paths and the reasons.

        Args:
            workers: the number of processes; None takes the number of processors.

        Raises:
            DataError: if no clip can be read, or the rest cannot be split.
        """
        self._describe_or_leave_out()
        read = self._read
        entries = tuple(Entry(file.path, (file.label,), file.group if self.group else None) for file in self.files)
        records = scan(Collection(self.root, entries, True, (), ()), read=read, workers=workers, progress=self.progress)
        if failed := {record.entry.path: record.error for record in records if record.error is not None}:
            self._leave_out(failed)
        self.progress = None  # the frames come from the cache now
        return [record for record in records if record.error is None]

    @property
    def _read(self) -> Callable[[Entry], video.Clip]:
        wanted = self.frame_format
        return partial(read_cached, size=wanted.size, num_channels=wanted.channels, fps=wanted.fps)

    def _describe_or_leave_out(self) -> None:
        failed = {}
        for file in self.files:
            try:
                self._descriptions[file.path] = video.describe(file.path)
            except DataError as error:
                failed[file.path] = str(error)
        self._leave_out(failed)

    def _leave_out(self, failed: Mapping[Path, str]) -> None:
        self.left_out |= failed
        for name in ("files", "duplicates", "labels", "frame_format", "_held_out"):
            self.__dict__.pop(name, None)
        if failed and not self.files:
            raise DataError(f"no clip in {self.root} can be read; the first: {next(iter(failed.values()))}")

    def _check_root(self) -> None:
        if self.root.is_dir():
            return
        came = "is not a folder" if self.root.exists() else "does not exist"
        if self.root.suffix.lower() in (".csv", ".tsv") and self.root.exists():
            raise DataError(f"{self.root} is a file; training takes a folder of clips, with one folder in it per class")
        if self._remembered:
            raise DataError(
                f"the model learned from clips in {self.root}, which {came}; name their current folder with --data"
            )
        raise DataError(f"{self.root} {came}; a folder of clips is needed, with one folder in it per class")

    def _described(self) -> dict[Path, video.Description]:
        """Describe every clip, also of the test, so that unreadable clips are reported before any work."""
        found, unreadable = dict(self._descriptions), []
        for file in self.files:
            if file.path in found:
                continue
            try:
                found[file.path] = video.describe(file.path)
            except DataError as error:
                unreadable.append(error)
        if unreadable:
            more = f"; and {len(unreadable) - 1} more clips cannot be read" if len(unreadable) > 1 else ""
            raise DataError(f"{unreadable[0]}, or take it out of {self.root}{more}")
        return found

    def summary(self) -> str:
        """Return a one-line summary of the clips."""
        counts = Counter(file.label for file in self.files)
        parts = ", ".join(f"{len(self._of_split(split))} {split}" for split in SPLITS)
        grouped = f" by {len({file.group for file in self.files})} groups" if self.group else ""
        division = f", split{grouped}: {parts}" if self.hold_out else f"{grouped.replace(' by', ' in')}"
        num = len(self.duplicates)
        left_out = f"; {num} {'duplicates' if num > 1 else 'duplicate'} left out" if num else ""
        fewest, most = min(counts.values()), max(counts.values())
        sizes = f"{fewest} clips each" if fewest == most else f"{fewest} to {most} clips each"
        if others := sorted({p.suffix for p in visible_files(self.root) if not video.is_named_as_clip(p)}):
            left_out += f"; files left out by their endings: {', '.join(map(repr, others[:5]))}"
        return f"{len(self.files)} clips of {len(counts)} classes ({sizes}){division}{left_out}"

    def _name_of(self, file: LabelledFile) -> str:
        return file.path.relative_to(self.root).as_posix()

    def _group_of(self, path: Path) -> str:
        if self.group is None:
            return path.relative_to(self.root).as_posix()
        found = re.search(self.group, path.name)
        if found is None or found[1] is None:
            raise DataError(f"the pattern {self.group!r} captures nothing in {path.name}; give one that fits all clips")
        return found[1]

    @cached_property
    def _held_out(self) -> dict[str, frozenset[str]]:
        if "held_out" in self._remembered:
            return {split: frozenset(groups) for split, groups in self._remembered["held_out"].items()}
        if not self.hold_out:
            return {"test": frozenset(), "validation": frozenset()}
        return choose_held_out(self.files, self.seed)

    def _of_split(self, split: str) -> list[LabelledFile]:
        held_out = self._held_out
        known = {group for groups in held_out.values() for group in groups}
        if split == "train":
            files = [file for file in self.files if file.group not in known]
        else:
            files = [file for file in self.files if file.group in held_out[split]]
            listed = set(self._remembered.get("clips", {}).get(split, map(self._name_of, files)))
            # Clips that were added to a held-out group later are used neither for testing nor for training.
            files = [file for file in files if self._name_of(file) in listed]
            if missing := listed - set(map(self._name_of, files)):
                raise DataError(
                    f"{self.root} lacks {len(missing)} clips of the {split} part of this model's split,"
                    f" such as {min(missing)!r}; give the folder that the model was trained on"
                )
        if unknown := {file.label for file in files} - set(self.labels.names):
            raise DataError(f"{self.root} has a class {min(unknown)!r} that the model does not know")
        return files

    def _size(self, sizes: Sequence[Size]) -> Size:
        if (
            not self.enlarge
            and len(set(sizes)) == 1
            and MIN_PX <= min(sizes[0]) <= self.short_side
            and max(sizes[0]) <= MAX_PX
        ):
            return sizes[0]
        wide = median(width / height for height, width in sizes)
        longer = min(round(self.short_side * max(wide, 1 / wide)), MAX_PX)
        return (self.short_side, longer) if wide >= 1 else (longer, self.short_side)

    def _decode(self, paths: Sequence[Path]) -> list[UInt8[Tensor, "time channels height width"]]:
        read = self._read
        for number, path in enumerate(paths, 1):
            if path not in self._decoded:
                self._decoded[path] = read(Entry(path, ())).frames
            if self.progress is not None:
                self.progress(number, len(paths))
        return [self._decoded[path] for path in paths]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
