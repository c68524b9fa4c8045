"""Five simple classifiers, each tested on the same clips as a model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from saccade.baselines.classifiers import Candidate, forest, logistic, out_of_fold, ridge
from saccade.baselines.features import mean_frame, motion, shrunk
from saccade.data.folds import Fold
from saccade.errors import UsageError
from saccade.intervals import Difference, bootstrap_interval, paired_difference


@dataclass(frozen=True, eq=False)
class Rung:
    """The predictions of a classifier for clips that it was not fitted to, and its accuracy over all of them.

    Args:
        name: what the classifier is.
        accuracy: the fraction of clips that it classifies correctly; of label sets, those that are entirely right.
        low: the lower end of the 95 % bootstrap interval over groups.
        high: the upper end.
        predictions: the class index of each tested clip, or the presence of each class as 0 or 1.
        correct: whether each prediction is right.
        groups: the group of each tested clip; None: each clip is a group.
    """

    name: str
    accuracy: float
    low: float
    high: float
    predictions: NDArray[Any]
    correct: NDArray[np.bool_]
    groups: Sequence[Hashable] | None = None


def judged(name: str, predictions: ArrayLike, targets: ArrayLike, groups: Sequence[Hashable] | None = None) -> Rung:
    """Return predictions with their accuracy and its interval, for example those of a model beside the ladder.

    Args:
        name: what the classifier is.
        predictions: the class index of each clip, or the presence of each class as 0 or 1.
        targets: the truth in the same form.
        groups: the group of each clip; None: each clip is a group.

    Raises:
        UsageError: if predictions and targets have different shapes.

    >>> judged("coin", [0, 1, 0, 1], [0, 0, 0, 1]).accuracy
    0.75
    """
    said, truth = np.asarray(predictions), np.asarray(targets)
    if said.shape != truth.shape:
        raise UsageError(f"predictions of {name} have shape {said.shape}, targets {truth.shape}; both must agree")
    correct = (said == truth).reshape(len(truth), -1).all(1)
    return Rung(name, float(correct.mean()), *bootstrap_interval(correct, groups), said, correct, groups)


def difference(a: Rung, b: Rung) -> Difference:
    """Return by how much A is more accurate than B on the same clips, with a 95 % bootstrap interval over groups.

    Raises:
        UsageError: if the numbers of clips differ.
    """
    if len(a.correct) != len(b.correct):
        raise UsageError(f"{a.name} has {len(a.correct)} clips, {b.name} {len(b.correct)}; test both on the same clips")
    return paired_difference(a.correct, b.correct, a.groups)


def ladder(
    frames: Iterable[UInt8[Tensor, "time channels height width"]],
    targets: ArrayLike,
    groups: Sequence[Hashable] | None,
    folds: Sequence[Fold],
    *,
    metadata: ArrayLike | None = None,
    pretrained: ArrayLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Rung]:
    """Return simple classifiers of clips, tested on the test parts of the folds of a model.

    In order: the largest class, or the most frequent label set; metadata alone; ridge regression on the mean frame;
    ridge regression on motion energy and gradients; logistic regression on pretrained features. Everything
    is fitted and chosen in training parts. Label sets get ridge regression in place of logistic regression.

    Args:
        frames: the clips, of any lengths and sizes; each is read once and then let go.
        targets: the class index of each clip, or a matrix (clips, classes) with the presence of each class as 0 or 1.
        groups: the group of each clip; None: each clip is a group.
        folds: the training clips and the test clips of each fold, as `saccade.data.folds.folds` returns them; one pair
            for a single split.
        metadata: a row of numbers for each clip, NaN where unknown; None leaves the rung out.
        pretrained: the result of `summarise` for each clip, (clips, statistics, dims); None leaves the rung out.
        progress: a function that is called with the number of clips whose features are computed, and the total.

    Returns:
        The rungs, with the predictions for all clips that are in a test part, in the order of the clips.

    Raises:
        UsageError: if there is no fold, if the number of clips, rows or groups differs from that of targets, or if a
            clip is in two test parts.
    """
    truth = np.asarray(targets).astype(np.intp)
    tested = _tested(folds)
    tables = {"metadata": metadata, "pretrained": pretrained}
    rows = {name: np.asarray(table) for name, table in tables.items() if table is not None}
    for name, found in {**rows, **({} if groups is None else {"groups": groups})}.items():
        if len(found) != len(truth):
            raise UsageError(f"{name} has {len(found)} rows; {len(truth)} are needed, one for each clip")
    shown, moved = _features(frames, len(truth), progress)
    candidates = {"mean frame": [ridge(shown)], "motion energy and gradients": [ridge(moved)]}
    if "metadata" in rows:
        candidates = {"metadata": _of_metadata(rows["metadata"].astype(np.float64)), **candidates}
    if "pretrained" in rows:
        candidates["pretrained features"] = _of_pretrained(rows["pretrained"], logistic if truth.ndim == 1 else ridge)
    predictions = {"largest class" if truth.ndim == 1 else "most frequent set": _largest(truth, folds)}
    predictions |= {name: out_of_fold(several, truth, groups, folds) for name, several in candidates.items()}
    of_tested = None if groups is None else [groups[clip] for clip in tested]
    return [judged(name, said[tested], truth[tested], of_tested) for name, said in predictions.items()]


def _tested(folds: Sequence[Fold]) -> NDArray[np.intp]:
    if not folds:
        raise UsageError("there is no fold; give at least one pair of training clips and test clips")
    tested, times = np.unique(np.concatenate([test for _, test in folds]), return_counts=True)
    if (times > 1).any():
        raise UsageError(f"clip {tested[times > 1][0]} is in two test parts; each clip must be tested once")
    return tested


def _features(
    frames: Iterable[Tensor], num_clips: int, progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean frames and the motion features, a row for each clip."""
    shown, moved = [], []
    for number, clip in enumerate(frames, 1):
        small = shrunk(clip)
        shown.append(mean_frame(small).numpy())
        moved.append(motion(small).numpy())
        if progress is not None:
            progress(number, num_clips)
    if len(shown) != num_clips:
        raise UsageError(f"there are {len(shown)} clips, but {num_clips} targets; give a target for each clip")
    return np.stack(shown), np.stack(moved)


def _of_metadata(table: NDArray[np.float64]) -> list[Candidate]:
    """Return candidates for sizes and rates, whose ratios count, and for codes, whose order means nothing."""
    return [ridge(np.sign(table) * np.log1p(np.abs(table))), forest(table)]


def _of_pretrained(statistics: NDArray[Any], linear: Callable[[NDArray[Any]], Candidate]) -> list[Candidate]:
    """Return candidates for all statistics, for those of change, and for the deviations alone.

    Where only motion tells the classes apart, the means are mere noise.
    """
    chosen = (statistics, statistics[:, 1:], statistics[:, 1::2])
    return [linear(some.reshape(len(some), -1)) for some in chosen]


def _largest(truth: NDArray[np.intp], folds: Sequence[Fold]) -> NDArray[np.intp]:
    """Return the most frequent class, or label set, of each fold's training part as the prediction for its test."""
    predictions = np.zeros_like(truth)
    for train, test in folds:
        kinds, counts = np.unique(truth[train], axis=0, return_counts=True)
        predictions[test] = kinds[counts.argmax()]
    return predictions
