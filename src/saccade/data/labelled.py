"""The clips of a collection with their names and contents, each content once."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from saccade.data import members
from saccade.data.collection import CLASS_SEPARATOR, Collection, Entry
from saccade.data.grouping import check_not_torn, parts_together
from saccade.errors import DataError
from saccade.labels import Labels, Targets

_NONE = "none"
# Of equal clips in several splits, that of the first split is kept.
_KEPT_FIRST = ("test", "validation", "train")


@dataclass(frozen=True)
class LabelledClip:
    """A clip of a collection.

    Args:
        entry: the file, its part and its classes.
        name: its name in the collection.
        group: its group, which is never split; the name if it is a group by itself.
        digest: SHA-256 of the file, as hexadecimal digits.
    """

    entry: Entry
    name: str
    group: str
    digest: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.entry.path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes."""
        return self.entry.classes

    @property
    def label(self) -> str:
        """The names of its classes, joined as in a CSV file."""
        return CLASS_SEPARATOR.join(self.classes)


Duplicates = Sequence[tuple[LabelledClip, LabelledClip]]
"""Pairs of an omitted clip and the kept clip that it equals."""


def labelled(collection: Collection, without: Container[str] = ()) -> tuple[list[LabelledClip], dict[str, str]]:
    """Return the clips of a collection, in its order, and the files that cannot be opened, by name with the reason.

    Parts of a file, and parts of copies of it, are one group, unless different groups are given.

    Args:
        collection: the clips.
        without: the names of clips that are left out.

    Raises:
        DataError: if some parts of a content are given different groups and others none, or parts of copies are in
            different given splits.
    """
    found: list[LabelledClip] = []
    failed: dict[str, str] = {}
    digests: dict[Path, str] = {}
    for entry in collection.entries:
        name = collection.name_of_entry(entry)
        if name in without:
            continue
        try:
            if entry.path not in digests:  # of which there may be many parts
                digests[entry.path] = members.digest_of(entry.path)
        except OSError as error:
            failed[name] = f"{entry.path} cannot be opened: {error.strerror}"
            continue
        found.append(LabelledClip(entry, name, entry.group or name, digests[entry.path]))
    return copies_together(found, collection), failed


def copies_together(clips: Sequence[LabelledClip], collection: Collection) -> list[LabelledClip]:
    """Return the clips with one group for the parts of a file and of its copies.

    Raises:
        DataError: as for `labelled`.
    """
    contents, files_of = [clip.digest for clip in clips], [collection.name_of(clip.path) for clip in clips]
    entries = parts_together([clip.entry for clip in clips], contents, files_of, [clip.name for clip in clips])
    check_not_torn(entries, collection.source)
    return [
        replace(clip, entry=entry, group=entry.group or clip.name) for clip, entry in zip(clips, entries, strict=True)
    ]


def without_duplicates(
    clips: Sequence[LabelledClip], used: Container[str] = ()
) -> tuple[tuple[LabelledClip, ...], Duplicates]:
    """Return the clips without exact duplicates, and the pairs of an omitted clip and the kept clip that it equals.

    Parts of a file are equal if the times are. If equal clips are in several given splits, the one in the test is kept,
    or else the one in validation: a test on clips that were learned would measure memory, and a split that is given
    for a comparison with others must keep its test clips.

    Args:
        clips: the clips.
        used: the names of clips that a test has used before; a copy that was added later does not take their place.

    Raises:
        DataError: if equal clips have different classes.
    """
    kept: dict[tuple[object, ...], LabelledClip] = {}
    omitted: dict[LabelledClip, LabelledClip] = {}
    for clip in sorted(clips, key=lambda c: (c.name not in used, _KEPT_FIRST.index(c.entry.split or "train"))):
        before = kept.setdefault((clip.digest, clip.entry.start_s, clip.entry.end_s), clip)
        if before is clip:
            continue
        if before.classes != clip.classes:
            raise DataError(f"{clip.path} and {before.path} are the same clip in two classes; keep one of them")
        omitted[clip] = before
    return tuple(clip for clip in clips if clip not in omitted), [(c, omitted[c]) for c in clips if c in omitted]


def labels_of(clips: Sequence[LabelledClip], collection: Collection, none: str | None = None) -> Labels:
    """Return the classes of clips, in order of their names.

    Args:
        clips: the clips.
        collection: the collection that they belong to.
        none: the class that means that nothing happens, see `Labels`; None for `none`, if there is such a class.

    Raises:
        DataError: if there is no class `none` among classes that exclude each other, though one is named.
    """
    names = tuple(sorted({name for clip in clips for name in clip.classes}))
    if none is None:
        return Labels(names, collection.exclusive, none=_NONE if _NONE in names and collection.exclusive else None)
    if not collection.exclusive:
        raise DataError(
            f"{collection.source} has clips of several classes, so that no class {none!r} excludes the others; a clip"
            " without a class shows that nothing happens"
        )
    if none not in names:
        raise DataError(f"{collection.source} has no class {none!r}; it has {', '.join(map(repr, names))}")
    return Labels(names, none=none)


def targets_of(clips: Sequence[LabelledClip], labels: Labels) -> Targets:
    """Return the targets of clips, as `labels` expects them.

    Raises:
        DataError: if a clip has a class that is none of the labels, or not exactly one class where one is expected.
    """
    number = {name: index for index, name in enumerate(labels.names)}
    if unknown := {name for clip in clips for name in clip.classes} - number.keys():
        raise DataError(
            f"the clips have a class {min(unknown)!r} that the model does not know: give clips of its classes, or train"
            " a new model"
        )
    if not labels.exclusive:
        targets = torch.zeros(len(clips), len(number))
        for row, clip in zip(targets, clips, strict=True):
            row[[number[name] for name in clip.classes]] = 1
        return targets
    if other := [clip for clip in clips if len(clip.classes) != 1]:
        raise DataError(
            f"{other[0].name} has the classes {other[0].label!r}; the model names exactly one class of each clip: give"
            " clips of one class, or train again"
        )
    return torch.tensor([number[clip.classes[0]] for clip in clips])
