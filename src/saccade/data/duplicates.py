"""Clips that a collection holds more than once: equal files, and copies that were encoded, resized or trimmed anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from saccade.data.collection import Entry

if TYPE_CHECKING:  # a record holds a fingerprint of this module
    from saccade.data.scan import Record

_MOMENTS, _SIDE = 48, 12
# Measured on real clips and altered copies of them; docs/log.md has the figures.
_MOTION_DIFFERS = 0.010
_STILL_DIFFERS = 0.01
_NOISE = 20.0  # square of a grey level: what compression and rounding to another size change anyway
_BLANK = 2.0  # deviation in grey levels below which there is nothing to compare
_GAIN = (0.7, 1.4)
_TRIMMED = (1.02, 1.5)  # how much longer the whole is than a trimmed copy
_OFFSETS = 17
_NEIGHBOURS = 5
_AT_ONCE = 512


@dataclass(frozen=True)
class Duplicate:
    """Clips that show the same.

    Args:
        entries: the clips, at least two.
        exact: whether the files are equal, byte by byte; else they look alike.
    """

    entries: tuple[Entry, ...]
    exact: bool

    @property
    def across_classes(self) -> bool:
        """Whether the clips have different classes."""
        return len({entry.classes for entry in self.entries}) > 1

    @property
    def across_splits(self) -> bool:
        """Whether the clips are in different splits."""
        return len({entry.split for entry in self.entries}) > 1

    @property
    def across_groups(self) -> bool:
        """Whether the clips are in different groups, so that a split may part them."""
        return any(e.group is None for e in self.entries) or len({entry.group for entry in self.entries}) > 1


def fingerprint(frames: UInt8[Tensor, "time channels height width"]) -> NDArray[np.uint8]:
    """Return small grey pictures of a clip, (time, height, width), each the mean over an equal share of its time.

    >>> import torch
    >>> fingerprint(torch.zeros(5, 3, 64, 48, dtype=torch.uint8)).shape
    (48, 12, 12)
    """
    parts = [part.float().mean(1, keepdim=True) for part in frames.split(_AT_ONCE)]
    pictures = np.concatenate([F.adaptive_avg_pool2d(part, _SIDE).flatten(1).numpy() for part in parts])
    # A sum up to a moment within a frame takes a part of the frame, so that the rate of frames hardly matters.
    sums = np.concatenate([np.zeros((1, _SIDE**2)), np.cumsum(pictures, 0, dtype=np.float64)])
    edges = np.linspace(0, len(frames), _MOMENTS + 1)
    before = np.minimum(edges.astype(int), len(frames) - 1)
    sums = sums[before] + (edges - before)[:, None] * pictures[before]
    means: NDArray[np.float64] = np.diff(sums, axis=0) * (_MOMENTS / len(frames))
    return means.round().astype(np.uint8).reshape(_MOMENTS, _SIDE, _SIDE)


def find(records: Sequence[Record]) -> list[Duplicate]:
    """Return the groups of clips that are equal, and then the groups of clips that look alike.

    Clips look alike if they differ little compared with how much they move: a copy that was encoded again, resized,
    made a little brighter, or trimmed by up to a third. Two takes of the same action differ more. A clip with copies of
    both kinds is in one group of each. Clips that could not be read are in no group; blank clips look like no other.

    The time is bounded for large collections: each clip is compared with its nearest neighbours only.
    """
    same: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.digest is not None and record.error is None:
            same[record.digest, record.entry.start_s, record.entry.end_s].append(number)
    exact = [Duplicate(tuple(records[i].entry for i in numbers), True) for numbers in same.values() if numbers[1:]]
    compared = [numbers for numbers in same.values() if _shows_something(records[numbers[0]].fingerprint)]
    alike = _groups([records[numbers[0]] for numbers in compared])
    near = [sorted(number for place in places for number in compared[place]) for places in alike]
    return exact + [Duplicate(tuple(records[number].entry for number in numbers), False) for numbers in sorted(near)]


def _shows_something(marks: NDArray[np.uint8] | None) -> bool:
    return marks is not None and bool(marks.std() >= _BLANK)


def _groups(records: Sequence[Record]) -> list[list[int]]:
    """Return the places of records that look alike, directly or through others."""
    # Slow to import, and the processes of a scan make only fingerprints.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(records) < 2:
        return []
    marks = np.stack([r.fingerprint for r in records if r.fingerprint is not None]).reshape(len(records), _MOMENTS, -1)
    durations_s = np.array([record.duration_s or 0.0 for record in records])
    pairs = _candidates(marks)
    parts = [_alike(marks, durations_s, part) for part in np.split(pairs, range(_AT_ONCE, len(pairs), _AT_ONCE))]
    first, second = pairs[np.concatenate(parts)].T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(records), len(records)))
    _, group = connected_components(links, directed=False)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(group.tolist()):
        members[number].append(place)
    return [places for places in members.values() if places[1:]]


def _candidates(marks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the pairs of nearest neighbours, by what is seen when, and by what is seen at all."""
    parts = [_coarse(marks[start : start + _AT_ONCE]) for start in range(0, len(marks), _AT_ONCE)]
    found = [_neighbours(np.concatenate(vectors)) for vectors in zip(*parts, strict=True)]
    pairs: NDArray[np.intp] = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def _coarse(marks: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return two short vectors of each clip: few coarse moments, and the mean and deviation over time."""
    scaled = marks - marks.mean((1, 2), keepdims=True, dtype=np.float32)
    scaled /= scaled.std((1, 2), keepdims=True) + 1
    blocks = scaled.reshape(len(marks), 8, _MOMENTS // 8, 4, _SIDE // 4, 4, _SIDE // 4)
    over_time = np.stack([scaled.mean(1), scaled.std(1)], axis=1).reshape(len(marks), 2, 6, _SIDE // 6, 6, _SIDE // 6)
    return blocks.mean((2, 4, 6)).reshape(len(marks), -1), over_time.mean((3, 5)).reshape(len(marks), -1)


def _neighbours(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    from sklearn.neighbors import NearestNeighbors

    num = min(_NEIGHBOURS + 1, len(vectors))
    index = NearestNeighbors(n_neighbors=num - 1, algorithm="brute").fit(vectors)
    near = index.kneighbors(return_distance=False)  # of each vector, without itself
    return np.stack([np.arange(len(vectors)).repeat(num - 1), near.ravel()], axis=1)


def _alike(marks: NDArray[np.uint8], durations_s: NDArray[np.float64], pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which pairs look alike, as a whole or where the shorter clip lies within the longer one."""
    longer = durations_s[pairs[:, 0]] < durations_s[pairs[:, 1]]
    whole, part = np.where(longer[:, None], pairs[:, ::-1], pairs).T
    a, b = marks[whole], marks[part]
    found = _same(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = durations_s[whole] / durations_s[part]
    trimmed = ~found & (ratio > _TRIMMED[0]) & (ratio < _TRIMMED[1])
    rough_a, rough_b = _rough(a), _rough(b)
    for start in np.linspace(0, 1, _OFFSETS):
        (left,) = np.nonzero(trimmed & ~found)
        lasts = 1 / ratio[left, None]
        at = start * (1 - lasts) + (np.arange(_MOMENTS) + 0.5) / _MOMENTS * lasts
        near = _same(_at(rough_a[left], at), rough_b[left], slack=2)  # few pairs need a closer look
        found[left[near]] = _same(_at(a[left[near]], at[near]), b[left[near]])
    return found


def _rough(marks: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = marks.reshape(len(marks), _MOMENTS, 4, _SIDE // 4, 4, _SIDE // 4)
    means: NDArray[np.float32] = blocks.mean((3, 5), dtype=np.float32)
    return means.reshape(len(marks), _MOMENTS, -1)


def _at(marks: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the pictures at other moments, given as fractions of the duration."""
    place = np.clip(at * _MOMENTS - 0.5, 0, _MOMENTS - 1)
    before = place.astype(int)
    after = np.minimum(before + 1, _MOMENTS - 1)
    share = (place - before)[..., None].astype(np.float32)
    rows = np.arange(len(marks))[:, None]
    moved: NDArray[np.float32] = marks[rows, before] * (1 - share) + marks[rows, after] * share
    return moved


def _same(first: NDArray[Any], second: NDArray[Any], slack: float = 1.0) -> NDArray[np.bool_]:
    """Return which pairs of clips are equal up to brightness, contrast and `slack` times the usual noise."""
    a, b = (marks - marks.mean((1, 2), keepdims=True, dtype=np.float32) for marks in (first, second))
    gain = (a * b).sum((1, 2)) / np.maximum((b * b).sum((1, 2)), 1e-6)
    b *= np.clip(gain, *_GAIN)[:, None, None]
    still_a, still_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    still = _relative(still_a, still_b)
    moving = _relative(a - still_a, b - still_b)
    close: NDArray[np.bool_] = (still <= slack * _STILL_DIFFERS) & (moving <= slack * _MOTION_DIFFERS)
    return close


def _relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    def power(x: NDArray[np.float32]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = np.square(x).mean((1, 2))
        return mean

    return power(a - b) / (power(a) + power(b) + _NOISE)
