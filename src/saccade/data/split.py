"""The choice of the clips that are held out for validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from saccade.data.labelled import LabelledClip
from saccade.errors import DataError

SPLITS = ("train", "validation", "test")
HELD_OUT = 5
"""One in `HELD_OUT` groups is held out for test, and one in `HELD_OUT` of the rest for validation."""

_MAX_ORDERS = 100
_NUM_NAMED = 3

Groups = dict[str, frozenset[str]]
"""The groups of each split."""


def clips_of(
    split: str,
    clips: Sequence[LabelledClip],
    groups: Groups,
    *,
    hold_out: bool = True,
    listed: Mapping[str, Iterable[str]] | None = None,
) -> list[LabelledClip]:
    """Return the clips of a split.

    Clips that were added to a held-out group, or to a given test, after a training are used neither for test nor for
    training.

    Args:
        split: train, validation or test.
        clips: the clips.
        groups: the groups that are held out.
        hold_out: as for `held_out`.
        listed: the names of the clips of each held-out split; None for all of its groups.

    Raises:
        DataError: if listed clips are missing.
    """
    if split == "train":
        known = {group for some in groups.values() for group in some}
        own = (None, "train") if hold_out else (None, "train", "validation")
        return [clip for clip in clips if clip.group not in known and clip.entry.split in own]
    found = [clip for clip in clips if clip.group in groups[split]]
    if listed is None or split not in listed:
        return found
    wanted = set(listed[split])
    found = [clip for clip in found if clip.name in wanted]
    if missing := wanted - {clip.name for clip in found}:
        raise DataError(
            f"{len(missing)} clips of the {split} part of this model's split are missing, such as {min(missing)!r};"
            " give the folder or CSV file that the model was trained on"
        )
    return found


def held_out(clips: Sequence[LabelledClip], seed: int, *, hold_out: bool = True) -> Groups:
    """Return the groups that are held out for test and validation.

    Clips of a given test or validation are held out as they are given. A part that is not given is drawn from the
    other clips, so that every split contains every class.

    Args:
        clips: the clips.
        seed: the seed of what is drawn.
        hold_out: whether clips are held out; otherwise only a given test is, and a given validation is for training.

    Raises:
        DataError: if there are fewer than two classes, if a class has too few clips or groups to be in every split, or
            if no training clip of a class is left.
    """
    given = {split: frozenset(c.group for c in clips if c.entry.split == split) for split in ("test", "validation")}
    rest = [clip for clip in clips if clip.entry.split not in given]
    found: Groups = {"test": given["test"], "validation": frozenset()}
    if hold_out:
        found = given | _drawn(rest, [split for split, groups in given.items() if not groups], seed)
    learned = [clip for clip in clips if all(clip.group not in groups for groups in found.values())]
    classes, remain = ({name for clip in some for name in clip.classes} for some in (clips, learned))
    if len(classes) < 2:
        named = f"only one class, {next(iter(classes))!r}" if classes else "no class"
        raise DataError(f"there is {named}; clips of at least two classes are needed")
    if missing := sorted(classes - remain):
        raise DataError(
            f"no clip of the class {missing[0]!r} is left for training: its clips cannot be read, or are copies of"
            " clips that are held out; add clips, or leave the class out"
        )
    return found


def _drawn(clips: Sequence[LabelledClip], wanted: Sequence[str], seed: int) -> Groups:
    """Draw the groups of some splits: a fifth for the first, a fifth of the rest for the next."""
    of_class: dict[str, set[str]] = {}
    for clip in clips:
        for name in clip.classes:
            of_class.setdefault(name, set()).add(clip.group)
    if not wanted or len(of_class) < 2:
        return {}
    _check_enough(of_class, wanted)
    groups = {clip.group for clip in clips}
    if sum(map(len, of_class.values())) == len(groups):
        return _by_class(of_class, wanted, seed)
    return _across_classes(of_class, groups, wanted, seed)


def _check_enough(of_class: Mapping[str, set[str]], wanted: Sequence[str]) -> None:
    least = len(wanted) + 1
    rare = sorted((len(groups), name) for name, groups in of_class.items() if len(groups) < least)
    if not rare:
        return
    num, name = rare[0]
    came = f"the class {name!r} has {num} clip{'s' if num > 1 else ''}, or groups of clips"
    if rare[1:]:
        named = ", ".join(f"{name!r} ({num})" for num, name in rare[:_NUM_NAMED])
        came = (
            f"{len(rare)} classes have too few clips, or groups of clips: {named}{', ...' * (len(rare) > _NUM_NAMED)}"
        )
    *first, last = [split for split in ("training", "validation", "test") if split in ("training", *wanted)]
    raise DataError(
        f"{came}; at least {least} are needed, for {', '.join(first)} and {last}: add clips, or leave out"
        f" {'these classes' if rare[1:] else 'this class'}{'; two are enough with --folds 2' * (num > 1)}"
    )


def _numbers(num: int, wanted: Sequence[str]) -> dict[str, int]:
    """Return how many of some groups each wanted split gets; each gets one at least."""
    found, left = {}, num
    for split in wanted:
        found[split] = max(1, round(left / HELD_OUT))
        left -= found[split]
    return found


def _by_class(of_class: Mapping[str, set[str]], wanted: Sequence[str], seed: int) -> Groups:
    """Hold out a fifth of the groups of each class; no group may contain several classes."""
    found: dict[str, set[str]] = {split: set() for split in wanted}
    for number, name in enumerate(sorted(of_class)):
        order = _shuffled(of_class[name], seed, number)
        for split, num in _numbers(len(order), wanted).items():
            found[split].update(order[:num])
            order = order[num:]
    return {split: frozenset(groups) for split, groups in found.items()}


def _across_classes(of_class: Mapping[str, set[str]], groups: set[str], wanted: Sequence[str], seed: int) -> Groups:
    """Hold out a fifth of all groups, in the first of some random orders that puts every class into every split."""
    classes_of: dict[str, set[str]] = {group: set() for group in groups}
    for name, inside in of_class.items():
        for group in inside:
            classes_of[group].add(name)
    for attempt in range(_MAX_ORDERS):
        dealt = _dealt(_shuffled(groups, seed, attempt), classes_of, wanted)
        parts = [{name for group in part for name in classes_of[group]} for part in dealt.values()]
        if all(len(part) == len(of_class) for part in parts):
            return {split: frozenset(dealt[split]) for split in wanted}
    raise DataError(
        f"no split of the {len(groups)} groups has every class in each of {', '.join(('training', *wanted))}; group the"
        " clips differently, or leave out rare classes"
    )


def _dealt(order: Sequence[str], classes_of: Mapping[str, set[str]], wanted: Sequence[str]) -> dict[str, list[str]]:
    """Deal out groups, those of the rarest class first, each to the split that lacks most of this class.

    Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", 2011.
    """
    num = Counter(name for group in order for name in classes_of[group])
    lacking = {split: Counter[str]() for split in ("train", *wanted)}
    for name, count in (*num.items(), ("", len(order))):  # the empty name stands for all groups
        asked = _numbers(count, wanted)
        for split, some in (("train", count - sum(asked.values())), *asked.items()):
            lacking[split][name] = some
    dealt: dict[str, list[str]] = {split: [] for split in lacking}
    left = dict.fromkeys(order)
    for rarest in [*sorted(num, key=lambda name: (num[name], name)), ""]:
        for group in [group for group in left if rarest in classes_of[group] or not rarest]:
            split = max(lacking, key=lambda split: (lacking[split][rarest], lacking[split][""]))
            dealt[split].append(group)
            del left[group]
            lacking[split].subtract((*classes_of[group], ""))
    return dealt


def _shuffled(groups: Iterable[str], seed: int, number: int) -> list[str]:
    ordered = sorted(groups)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    return [ordered[index] for index in generator.permutation(len(ordered))]
