"""Ridge regression on blocks of features, for more features than clips: solved exactly, without steps.

The blocks are weighted by how well each alone agrees with the classes. Everything is chosen in the given clips: the
strength of the penalty and the scale of the logits by a grouped cross-validation among them. If that can hold out too
few clips, the scale is a cautious one instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from saccade.data.folds import Fold, folds
from saccade.errors import DataError
from saccade.labels import Labels, Targets

EARLIER_WEIGHT = 0.003
"""The weight of an earlier state of a clip, beside 1 for its last: settled on real clips (docs/log.md)."""

_PENALTIES = (0.03, 0.1, 0.3)
_NUM_INNER = 5
# With fewer held-out clips, or a smaller share of all, the scale of the logits would be fitted to chance.
_FEWEST_HELD, _LEAST_SHARE_HELD = 10, 0.5
_LEAST_DEVIATION = 1e-6
# With as many rows at most, the solution is that of all rows; otherwise it lies in the span of as many of them.
_LARGEST_BASIS = 2000
_ROWS_AT_ONCE = 1024
# Keeps the factorisation possible where rows repeat, and is far below any penalty; the mean square of a row is 1.
_JITTER = 1e-4

Matrix = NDArray[np.float64]
States = Float[Tensor, "clips states"]


@dataclass(frozen=True)
class Linear:
    """A linear head: logits are `states @ weight.T + bias`.

    Args:
        weight: one row per class.
        bias: one value per class.
        penalty: the penalty that was chosen.
        block_weights: the weight of each block of features; the sum is 1.
        held_out: the logits of each clip from a head that did not learn from it: that of an inner fold. The moments are
            the last, the earlier ones, and the further ones. Clips that no fold holds out have the logits of a head
            that knows only how frequent the classes are.
        is_calibrated: whether the scale of the logits was fitted to held-out clips. A class with a single group cannot
            be held out. With fewer than 10 or less than half of the clips held out, the scale is a cautious one: values
            of 1 for a class and 0 for the others have a probability halfway between chance and 1. Probabilities then do
            not say how often verdicts are right.
    """

    weight: Float[Tensor, "classes states"]
    bias: Float[Tensor, "classes"]
    penalty: float
    block_weights: tuple[float, ...]
    held_out: Float[Tensor, "clips moments classes"]
    is_calibrated: bool


def fit(
    states: States,
    targets: Targets,
    labels: Labels,
    *,
    block_sizes: Sequence[int],
    earlier: Sequence[States] = (),
    further: Sequence[States] = (),
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Linear:
    """Fit a linear head to the states of clips.

    Time and memory grow with the square of the number of clips, up to 2,000 rows; with more, a random part of the rows
    spans the solution, and they grow with the number of clips.

    Args:
        states: the state at the end of each clip, one row per clip; it consists of blocks.
        targets: the targets, as `labels` expects them.
        labels: the classes.
        block_sizes: the number of states in each block.
        earlier: states of the same clips at earlier moments, which count little beside the last: they improve verdicts
            on the beginning of a clip.
        further: states of the same clips at moments that nothing is learned from, for `held_out`.
        groups: the group of each clip, which the inner cross-validation does not split; None: each clip is one.
        seed: the seed of the inner cross-validation.

    Source: Cortes, Mohri and Rostamizadeh 2012, "Algorithms for learning kernels based on centered alignment", for the
    weights of the blocks; Williams and Seeger 2001, "Using the Nyström method to speed up kernel machines", for many
    rows.
    """
    wanted = _presence(targets, labels)
    rows = _Rows((states, *earlier), _scaling(states, wanted, block_sizes, seed), wanted, seed)
    inner = _inner_folds(targets, groups, seed)
    found = rows.out_of_fold(inner, _PENALTIES, further)
    penalty = min(_PENALTIES, key=lambda one: float(((found[one][:, 0] - wanted) ** 2).mean()))
    held_out = torch.from_numpy(found[penalty])
    is_calibrated = _holds_enough(inner, len(wanted))
    gain = _gain(held_out[:, 0], targets, labels) if is_calibrated else _cautious_gain(labels)
    weight = gain * rows.solution(penalty)
    bias = gain * (torch.from_numpy(wanted.mean(0)) - _middle(labels)) - weight @ rows.scaling.mean
    held_out = gain * (held_out - _middle(labels))
    block_weights = rows.scaling.block_weights
    return Linear(weight.float(), bias.float(), penalty, block_weights, held_out.float(), is_calibrated)


def _presence(targets: Targets, labels: Labels) -> Matrix:
    """Return the presence of each class in each clip as 0 or 1."""
    if not labels.exclusive:
        return targets.double().numpy()
    found: Matrix = torch.nn.functional.one_hot(targets, len(labels.names)).double().numpy()
    return found


def _middle(labels: Labels) -> float:
    """Return the value at which a class is as likely as not: only differences count if classes exclude each other."""
    return 0.0 if labels.exclusive else 0.5


@dataclass(frozen=True)
class _Scaling:
    """Standardise states and weight their blocks: one with weight w has the mean square w over clips."""

    mean: Float[Tensor, "states"]
    factor: Float[Tensor, "states"]
    block_weights: tuple[float, ...]

    def __call__(self, states: States) -> States:
        scaled: Tensor = (states - self.mean.float()) * self.factor.float()
        return scaled


def _scaling(states: States, wanted: Matrix, block_sizes: Sequence[int], seed: int) -> _Scaling:
    mean = states.mean(0, dtype=torch.float64)
    deviation = states.std(0, correction=0).double().clamp(min=_LEAST_DEVIATION)
    some = torch.from_numpy(_sample(len(states), _LARGEST_BASIS, seed))
    centred = torch.from_numpy(wanted - wanted.mean(0))[some]
    truth = centred @ centred.T
    alignments, sizes = [], []
    for block in ((states[some] - mean) / deviation).split(list(block_sizes), 1):
        kernel = block @ block.T
        alignments.append(max(0.0, float((kernel * truth).sum() / (kernel.norm() * truth.norm() + 1e-12))))
        sizes.append(max(float(kernel.diagonal().mean()), 1e-12))
    total = sum(alignments)
    weights = tuple(one / total if total else 1 / len(sizes) for one in alignments)
    factors = torch.tensor([(weight / size) ** 0.5 for weight, size in zip(weights, sizes, strict=True)])
    per_state = factors.double().repeat_interleave(torch.tensor(block_sizes))
    return _Scaling(mean, per_state / deviation, weights)


class _Rows:
    """States of clips at one or more moments, as rows of a regression whose solution lies in the span of some rows.

    The rows are those of all clips at the last moment, then at each earlier one.
    """

    def __init__(self, moments: Sequence[States], scaling: _Scaling, wanted: Matrix, seed: int) -> None:
        self.scaling, self.wanted, self.num_moments = scaling, wanted, len(moments)
        num_clips, num_rows = len(wanted), len(wanted) * len(moments)
        self._weights = (1.0, *[EARLIER_WEIGHT] * (len(moments) - 1))
        all_rows = num_rows <= _LARGEST_BASIS
        chosen = np.arange(num_rows) if all_rows else _sample(num_clips, _LARGEST_BASIS, seed)
        place = [divmod(int(row), num_clips) for row in chosen]
        self._basis = scaling(torch.stack([moments[moment][clip] for moment, clip in place]))
        kernel = (self._basis @ self._basis.T).double().numpy()
        self._factor = np.linalg.cholesky(kernel + _JITTER * np.eye(len(kernel)))
        self._coordinates = self._of(moments)
        self._all = self._sums(np.arange(num_clips))

    def out_of_fold(
        self, inner: Sequence[Fold], penalties: Sequence[float], further: Sequence[States]
    ) -> dict[float, NDArray[np.float64]]:
        """Return the values (clips, moments, classes) from the clips of other folds; the mean where there are no folds.

        The moments are those of the rows, and further ones.
        """
        num_moments = self.num_moments + len(further)
        rows = np.concatenate((self._coordinates, self._of(further))).reshape(num_moments, len(self.wanted), -1)
        found = {penalty: np.tile(self.wanted.mean(0), (len(self.wanted), num_moments, 1)) for penalty in penalties}
        for learned, held in inner:
            mean = self.wanted[learned].mean(0)
            sums = self._all - self._sums(held)
            for penalty in penalties:
                found[penalty][held] = (rows[:, held] @ sums.solved(penalty, mean) + mean).swapaxes(0, 1)
        return found

    def solution(self, penalty: float) -> Float[Tensor, "classes states"]:
        """Return the weight of each state, as it was before scaling."""
        solved = self._all.solved(penalty, self.wanted.mean(0))
        dual = scipy.linalg.solve_triangular(self._factor, solved, lower=True, trans="T")
        return (self._basis.double().T @ torch.from_numpy(dual)).T * self.scaling.factor

    def _of(self, moments: Sequence[States]) -> Matrix:
        """Return coordinates in which the product of two rows is that of their states, projected onto the basis."""
        parts = (self.scaling(part) @ self._basis.T for moment in moments for part in moment.split(_ROWS_AT_ONCE))
        found = [scipy.linalg.solve_triangular(self._factor, part.double().numpy().T, lower=True).T for part in parts]
        return np.concatenate((np.empty((0, len(self._factor))), *found))

    def _sums(self, clips: NDArray[np.intp]) -> _Sums:
        known = self._coordinates[np.concatenate([clips + len(self.wanted) * at for at in range(self.num_moments)])]
        weighted = known * np.repeat(self._weights, len(clips))[:, None]
        wanted = np.tile(self.wanted[clips], (self.num_moments, 1))
        return _Sums(weighted.T @ known, weighted.T @ wanted, weighted.sum(0))


@dataclass(frozen=True)
class _Sums:
    """Weighted sums over rows: products of coordinates, products with the wanted values, coordinates."""

    products: Matrix
    wanted: Matrix
    known: NDArray[np.float64]

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.products - other.products, self.wanted - other.wanted, self.known - other.known)

    def solved(self, penalty: float, mean: NDArray[np.float64]) -> Matrix:
        """Return the weights of coordinates that give the wanted values, less their mean."""
        found: Matrix = scipy.linalg.solve(
            self.products + penalty * np.eye(len(self.products)),
            self.wanted - np.outer(self.known, mean),
            assume_a="pos",
        )
        return found


def _sample(num: int, most: int, seed: int) -> NDArray[np.intp]:
    """Return all of some numbers, or a random part of them, in order."""
    if num <= most:
        return np.arange(num)
    return np.sort(np.random.default_rng(seed).choice(num, most, replace=False))


def _inner_folds(targets: Targets, groups: Sequence[Hashable] | None, seed: int) -> list[Fold]:
    """Return as many folds, up to five, as groups allow; clips of a class with a single group are never held out.

    If all clips are of one group, they are split all the same: that is too optimistic for other groups, and still tells
    more than nothing.
    """
    given = targets.numpy()
    present = given > 0 if given.ndim > 1 else given[:, None] == np.arange(int(given.max()) + 1)
    if groups is not None and len(set(groups)) == 1:
        groups = None  # with a single group, its clips are the next best
    of_clip: Sequence[Hashable] = range(len(present)) if groups is None else groups
    alone = [column for column in present.T if len({of_clip[clip] for clip in _places(column)}) == 1]
    spared = np.any(alone, axis=0) if alone else np.zeros(len(present), dtype=bool)
    kept = _places(~spared)
    of_kept = None if groups is None else [groups[clip] for clip in kept]
    for num in range(min(_NUM_INNER, len({of_clip[clip] for clip in kept})), 1, -1):
        try:
            parts = folds(given[kept], of_kept, num, seed)
        except DataError:
            continue
        places = np.array(kept)
        return [(np.sort(np.append(places[learned], np.flatnonzero(spared))), places[held]) for learned, held in parts]
    return []


def _places(mask: NDArray[np.bool_]) -> list[int]:
    return [int(place) for place in np.flatnonzero(mask)]


def _gain(values: Tensor, targets: Targets, labels: Labels) -> float:
    """Return the factor of the values that makes their probabilities fit the targets best: a temperature.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """

    def loss(log_gain: float) -> float:
        logits = float(np.exp(log_gain)) * (values - _middle(labels))
        return float(labels.loss(logits.unsqueeze(1), targets.to(logits) if not labels.exclusive else targets))

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 5.0), method="bounded").x))


def _holds_enough(inner: Sequence[Fold], num_clips: int) -> bool:
    num_held = sum(len(held) for _, held in inner)
    return num_held >= max(_FEWEST_HELD, _LEAST_SHARE_HELD * num_clips)


def _cautious_gain(labels: Labels) -> float:
    """Return the factor with which values of 1 for the right class and 0 for others are halfway from chance to 1."""
    return float(np.log(len(labels.names) + 1)) if labels.exclusive else 2 * float(np.log(3))
