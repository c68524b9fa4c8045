"""Ridge regression on blocks of features, for more features than clips: solved exactly, without steps.

The blocks are weighted by how well each alone agrees with the classes. Everything is chosen in the given clips: the
strength of the penalty and the scale of the logits by a grouped cross-validation among them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from saccade.data.folds import Fold, folds
from saccade.errors import DataError
from saccade.labels import Labels, Targets

_PENALTIES = (0.03, 0.1, 0.3)
_NUM_INNER = 5
_LEAST_DEVIATION = 1e-6

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A linear head: logits are `states @ weight.T + bias`.

    Args:
        weight: one row per class.
        bias: one value per class.
        penalty: the penalty that was chosen.
        block_weights: the weight of each block of features; the sum is 1.
    """

    weight: Float[Tensor, "classes states"]
    bias: Float[Tensor, "classes"]
    penalty: float
    block_weights: tuple[float, ...]


def fit(
    states: Float[Tensor, "clips states"],
    targets: Targets,
    labels: Labels,
    *,
    num_blocks: int,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Linear:
    """Fit a linear head to the states of clips.

    Args:
        states: one row per clip; it consists of `num_blocks` blocks of the same length.
        targets: the targets, as `labels` expects them.
        labels: the classes.
        num_blocks: the number of blocks.
        groups: the group of each clip, which the inner cross-validation does not split; None: each clip is one.
        seed: the seed of the inner cross-validation.

    Source: Cortes, Mohri and Rostamizadeh 2012, "Algorithms for learning kernels based on centered alignment", for the
    weights of the blocks.
    """
    wanted = _presence(targets, labels)
    scaled, mean, scale, weights = _aligned(states.double(), wanted, num_blocks)
    kernel = (scaled @ scaled.T).numpy()
    inner = _inner_folds(targets, groups, seed)
    errors = {penalty: _out_of_fold(kernel, wanted, inner, penalty) for penalty in _PENALTIES}
    penalty = min(_PENALTIES, key=lambda one: float(((errors[one] - wanted) ** 2).mean()))
    gain = _gain(torch.from_numpy(errors[penalty]), targets, labels)
    dual, mean_wanted = _solved(kernel, wanted, penalty)
    weight = torch.from_numpy(dual).T @ scaled * scale * gain
    bias = gain * (torch.from_numpy(mean_wanted) - _middle(labels)) - weight @ mean
    return Linear(weight.float(), bias.float(), penalty, weights)


def _presence(targets: Targets, labels: Labels) -> Matrix:
    """Return the presence of each class in each clip as 0 or 1."""
    if not labels.exclusive:
        return targets.double().numpy()
    found: Matrix = torch.nn.functional.one_hot(targets, len(labels.names)).double().numpy()
    return found


def _middle(labels: Labels) -> float:
    """Return the value at which a class is as likely as not: only differences count if classes exclude each other."""
    return 0.0 if labels.exclusive else 0.5


def _aligned(states: Tensor, wanted: Matrix, num_blocks: int) -> tuple[Tensor, Tensor, Tensor, tuple[float, ...]]:
    """Return standardised states with weighted blocks, the mean and the scale of each state, and the blocks' weights.

    A block with weight w has the mean square w over clips.
    """
    mean, deviation = states.mean(0), states.std(0, correction=0).clamp(min=_LEAST_DEVIATION)
    blocks = ((states - mean) / deviation).chunk(num_blocks, 1)
    centred = torch.from_numpy(wanted - wanted.mean(0))
    truth = centred @ centred.T
    alignments, sizes = [], []
    for block in blocks:
        kernel = block @ block.T
        alignments.append(max(0.0, float((kernel * truth).sum() / (kernel.norm() * truth.norm() + 1e-12))))
        sizes.append(max(float(kernel.diagonal().mean()), 1e-12))
    total = sum(alignments) or 1.0
    weights = tuple(one / total if sum(alignments) else 1 / num_blocks for one in alignments)
    factors = [(weight / size) ** 0.5 for weight, size in zip(weights, sizes, strict=True)]
    scaled = torch.cat([block * factor for block, factor in zip(blocks, factors, strict=True)], 1)
    per_state = torch.cat([torch.full((block.shape[1],), f) for block, f in zip(blocks, factors, strict=True)])
    return scaled, mean, per_state.double() / deviation, weights


def _solved(kernel: Matrix, wanted: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    mean = wanted.mean(0)
    return np.linalg.solve(kernel + penalty * np.eye(len(kernel)), wanted - mean), mean


def _inner_folds(targets: Targets, groups: Sequence[Hashable] | None, seed: int) -> list[Fold]:
    """Return as many folds, up to five, as groups allow; clips of a class with a single group are never held out."""
    given = targets.numpy()
    present = given > 0 if given.ndim > 1 else given[:, None] == np.arange(int(given.max()) + 1)
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


def _out_of_fold(kernel: Matrix, wanted: Matrix, inner: Sequence[Fold], penalty: float) -> Matrix:
    """Return the value for each clip from the clips of other folds; the mean where there are no folds."""
    found = np.tile(wanted.mean(0), (len(wanted), 1))
    for learned, held in inner:
        dual, mean = _solved(kernel[np.ix_(learned, learned)], wanted[learned], penalty)
        found[held] = kernel[np.ix_(held, learned)] @ dual + mean
    return found


def _gain(values: Tensor, targets: Targets, labels: Labels) -> float:
    """Return the factor of the values that makes their probabilities fit the targets best: a temperature.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """

    def loss(log_gain: float) -> float:
        logits = float(np.exp(log_gain)) * (values - _middle(labels))
        return float(labels.loss(logits.unsqueeze(1), targets.to(logits) if not labels.exclusive else targets))

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 5.0), method="bounded").x))
