"""The parts of a cross-validation: each clip is tested once, and no group is split between training and test."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.errors import DataError, UsageError
from saccade.foreign import shown

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""The indices of the clips for training and of those held out, both in ascending order."""

_NUM_INNER = 5
_MAX_ORDERS = 100


def folds(
    targets: ArrayLike,
    groups: Sequence[Hashable] | None,
    num_folds: int,
    seed: int,
    *,
    names: Sequence[str] | None = None,
) -> list[Fold]:
    """Return the training clips and the test clips of each fold of a cross-validation.

    Each clip is in the test part of one fold, and clips of a group are in the same test part. Each class is in every
    training part. Classes are spread evenly over the test parts as far as groups allow.

    Args:
        targets: the class index of each clip, or a matrix (clips, classes) with the presence of each class as 0 or 1.
        groups: the group of each clip, for example the person shown; None: each clip is a group.
        num_folds: the number of folds.
        seed: the seed of the order in which groups are dealt out.
        names: the names of the classes, for messages; None: their indices.

    Raises:
        UsageError: if there are fewer than two folds, or if the numbers of targets and groups differ.
        DataError: if there are fewer groups than folds, if all clips of a class are in one group, or if no order of the
            groups was found that keeps each class in every training part.

    >>> [test.tolist() for _, test in folds([0, 0, 1, 1], ["ann", "bob", "ann", "bob"], 2, seed=0)]
    [[0, 2], [1, 3]]
    """
    if num_folds < 2:
        raise UsageError(f"a cross-validation needs at least 2 folds; got {num_folds}")
    present = _presence(targets)
    numbers = _numbers(groups, len(present))
    counts = _counts(present, numbers)
    what = "clips" if groups is None else "groups"
    if len(counts) < num_folds:
        raise DataError(f"{num_folds} folds need at least {num_folds} {what}; got {len(counts)}: use fewer folds")
    if (alone := np.flatnonzero((counts > 0).sum(0) == 1)).size:
        name = shown(str(alone[0]) if names is None else names[alone[0]])
        came = "1 clip" if groups is None else f"clips of 1 group only ({counts[:, alone[0]].sum()} clips)"
        raise DataError(
            f"the class '{name}' has {came}{_others(alone.size - 1)}; cross-validation needs at least 2 {what} of each"
            " class, to train on one and test on another: add clips, or leave out such classes"
        )
    for dealt in _deals(counts, num_folds, seed):
        held = _counts(counts, dealt)
        if _leaves_every_class(held, counts.sum(0)).all():
            part = dealt[numbers]
            return [(np.flatnonzero(part != fold), np.flatnonzero(part == fold)) for fold in range(num_folds)]
    raise DataError(
        f"{num_folds} folds of {len(counts)} {what} leave some class out of training in each of {_MAX_ORDERS} orders;"
        " use fewer folds, group the clips differently, or leave out rare classes"
    )


def inner_validation(
    targets: ArrayLike, groups: Sequence[Hashable] | None, train_indices: ArrayLike, seed: int
) -> Fold:
    """Return the clips to fit a model to and the clips to validate it on, both from the training part of a fold.

    About a fifth of the clips is for validation, with as many classes as possible. Clips of a group are in the same
    part. Each class of the training part remains among the clips to fit; its only group is never used for validation.

    Args:
        targets: the targets of all clips, as in `folds`.
        groups: the groups of all clips; None: each clip is a group.
        train_indices: the clips of the training part, as indices into all clips.
        seed: the seed of the order in which groups are dealt out.

    Returns:
        Both parts, as indices into all clips. The validation part is empty if no group can be spared, for example if
        there is one clip of each class.

    Raises:
        UsageError: if the numbers of targets and groups differ.

    >>> fit, validation = inner_validation([0, 1] * 5, None, range(10), seed=0)
    >>> len(fit), len(validation)
    (8, 2)
    """
    indices = np.sort(np.asarray(train_indices, dtype=np.intp))
    present = _presence(targets)
    _, numbers = np.unique(_numbers(groups, len(present))[indices], return_inverse=True)
    counts = _counts(present[indices], numbers)
    held = np.isin(numbers, _best_part(counts, seed))
    return indices[~held], indices[held]


def _others(num: int) -> str:
    return f", like {num} other class{'es' * (num > 1)}" if num else ""


def _presence(targets: ArrayLike) -> NDArray[np.intp]:
    """Return a row for each clip: the presence of each class as 0 or 1, then a 1 that counts the clip itself."""
    given = np.asarray(targets)
    present = given.astype(np.intp) if given.ndim == 2 else np.eye(int(given.max()) + 1, dtype=np.intp)[given]
    return np.concatenate([present, np.ones((len(present), 1), np.intp)], axis=1)


def _numbers(groups: Sequence[Hashable] | None, num_clips: int) -> NDArray[np.intp]:
    """Return the group of each clip as a number."""
    if groups is None:
        return np.arange(num_clips)
    if len(groups) != num_clips:
        raise UsageError(f"there are {num_clips} targets, but {len(groups)} groups; give a group for each clip")
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], np.intp)


def _counts(rows: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the sum of the rows with each number."""
    counts = np.zeros((numbers.max() + 1, rows.shape[1]), np.intp)
    np.add.at(counts, numbers, rows)
    return counts


def _leaves_every_class(held: NDArray[np.intp], totals: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether clips of each class remain when those in a row of counts are held out."""
    remain: NDArray[np.bool_] = ((held < totals) | (totals == 0)).all(-1)
    return remain


def _best_part(counts: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Return the groups to hold out for validation: a part that leaves every class, with most classes, near a fifth."""
    totals = counts.sum(0)
    spared: NDArray[np.intp] = np.flatnonzero(_leaves_every_class(counts, totals))
    if len(spared) > 1:
        for dealt in _deals(counts[spared], min(_NUM_INNER, len(spared)), seed):
            held = _counts(counts[spared], dealt)
            far = abs(held[:, -1] - totals[-1] / _NUM_INNER)
            best = np.lexsort((far, -(held > 0).sum(1), ~_leaves_every_class(held, totals)))[0]
            if _leaves_every_class(held[best], totals):
                spared = spared[dealt == best]
                break
        else:
            spared = spared[:1]
    return spared


def _deals(counts: NDArray[np.intp], num_parts: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield the part of each group, dealt out in one random order after another."""
    deal = _dealt_by_turns if (counts[:, :-1].sum(1) <= 1).all() else _dealt_evenly
    for attempt in range(_MAX_ORDERS):
        yield deal(counts, num_parts, np.random.default_rng((seed, attempt)))


def _dealt_by_turns(counts: NDArray[np.intp], num_parts: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Deal out clips in turns, class after class and in a random order within each class."""
    order = generator.permutation(len(counts))
    order = order[np.argsort(counts[order].argmax(1), kind="stable")]
    dealt = np.empty(len(counts), np.intp)
    dealt[order] = np.arange(len(counts)) % num_parts
    return dealt


def _dealt_evenly(counts: NDArray[np.intp], num_parts: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Deal out groups, large ones early, each to the part where it evens out the shares of classes and clips.

    Scikit-learn's StratifiedGroupKFold does the same, but there the seed hardly changes the order. So another seed
    would not help where a class is missing in training.
    """
    shares = counts / np.maximum(counts.sum(0), 1)
    order = np.argsort(-shares.max(1) * generator.uniform(0.5, 1.5, len(counts)))
    dealt = np.empty(len(counts), np.intp)
    held = np.zeros((num_parts, shares.shape[1]))
    for group in order:
        # The sum of squared shares grows by this product twice, and by a term that is the same for every part.
        dealt[group] = part = int(np.argmin(held @ shares[group]))
        held[part] += shares[group]
    return dealt
