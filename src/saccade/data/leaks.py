"""Whether the metadata of clips, such as size and rate, gives their classes away."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from saccade.data.scan import Record
from saccade.intervals import wilson_interval

_NUM_FOLDS = 5
_MIN_CLIPS = 10
_MAX_CLIPS = 5000  # chosen at random from more; the interval is then 3 points wide at most
_MAX_LEAVES = 256


@dataclass(frozen=True)
class Leak:
    """How well a classifier that sees only metadata does on clips of groups that it has not seen.

    Args:
        accuracy: the fraction of clips that it classifies correctly.
        low: the lower end of the 95 % Wilson interval of the accuracy.
        high: the upper end.
        largest_share: the fraction of clips of the largest class, or of the most frequent set of classes, which is
            right without looking.
        num_clips: the number of clips.
        fields: the accuracy with each field alone, the largest first.
        exclusive: whether each clip has exactly one class; else what is told is the set.
    """

    accuracy: float
    low: float
    high: float
    largest_share: float
    num_clips: int
    fields: tuple[tuple[str, float], ...]
    exclusive: bool = True

    @property
    def most_frequent(self) -> str:
        """What `largest_share` is the share of, in words."""
        return "largest class" if self.exclusive else "most frequent set of classes"

    @property
    def found(self) -> bool:
        """Whether the metadata tells more than the largest class does."""
        return self.low > self.largest_share


def metadata_features(records: Sequence[Record]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the names of the fields, and a row of numbers for each record.

    *Conventions:* NaN where a property is unknown; codecs are numbered in order of their names.
    """
    codecs = {name: number for number, name in enumerate(sorted({record.codec or "" for record in records}))}
    columns: dict[str, list[float | None]] = {
        "height": [record.size[0] if record.size else None for record in records],
        "width": [record.size[1] if record.size else None for record in records],
        "frame rate": [record.fps for record in records],
        "duration": [record.duration_s for record in records],
        "number of frames": [record.num_frames for record in records],
        "codec": [codecs[record.codec or ""] for record in records],
        "bit rate": [record.bit_rate_bps for record in records],
        "file size": [record.num_bytes for record in records],
    }
    return tuple(columns), np.array(list(columns.values()), dtype=np.float64).T


def check_leak(records: Sequence[Record], seed: int = 0) -> Leak | None:
    """Return how well the metadata of clips predicts their classes, by cross-validation in which no group is split.

    The classifier is a forest of extremely randomized trees. Clips that could not be read do not count, nor do classes
    in a single group. A set of classes that are present together is one class.

    Args:
        records: the clips.
        seed: the seed of the folds and the forest.

    Source: Geurts, Ernst and Wehenkel, "Extremely randomized trees", 2006.

    Returns:
        The result; None if fewer than ten clips, or fewer than two classes, are left.
    """
    chosen = _chosen(records, seed)
    kinds = np.array([" ".join(map(repr, record.entry.classes)) for record in chosen])
    if len(chosen) < _MIN_CLIPS or len(set(kinds)) < 2:
        return None
    groups = np.unique([_group(record) for record in chosen], return_inverse=True)[1]
    fields, features = metadata_features(chosen)
    features = np.nan_to_num(features, nan=-1.0)  # no property is negative
    folds = _folds(kinds, groups, seed)

    def num_right(model: Any, columns: slice | list[int]) -> int:
        return int((cross_val_predict(model, features[:, columns], kinds, cv=folds) == kinds).sum())

    forest = ExtraTreesClassifier(50, min_samples_leaf=2, max_leaf_nodes=_MAX_LEAVES, random_state=seed)
    tree = DecisionTreeClassifier(min_samples_leaf=2, max_leaf_nodes=_MAX_LEAVES // 8, random_state=seed)
    right, num = num_right(forest, slice(None)), len(chosen)
    alone = {name: num_right(tree, [column]) / num for column, name in enumerate(fields)}
    ordered = tuple(sorted(alone.items(), key=lambda item: -item[1]))
    exclusive = all(len(record.entry.classes) == 1 for record in records)
    largest = max(Counter(kinds.tolist()).values()) / num
    return Leak(right / num, *wilson_interval(right, num), largest, num, ordered, exclusive)


def _folds(kinds: NDArray[np.str_], groups: NDArray[np.intp], seed: int) -> list[tuple[Any, Any]]:
    largest = max(Counter(kinds.tolist()).values())  # it must reach every fold
    num_folds = min(_NUM_FOLDS, len(set(groups)), largest)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes with fewer clips than folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(splitter.split(kinds, kinds, groups))


def _chosen(records: Sequence[Record], seed: int) -> list[Record]:
    readable = [record for record in records if record.error is None]
    if len(readable) > _MAX_CLIPS:
        places = np.random.default_rng(seed).choice(len(readable), _MAX_CLIPS, replace=False)
        readable = [readable[place] for place in sorted(places)]
    groups: dict[tuple[str, ...], set[str]] = {}
    for record in readable:
        groups.setdefault(record.entry.classes, set()).add(_group(record))
    return [record for record in readable if len(groups[record.entry.classes]) > 1]


def _group(record: Record) -> str:
    """Return the group of a clip; equal files are one group."""
    entry = record.entry
    return f"{record.digest} {entry.start_s} {entry.end_s}" if entry.group is None else f"group {entry.group}"
