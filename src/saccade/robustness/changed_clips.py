"""Clips of a test set with a change, made when a batch is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.clips import CPU, ClipBatch, Clips, padded
from saccade.evaluate.clip_verdicts import NamedClips
from saccade.labels import Labels
from saccade.robustness.changes import Change

Redraw = Callable[[Clips, str, float], Clips | None]
"""A function that draws generated clips anew with a change of a strength; None where only pixels can be changed."""


@dataclass(frozen=True)
class Sample:
    """Some clips of a test set.

    Args:
        clips: the test set.
        chosen: the numbers of the clips that are measured.
    """

    clips: Clips
    chosen: tuple[int, ...]

    @classmethod
    def of(cls, clips: Clips, num: int | None, seed: int) -> Sample:
        """Return `num` clips at random, or all if there are no more."""
        if num is None or num >= len(clips):
            return cls(clips, tuple(range(len(clips))))
        return cls(clips, tuple(sorted(np.random.default_rng(seed).permutation(len(clips))[:num].tolist())))

    @cached_property
    def targets(self) -> list[Any]:
        """The class of each clip, or the presence of each class."""
        found: list[Any] = []
        for number in self.chosen:
            found += self.clips.batch(torch.tensor([number])).targets.tolist()
        return found

    def described(self) -> str:
        """Return a digest of the facts, names and numbers of the clips, by which a result file knows them again."""
        named = self.clips.names if isinstance(self.clips, NamedClips) else None
        told = {
            "facts": dict(self.clips.facts),
            "chosen": self.chosen,
            "names": named and [named[number] for number in self.chosen],
            "targets": self.targets,
        }
        return f"sha256:{hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class ChangedClips:
    """The clips of a sample with a change, in their order; each depends on the seed, its number and the strength alone.

    Args:
        sample: the clips; they stay on the processor.
        change: the change; None leaves them as they are.
        strength: the strength of the change.
        seed: the seed of what changes draw.
        device: the device of the batches.
    """

    sample: Sample
    change: Change | None = None
    strength: float = 0.0
    seed: int = 0
    device: torch.device = CPU

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.sample.clips.labels

    @property
    def facts(self) -> Mapping[str, Any]:
        """A description of the clips."""
        return self.sample.clips.facts

    def __len__(self) -> int:
        return len(self.sample.chosen)

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return the clips at `indices`."""
        numbers = [self.sample.chosen[index] for index in indices.tolist()]
        batch = self.sample.clips.batch(torch.tensor(numbers))
        if self.change is None or self.strength == self.change.unchanged:
            return batch.to(self.device)
        lengths: Sequence[int] = [batch.frames.shape[1]] * len(numbers)
        if batch.lengths is not None:
            lengths = batch.lengths.tolist()
        changed = [
            self.change(clip[:length], self.strength, (self.seed, number))
            for clip, length, number in zip(batch.frames, lengths, numbers, strict=True)
        ]
        frames, of_frames = padded(changed)
        return ClipBatch(frames, batch.targets, of_frames).to(self.device)

    def to(self, device: torch.device | str) -> ChangedClips:
        """Return the same clips, with batches on `device`."""
        return replace(self, device=torch.device(device))


def changed(
    sample: Sample, name: str, change: Change, strength: float, seed: int = 0, redraw: Redraw | None = None
) -> ChangedClips:
    """Return the clips of a sample with a change: drawn anew where that is possible, else with changed pixels."""
    if redraw is not None and strength != change.unchanged:
        drawn = redraw(sample.clips, name, strength)
        if drawn is not None:
            return ChangedClips(replace(sample, clips=drawn), seed=seed)
    return ChangedClips(sample, change, strength, seed)
