"""A folder of labelled clips: the first folder below it names the class."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.clips import MAX_PX, MIN_PX, SHORT_SIDE_PX, FrameFormat, Size
from saccade.data import video
from saccade.data.split import SPLITS, LabelledFile, choose_held_out
from saccade.data.stored import StoredBatches, StoredClips
from saccade.errors import DataError, UsageError, unknown_name
from saccade.foreign import check_types, shown
from saccade.labels import Labels

# Training learns at about so many frames a second; every second, third ... frame of a faster clip is taken.
_ABOUT_FPS = 15.0


class _Described(TypedDict, total=False):
    """What `Folder.as_json` writes."""

    root: str
    group: str | None
    seed: int
    short_side: int
    num_frames: int
    frame_format: FrameFormat
    classes: tuple[str, ...]
    held_out: dict[str, tuple[str, ...]]
    clips: dict[str, tuple[str, ...]]


class Folder:
    """Labelled clips in a folder, with a split into parts for training, validation and test.

    The class of a clip is the first folder below `root`; folders within it are of the same class. Clips may have any
    length, size and format, grey or colour. Exact duplicates are kept once. One fifth of the groups is held out for
    test, one fifth of the rest for validation. Clips are decoded when they are first needed, and kept in memory at the
    size and rate that the model sees.

    Args:
        root: the folder.
        group: a regular expression whose first group captures, from a file's name, what must not be split, such as the
            person shown: `_(\\d+)_`. None: each clip stands for itself.
        seed: what the split is drawn from.
        short_side: frames are resized until their shorter side has so many pixels; clips of one size that is smaller,
            but not below 28 px, keep it.
        num_frames: most frames of a training clip; longer ones are cut at random.
        remembered: split and frame format of an earlier training, as `as_json` has them; new ones are chosen without.
        progress: called with the number of clips decoded and of all.

    Raises:
        UsageError: no such folder; a pattern that is none, or captures nothing.
        DataError: in use: no classes or too few clips in one, clips that cannot be read, or that are gone.

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
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.root, self.group, self.seed = Path(root), group, seed
        self.short_side, self.num_frames, self.progress = short_side, num_frames, progress
        self._remembered = remembered or {}
        for name, value, least in (
            ("seed", seed, 0),
            ("short_side", short_side, MIN_PX),
            ("num_frames", num_frames, 1),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")
        if group is not None:
            _check_pattern(group)
        self._decoded: dict[Path, Tensor] = {}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Folder:
        """Return the folder that `as_json` described, with the split and the frame format of then."""
        check_types(described, _Described)
        names = ("group", "seed", "short_side", "num_frames")
        return cls(Path(described["root"]), **{n: described[n] for n in names if n in described}, remembered=described)

    def moved(self, root: Path) -> Folder:
        """Return the same clips, with their split, in another place.

        Raises:
            UsageError: no folder there.
        """
        names = ("group", "seed", "short_side", "num_frames")
        kept = {name: getattr(self, name) for name in names}
        return Folder(root, **kept, remembered=self._remembered, progress=self.progress)

    def as_json(self) -> dict[str, Any]:
        """Return what is asked and what was chosen: the groups that are held out, the classes, the frame format."""
        return {
            "kind": self.KIND,
            "root": str(self.root.resolve()),
            "group": self.group,
            "seed": self.seed,
            "short_side": self.short_side,
            "num_frames": self.num_frames,
            "frame_format": self.frame_format.as_json(),
            "classes": list(self.labels.names),
            "held_out": {split: sorted(groups) for split, groups in self._held_out.items()},
            "clips": {split: [self._name_of(file) for file in self._of_split(split)] for split in self._held_out},
        }

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for training to go on: all but where the folder lies."""
        described = {name: value for name, value in self.as_json().items() if name not in ("root", "clips")}
        described["split_seed"] = described.pop("seed")  # training has a seed of its own
        learned = [f"{self._name_of(file)} {file.digest}" for file in self._of_split("train")]
        return described | {"clips_sha256": hashlib.sha256(os.fsencode("\n".join(learned))).hexdigest()}

    @cached_property
    def labels(self) -> Labels:
        """The classes, by name."""
        if "classes" in self._remembered:
            return Labels(tuple(self._remembered["classes"]))
        return Labels(tuple(sorted({file.label for file in self.files})))

    @property
    def facts(self) -> dict[str, Any]:
        """What a model learns from, as columns of a result row."""
        return {"data": self.root.resolve().name, "split_seed": self.seed, "group": self.group}

    @cached_property
    def files(self) -> tuple[LabelledFile, ...]:
        """The clips in order of their names, duplicates once."""
        self._check_root()
        found: list[LabelledFile] = []
        seen: dict[str, LabelledFile] = {}
        for path in find_clips(self.root):
            parts = path.relative_to(self.root).parts
            if len(parts) < 2:
                raise DataError(f"{path} lies in no class folder; move it into a folder with its class's name")
            file = LabelledFile(path, shown(parts[0]), self._group_of(path), _digest(path))
            before = seen.setdefault(file.digest, file)
            if before is file:
                found.append(file)
            elif before.label == file.label:
                self.duplicates.append((path, before.path))
            else:
                raise DataError(f"{path} and {before.path} are the same clip in two classes; keep one of them")
        return tuple(found)

    @cached_property
    def duplicates(self) -> list[tuple[Path, Path]]:
        """Files that were left out, each with the one of equal content that is kept."""
        return []

    @cached_property
    def frame_format(self) -> FrameFormat:
        """What a model for these clips wants of a frame, chosen by the clips to learn from."""
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
        """Return the folder, which is measured as one."""
        return [self]

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> Folder:
        """Return the folder: its test part is what was held out.

        Raises:
            UsageError: fields of other clips.
        """
        if given:
            option = "--" + next(iter(given)).replace("_", "-")
            raise UsageError(f"{option} is no option of clips in a folder; this model learned from {self.root}")
        return self

    def clips(self, split: str) -> StoredClips:
        """Return the clips of a split, decoded.

        Raises:
            UsageError: an unknown split.
            DataError: a clip that cannot be read, or that is gone.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        files = self._of_split(split)
        number = {name: index for index, name in enumerate(self.labels.names)}
        frames = self._decode([file.path for file in files])
        targets = torch.tensor([number[file.label] for file in files])
        return StoredClips(frames, targets, self.labels, self.facts | {"split": split})

    def batches(self, size: int, seed: int) -> StoredBatches:
        """Return training batches of so many clips."""
        return StoredBatches(self.clips("train"), size, self.num_frames, seed)

    def _check_root(self) -> None:
        if self.root.is_dir():
            return
        came = "is no folder" if self.root.exists() else "is not there"
        if self._remembered:
            raise DataError(
                f"the model learned from clips in {self.root}, which {came}; say with --data where they lie now"
            )
        raise DataError(f"{self.root} {came}; a folder of clips is needed, with a folder in it for each class")

    def _described(self) -> dict[Path, video.Description]:
        """Look into every clip, those of the test too, so that what cannot be read is told before any work."""
        found, unreadable = {}, []
        for file in self.files:
            try:
                found[file.path] = video.describe(file.path)
            except DataError as error:
                unreadable.append(error)
        if unreadable:
            more = f"; and {len(unreadable) - 1} more clips cannot be read" if len(unreadable) > 1 else ""
            raise DataError(f"{unreadable[0]}, or take it out of {self.root}{more}")
        return found

    def summary(self) -> str:
        """Say in a line what was found."""
        counts = Counter(file.label for file in self.files)
        parts = ", ".join(f"{len(self._of_split(split))} {split}" for split in SPLITS)
        grouped = f" by {len({file.group for file in self.files})} groups" if self.group else ""
        num = len(self.duplicates)
        left_out = f"; {num} {'duplicates' if num > 1 else 'duplicate'} left out" if num else ""
        fewest, most = min(counts.values()), max(counts.values())
        sizes = f"{fewest} clips each" if fewest == most else f"{fewest} to {most} clips each"
        if others := sorted({p.suffix for p in _visible_files(self.root) if not video.is_named_as_clip(p)}):
            left_out += f"; files left out by their endings: {', '.join(map(repr, others[:5]))}"
        return f"{len(self.files)} clips of {len(counts)} classes ({sizes}), split{grouped}: {parts}{left_out}"

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
        return choose_held_out(self.files, self.seed)

    def _of_split(self, split: str) -> list[LabelledFile]:
        held_out = self._held_out
        known = {group for groups in held_out.values() for group in groups}
        if split == "train":
            files = [file for file in self.files if file.group not in known]
        else:
            files = [file for file in self.files if file.group in held_out[split]]
            listed = set(self._remembered.get("clips", {}).get(split, map(self._name_of, files)))
            # What came into a held-out group later is neither tested on nor learned from.
            files = [file for file in files if self._name_of(file) in listed]
            if missing := listed - set(map(self._name_of, files)):
                raise DataError(
                    f"{self.root} lacks {len(missing)} clips of the {split} part that this model's split names,"
                    f" such as {min(missing)!r}; give the folder that it was trained on"
                )
        if unknown := {file.label for file in files} - set(self.labels.names):
            raise DataError(f"{self.root} has a class {min(unknown)!r} that the model does not know")
        return files

    def _size(self, sizes: Sequence[Size]) -> Size:
        if len(set(sizes)) == 1 and MIN_PX <= min(sizes[0]) <= self.short_side and max(sizes[0]) <= MAX_PX:
            return sizes[0]
        wide = median(width / height for height, width in sizes)
        longer = min(round(self.short_side * max(wide, 1 / wide)), MAX_PX)
        return (self.short_side, longer) if wide >= 1 else (longer, self.short_side)

    def _decode(self, paths: Sequence[Path]) -> list[UInt8[Tensor, "time channels height width"]]:
        wanted = self.frame_format
        for number, path in enumerate(paths, 1):
            if path not in self._decoded:
                clip = video.read_clip(path, size=wanted.size, num_channels=wanted.channels, fps=wanted.fps)
                self._decoded[path] = clip.frames
            if self.progress is not None:
                self.progress(number, len(paths))
        return [self._decoded[path] for path in paths]


def find_clips(path: Path) -> list[Path]:
    """Return the file itself, or the clips in a folder and the folders below, in order of their names.

    Raises:
        DataError: nothing there, or a folder without clips.
    """
    if not path.exists():
        raise DataError(f"there is nothing at {path}; give a video, GIF or .npz file, or a folder of such")
    if not path.is_dir():
        return [path]
    clips = sorted(p for p in _visible_files(path) if video.is_named_as_clip(p))
    if not clips:
        raise DataError(f"{path} holds no clip; files that end in {', '.join(sorted(video.SUFFIXES))} are looked for")
    return clips


def _visible_files(root: Path) -> Iterator[Path]:
    """Give all files below a folder that are not hidden, through links to folders too, but no folder twice."""
    seen: set[Path] = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        place = Path(folder).resolve()
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if place in seen:
            inside.clear()
            continue
        seen.add(place)
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _check_pattern(pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression ({error}); an example: '_(\\d+)_'") from error
    if not compiled.groups:
        raise UsageError(f"{pattern!r} captures nothing; put the group's part in brackets, as in '_(\\d+)_'")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
