"""What the classes, splits and groups of a collection must be, so that a model can learn from it and be tested."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from saccade.data.grouping import check_not_torn
from saccade.errors import DataError

if TYPE_CHECKING:  # a collection is read with the functions of this module
    from saccade.data.collection import Collection

_MAX_NAMED = 8
# What people call splits, and how near to one of them a misspelt name is: that of "tets" to "test".
_CALLED_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "eval", "evaluation", "test", "testing")
_NEAR = 0.75


def check_classes(found: Collection) -> None:
    """Raise DataError if there are fewer than two classes, or two of them differ only in case or blanks."""
    if len(found.classes) < 2:
        named = f"only one class, {found.classes[0]!r}" if found.classes else "no class"
        also = "; left out: {} {}".format(*found.unreadable[0]) if found.unreadable else ""
        raise DataError(f"{found.source} has {named}; clips of at least two classes are needed{also}")
    alike: dict[str, str] = {}
    for name in found.classes:
        # Systems also differ in how they write letters with accents.
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if (other := alike.setdefault(key, name)) != name:
            raise DataError(
                f"{found.source} has the classes {other!r} and {name!r}, which differ only in case or blanks;"
                " give both the same name"
            )


def check_splits(found: Collection) -> None:
    """Raise DataError if a given split lacks a class, none is for training, or a group is in two splits."""
    if not found.splits:
        return
    if "train" not in found.splits:
        raise DataError(f"{found.source} has no clip of the split 'train', only of {', '.join(found.splits)}")
    for split in found.splits:
        inside = {name for entry in found.entries if entry.split == split for name in entry.classes}
        if missing := [name for name in found.classes if name not in inside]:
            what, it = ("class", "it") if len(missing) == 1 else ("classes", "each")
            raise DataError(
                f"the split {split!r} of {found.source} has no clip of the {what} {_named(missing)};"
                f" move clips of {it} there, or leave the {what} out"
            )
    check_not_torn(found.entries, found.source)


def _named(names: Sequence[str]) -> str:
    """Return names in quotes as an English list; of many, the first."""
    few = [repr(name) for name in names[:_MAX_NAMED]]
    if len(names) > _MAX_NAMED:
        few.append(f"{len(names) - _MAX_NAMED} more")
    return few[0] if len(few) == 1 else f"{', '.join(few[:-1])} and {few[-1]}"


def rare_classes(found: Collection) -> Iterable[str]:
    """Yield a line about classes with a single clip: none is left to test what was learned."""
    num = Counter(name for entry in found.entries for name in entry.classes)
    if alone := sorted(name for name, clips in num.items() if clips == 1):
        named = ", ".join(map(repr, alone[:3])) + (", ..." if alone[3:] else "")
        which = "1 class has a single clip" if len(alone) == 1 else f"{len(alone)} classes have a single clip each"
        yield f"{which}: {named}; a class needs at least 3, to learn from, to validate and to test"


def like_splits(found: Collection) -> Iterable[str]:
    """Yield a line if all folders that count as classes are called almost as splits are, and hold folders."""
    if found.splits or not found.source.is_dir():
        return
    hold_folders = all(len(entry.path.relative_to(found.source).parts) > 2 for entry in found.entries)
    if hold_folders and all(get_close_matches(n.casefold(), _CALLED_SPLITS, 1, _NEAR) for n in found.classes):
        yield (
            f"the folders {_named(found.classes)} count as classes, and hold folders themselves: if they are splits,"
            " name them train, validation and test"
        )
