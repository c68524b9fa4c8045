"""The labelled clips of a collection, a folder or a CSV file, split for training and test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.clips import FrameFormat
from saccade.data import archives, collection, video
from saccade.data.collection import Collection
from saccade.data.finding import check_pattern
from saccade.data.folder_summary import summary
from saccade.data.frame_choice import MAX_DESCRIBED, Descriptions, FrameChoice, sample
from saccade.data.labelled import Duplicates, LabelledClip, labelled, labels_of, targets_of, without_duplicates
from saccade.data.lazy_frames import LazyFrames, RecentFrames
from saccade.data.remembered import arguments_of
from saccade.data.scan import Record, read_cached, scan
from saccade.data.split import SPLITS, Groups, clips_of, held_out
from saccade.data.stored import StoredBatches, StoredClips
from saccade.errors import DataError, UsageError, unknown_name
from saccade.labels import Labels

# What depends on the clips that are left out.
_FOUND = ("_found", "labels", "_held_out", "_recent")


class Folder:
    """Labelled clips of a folder or a CSV file, split into training, validation and test clips.

    What the folder or the file means is told at `collection.read`. Clips may have any length, size and format, in grey
    or colour. Of exact duplicates, one clip is kept: in a given test or validation rather than in training, so that
    nothing is tested that was learned. Splits that are given are used as they are. What is not given is drawn: one
    fifth of the groups is held out for test, and one fifth of the rest for validation.

    Clips are decoded when they are needed, at the size and frame rate of the model. Frames are kept in a cache on disk,
    and those that were used last in memory, up to 1 GiB: a collection may have any size.

    Args:
        root: the folder, or the CSV file.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group, which is never split. None: the groups of the CSV
            file; without them, each clip is a group, and so are all parts of a file and of its copies.
        seed: the seed of what is drawn of the split.
        frame_choice: how the size of frames is chosen.
        num_frames: the largest number of frames of a training clip; longer clips are cut at random.
        hold_out: whether clips are held out for validation and test. Otherwise all clips are for training, apart from
            a test that is given.
        none: the class that means that nothing happens, see `Labels`; None for `none`, if there is such a class.
        remembered: the split and frame format of an earlier training, as returned by `as_json`; None chooses new ones.
        progress: a function that `scanned` calls with the number of clips read and the total.

    Raises:
        UsageError: if a number is too small, or `group` is not a regular expression with a group.
        DataError: on first use, if the collection cannot be read, a class has too few clips, or a clip is missing or
            cannot be read.

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
        frame_choice: FrameChoice | None = None,
        num_frames: int = 32,
        hold_out: bool = True,
        none: str | None = None,
        remembered: Mapping[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.root, self.group, self.seed, self.hold_out = Path(root), group, seed, hold_out
        self.frame_choice, self.num_frames, self.progress = frame_choice or FrameChoice(), num_frames, progress
        self.none, self._remembered = none, remembered or {}
        for name, value, least in (("seed", seed, 0), ("num_frames", num_frames, 1)):
            if value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")
        if group is not None:
            check_pattern(group)
        self._descriptions, self._records = Descriptions(), list[Record]()
        self._unread = dict.fromkeys(self._remembered.get("left_out", ()), "was left out of the training")

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Folder:
        """Create the folder from the result of `as_json`, with the same split and frame format."""
        return cls(Path(described["root"]), **arguments_of(described))

    def moved(self, root: Path) -> Folder:
        """Return the same clips and split in another folder, or as another CSV file names them.

        Raises:
            DataError: on first use, if the collection is missing or lacks clips of the split.
        """
        names = ("group", "seed", "frame_choice", "num_frames", "hold_out", "none")
        kept = {name: getattr(self, name) for name in names}
        return Folder(root, **kept, remembered=self._remembered, progress=self.progress)

    def as_json(self) -> dict[str, Any]:
        """Return the arguments and the choices made: held-out groups, classes and frame format."""
        described = {
            "kind": self.KIND,
            "root": str(self.root.resolve()),
            "group": self.group,
            "seed": self.seed,
            "short_side": self.frame_choice.short_side,
            "num_frames": self.num_frames,
            "hold_out": self.hold_out,
            "frame_format": self.frame_format.as_json(),
            "classes": list(self.labels.names),
            "held_out": {split: sorted(groups) for split, groups in self._held_out.items()},
            "clips": {split: [clip.name for clip in self.of_split(split)] for split in self._held_out},
        }
        # Files that are damaged must not count as new ones when training continues.
        left_out = {"left_out": sorted(self.left_out)} if self.left_out else {}
        none = {} if self.labels.none is None else {"none": self.labels.none}
        return described | ({} if self.labels.exclusive else {"exclusive": False}) | none | left_out

    def identity(self) -> dict[str, Any]:
        """Return the facts that must not change when training continues; the location of the clips may change."""
        leave = ("root", "clips", "left_out")
        described = {name: value for name, value in self.as_json().items() if name not in leave}
        described["split_seed"] = described.pop("seed")  # training has a seed of its own
        learned = [f"{clip.name} {clip.digest}" for clip in self.of_split("train")]
        return described | {"clips_sha256": hashlib.sha256(os.fsencode("\n".join(learned))).hexdigest()}

    @property
    def facts(self) -> dict[str, Any]:
        """A description of the clips, as columns of a result row."""
        return {"data": self.root.resolve().name, "split_seed": self.seed, "group": self.group}

    @cached_property
    def collection(self) -> Collection:
        """What the folder or the CSV file holds."""
        if self._remembered and not (self.root.exists() or archives.are_named_by(self.root)):
            raise DataError(
                f"the model learned from clips in {self.root}, which does not exist; name their current folder or CSV"
                " file with --data"
            )
        return collection.read(self.root, group=self.group)

    @cached_property
    def _found(self) -> tuple[tuple[LabelledClip, ...], Duplicates, dict[str, str]]:
        found, failed = labelled(self.collection, without=self._unread)
        used = {name for names in self._remembered.get("clips", {}).values() for name in names}
        return *without_duplicates(found, used), failed

    @property
    def files(self) -> tuple[LabelledClip, ...]:
        """The clips in the order of the collection, without duplicates."""
        return self._found[0]

    @property
    def duplicates(self) -> Duplicates:
        """Pairs of an omitted clip and the kept clip with the same content."""
        return self._found[1]

    @property
    def left_out(self) -> dict[str, str]:
        """The names of the clips that cannot be read, each with the reason."""
        missing = {self.collection.name_of(path): f"{path} {why}" for path, why in self.collection.unreadable}
        return missing | self._found[2] | self._unread

    @cached_property
    def labels(self) -> Labels:
        """The classes, in order of their names."""
        if "classes" in self._remembered:
            remembered = self._remembered
            return Labels(tuple(remembered["classes"]), remembered.get("exclusive", True), none=remembered.get("none"))
        return labels_of(self.files, self.collection, self.none)

    @cached_property
    def frame_format(self) -> FrameFormat:
        """The frames that a model for these clips expects, chosen from the training clips, or from 500 of them."""
        if "frame_format" in self._remembered:
            return FrameFormat.from_json(self._remembered["frame_format"])
        described = self._sample
        if failed := list(self._descriptions.failed(described).values()):
            more = f"; and {len(failed) - 1} more clips cannot be read" if len(failed) > 1 else ""
            raise DataError(f"{failed[0]}, or take it out of {self.root}{more}")
        learned = {clip.name for clip in self.of_split("train")}
        return self.frame_choice.of(self._descriptions.of([clip for clip in described if clip.name in learned]))

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
        """Return the clips of a split; their frames are read when they are needed.

        Raises:
            UsageError: if the split is unknown, or has no clips.
            DataError: if a clip is missing or cannot be read.
        """
        return self.together((split,))

    def together(self, splits: Sequence[str]) -> StoredClips:
        """Return the clips of several splits as one, in the given order; otherwise as `clips`."""
        found: list[LabelledClip] = []
        for split in splits:
            if split not in SPLITS:
                raise unknown_name("split", split, SPLITS)
            inside = self.of_split(split)
            if not inside:
                raise UsageError(
                    f"no clip of {self.root} was held out for {split}: the model learned from all of them; the figures"
                    " of its cross-validation are in run.json and tested.csv of its run; for a test, train without"
                    " --folds, or give a CSV file with a column split"
                )
            found += inside
        frames = LazyFrames(found, self._recent)
        facts = self.facts | {"split": "+".join(splits)}
        names, groups = tuple(clip.name for clip in found), tuple(clip.group for clip in found)
        has_groups = any(clip.entry.group is not None for clip in self.files)
        targets = targets_of(found, self.labels)
        return StoredClips(frames, targets, self.labels, facts, names=names, groups=groups if has_groups else None)

    def of_split(self, split: str) -> list[LabelledClip]:
        """Return the clips of a split, with their files and classes; none if none was held out for it."""
        listed = self._remembered.get("clips")
        return clips_of(split, self.files, self._held_out, hold_out=self.hold_out, listed=listed)

    def batches(self, size: int, seed: int) -> StoredBatches:
        """Return training batches of `size` clips."""
        return StoredBatches(self.clips("train"), size, self.num_frames, seed)

    def scanned(self, workers: int | None = None) -> list[Record]:
        """Decode all clips into the frame cache, once and in parallel processes; return what was found in each.

        Clips that cannot be read are left out: `left_out` holds their names and the reasons.

        Args:
            workers: the number of processes; None takes the number of processors.

        Raises:
            DataError: if no clip can be read, or the rest cannot be split.
        """
        if self._records:
            return self._records
        while failed := self._descriptions.failed(self._sample):
            self._leave_out(failed)
        clips = {clip.entry: clip for clip in self.files}
        found = replace(self.collection, entries=tuple(clips))
        records = scan(found, read=self._read, workers=workers, progress=self.progress)
        if failed := {clips[record.entry].name: record.error for record in records if record.error is not None}:
            self._leave_out(failed)
        self._records = [record for record in records if record.error is None]
        return self._records

    def summary(self) -> str:
        """Return a line that sums the clips up, and a line for each doubt."""
        sizes = {split: len(self.of_split(split)) for split in SPLITS}
        return summary(self.collection, self.files, self.duplicates, sizes, hold_out=self.hold_out)

    @property
    def _read(self) -> partial[video.Clip]:
        wanted = self.frame_format
        return partial(read_cached, size=wanted.size, num_channels=wanted.channels, fps=wanted.fps)

    @cached_property
    def _recent(self) -> RecentFrames[LabelledClip]:
        read = self._read

        def frames(clip: LabelledClip) -> Tensor:
            return read(clip.entry, digest=clip.digest).frames

        return RecentFrames(frames)

    @property
    def _sample(self) -> Sequence[LabelledClip]:
        """The clips that are described, also those of the test: some training clips, if there are many."""
        return self.files if len(self.files) <= MAX_DESCRIBED else sample(self.of_split("train"), self.seed)

    def _leave_out(self, failed: Mapping[str, str]) -> None:
        self._unread |= failed
        for name in _FOUND:
            self.__dict__.pop(name, None)
        if not self.files:
            raise DataError(f"no clip in {self.root} can be read; the first: {next(iter(failed.values()))}")

    @cached_property
    def _held_out(self) -> Groups:
        if "held_out" in self._remembered:
            return {split: frozenset(groups) for split, groups in self._remembered["held_out"].items()}
        return held_out(self.files, self.seed, hold_out=self.hold_out)
