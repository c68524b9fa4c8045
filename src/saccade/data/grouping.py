"""Groups of clips, which are never split between training and test: parts of equal content are one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import DataError

if TYPE_CHECKING:  # a collection is read with the functions of this module
    from saccade.data.collection import Entry

RECORDED = r"_r([0-9-]+)_[0-9]+[.]mp4$"
"""The pattern that finds the session in the name of a file that `saccade record` wrote, for `--group`."""


def parts_together(
    entries: Sequence[Entry], contents: Sequence[Hashable], files: Sequence[str], names: Sequence[str]
) -> list[Entry]:
    """Return the entries with one group for the parts of equal content, where their groups are not given.

    If some parts of a content are given a group, its other parts belong to the same group. Parts that are given
    different groups keep them: a video may show two persons, one after the other. Equal clips, which are no parts, are
    left as they are.

    Args:
        entries: the clips.
        contents: for each clip, what is equal if the content of the file is.
        files: for each clip, the name of its file; a group of that name is not taken as given.
        names: the names of the clips, for messages.

    Raises:
        DataError: if parts of a content are given different groups, and others none.
    """
    found = list(entries)
    same: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, content in enumerate(contents):
        same[content].append(place)
    for places in same.values():
        if len({(entries[place].start_s, entries[place].end_s) for place in places}) == 1:
            continue
        own = {files[place] for place in places}
        left = [place for place in places if entries[place].group in (None, *own)]
        given = sorted({entries[place].group or "" for place in set(places).difference(left)})
        if left and given[1:]:
            raise DataError(
                f"the clip {names[left[0]]!r} has no group, and other parts of the same video belong to the groups"
                f" {given[0]!r} and {given[1]!r}; write the group of each part"
            )
        group = given[0] if given else min(own)
        for place in left:
            found[place] = replace(entries[place], group=group)
    return found


def check_not_torn(entries: Sequence[Entry], source: Path) -> None:
    """Raise DataError if a group is in two given splits."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.group is not None and entry.split is not None:
            splits[entry.group].add(entry.split)
    if torn := [group for group, names in splits.items() if len(names) > 1]:
        names = " and ".join(sorted(splits[torn[0]]))
        raise DataError(
            f"the group {torn[0]!r} of {source} is in the splits {names}; move all its clips into one"
            f" ({len(torn)} of {len(splits)} groups are split)"
        )
