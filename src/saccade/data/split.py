"""The choice of the clips that are held out for validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.errors import DataError

SPLITS = ("train", "validation", "test")
HELD_OUT = 5
"""One in `HELD_OUT` groups is held out for test, and one in `HELD_OUT` of the rest for validation."""

_MAX_ORDERS = 1000


@dataclass(frozen=True)
class LabelledFile:
    """The file of a clip, with its class, its group, which is never split, and the checksum of its content."""

    path: Path
    label: str
    group: str
    digest: str


def choose_held_out(files: Sequence[LabelledFile], seed: int) -> dict[str, frozenset[str]]:
    """Choose the groups for test and validation, so that every split contains every class.

    Raises:
        DataError: if there are fewer than two classes, or a class cannot be in all three splits.
    """
    by_label: dict[str, set[str]] = {}
    for file in files:
        by_label.setdefault(file.label, set()).add(file.group)
    if len(by_label) < 2:
        raise DataError(
            f"there is only one class, {next(iter(by_label))!r}; folders of at least two classes are needed"
        )
    label, groups = min(by_label.items(), key=lambda item: len(item[1]))
    if len(groups) < len(SPLITS):
        raise DataError(
            f"the class {label!r} has {len(groups)} clips, or groups of clips; at least {len(SPLITS)} are needed, for"
            " training, validation and test"
        )
    if sum(map(len, by_label.values())) == len({file.group for file in files}):
        return _by_class(by_label, seed)
    return _across_classes(files, seed)


def _by_class(by_label: Mapping[str, set[str]], seed: int) -> dict[str, frozenset[str]]:
    """Hold out a fifth of the groups of each class; no group may contain several classes."""
    test: set[str] = set()
    validation: set[str] = set()
    for number, label in enumerate(sorted(by_label)):
        order = _shuffled(by_label[label], seed, number)
        num_test = max(1, round(len(order) / HELD_OUT))
        num_validation = max(1, round((len(order) - num_test) / HELD_OUT))
        test.update(order[:num_test])
        validation.update(order[num_test : num_test + num_validation])
    return {"test": frozenset(test), "validation": frozenset(validation)}


def _across_classes(files: Sequence[LabelledFile], seed: int) -> dict[str, frozenset[str]]:
    """Hold out a fifth of all groups, in the first of many random orders that puts every class into every split."""
    labels = {file.label for file in files}
    groups = {file.group for file in files}
    num_test = max(1, round(len(groups) / HELD_OUT))
    num_validation = max(1, round((len(groups) - num_test) / HELD_OUT))
    for attempt in range(_MAX_ORDERS):
        order = _shuffled(groups, seed, attempt)
        test, validation = set(order[:num_test]), set(order[num_test : num_test + num_validation])
        parts = {"test": test, "validation": validation, "train": groups - test - validation}
        if all({file.label for file in files if file.group in part} == labels for part in parts.values()):
            return {"test": frozenset(test), "validation": frozenset(validation)}
    raise DataError(
        f"no split of the {len(groups)} groups has every class in training, validation and test; group the clips"
        " differently, or leave out rare classes"
    )


def _shuffled(groups: Iterable[str], seed: int, number: int) -> list[str]:
    ordered = sorted(groups)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    return [ordered[index] for index in generator.permutation(len(ordered))]
