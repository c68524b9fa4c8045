"""A few lines that say what a training will learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from saccade.data.collection import Collection
from saccade.data.labelled import Duplicates, LabelledClip
from saccade.data.split import SPLITS

_MAX_ENDINGS = 5


def summary(
    found: Collection,
    clips: Sequence[LabelledClip],
    duplicates: Duplicates,
    sizes: Mapping[str, int],
    *,
    hold_out: bool,
) -> str:
    """Return a line that sums up some clips, and a line for each doubt and for what was done about the split.

    Args:
        found: the collection.
        clips: its clips without duplicates.
        duplicates: pairs of an omitted clip and the kept clip that it equals.
        sizes: the number of clips in each split.
        hold_out: whether clips are held out for validation and test.
    """
    counts = Counter(name for clip in clips for name in clip.classes)
    fewest, most = min(counts.values()), max(counts.values())
    each = f"{fewest} clip{'s' * (most > 1)} each" if fewest == most else f"{fewest} to {most} clips each"
    classes = f"{len(counts)} classes{'' if found.exclusive else ' that may be present together'} ({each})"
    num_groups = len({clip.group for clip in clips}) if any(clip.entry.group is not None for clip in clips) else 0
    parts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS)
    if not hold_out:
        division = f" in {num_groups} groups" if num_groups else ""
    elif set(SPLITS) <= set(found.splits):
        division = f", split as given: {parts}"
    else:
        division = f", split{f' by {num_groups} groups' if num_groups else ''}: {parts}"
    num = len(duplicates)
    left_out = f"; {num} {'duplicates' if num > 1 else 'duplicate'} left out" if num else ""
    if others := sorted({path.suffix for path, _ in set(found.left_out) - set(found.unreadable)}):
        left_out += f"; files left out by their endings: {', '.join(map(repr, others[:_MAX_ENDINGS]))}"
    return "\n".join(
        (f"{len(clips)} clips of {classes}{division}{left_out}", *_notes(found, duplicates, sizes, hold_out))
    )


def _notes(found: Collection, duplicates: Duplicates, sizes: Mapping[str, int], hold_out: bool) -> Iterator[str]:
    yield from (f"warning: {problem}" for problem in found.problems)
    if across := [(one, kept) for one, kept in duplicates if one.entry.split != kept.entry.split]:
        (first, kept) = across[0]
        what = "1 clip is a copy" if len(across) == 1 else f"{len(across)} clips are copies"
        yield (
            f"warning: {what} of clips in another split, and left out so that nothing is tested that was learned,"
            f" such as {first.name!r} of {kept.name!r}"
        )
    if hold_out and found.splits:
        for split in set(SPLITS) - set(found.splits):
            yield f"no clip is given for {split}: a fifth of the training groups is held out for it"
    if not hold_out and sizes["test"]:
        yield f"the given test has {sizes['test']} clips: they are in no fold, and never trained on"
