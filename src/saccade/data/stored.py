"""Clips that lie in memory, decoded: what is tested on them, and what training takes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from saccade.clips import CPU, ClipBatch, FrameFormat, padded
from saccade.errors import UsageError
from saccade.labels import Labels


@dataclass(frozen=True, eq=False)
class StoredClips:
    """Labelled clips of any lengths and of one frame size.

    Args:
        frames: the clips, uint8 in [0, 255].
        targets: the class of each.
        labels: the classes.
        facts: what the clips are, as columns of a result row.
        device: where batches are wanted.

    Raises:
        UsageError: no clips, clips of several sizes, or another number of targets.

    >>> black = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    >>> clips = StoredClips([black, black], torch.tensor([0, 1]), Labels(("a", "b")))
    >>> clips.batch(torch.tensor([1])).frames.shape
    torch.Size([1, 4, 3, 64, 64])
    """

    frames: Sequence[UInt8[Tensor, "time channels height width"]]
    targets: Int64[Tensor, "clips"]
    labels: Labels
    facts: Mapping[str, Any] = field(default_factory=lambda: {"data": "memory"})
    device: torch.device = CPU

    def __post_init__(self) -> None:
        if not self.frames:
            raise UsageError("there are no clips; at least 1 is needed")
        if len(self.frames) != len(self.targets):
            raise UsageError(f"there are {len(self.frames)} clips, but {len(self.targets)} targets")
        if len(sizes := {tuple(clip.shape[1:]) for clip in self.frames}) > 1:
            raise UsageError(f"clips have frames of several shapes, {sorted(sizes)}; bring them to one")

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return whole clips, shorter ones padded."""
        chosen = indices.tolist()
        frames, lengths = padded([self.frames[index] for index in chosen])
        return ClipBatch(frames, self.targets[chosen], lengths).to(self.device)

    def to(self, device: torch.device | str) -> StoredClips:
        """Return the same clips; batches are then moved to `device`, the clips stay where they are."""
        return replace(self, device=torch.device(device))


@dataclass(frozen=True)
class StoredBatches:
    """Batches of stored clips: each pass over them has an order of its own, and long clips are cut at random.

    A batch is a function of (seed, step).

    Args:
        clips: the clips.
        size: clips in a batch.
        num_frames: most frames of a clip.
        seed: what orders and cuts are drawn from.
    """

    clips: StoredClips
    size: int
    num_frames: int
    seed: int

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step."""
        frames, targets = [], []
        for place in range(step * self.size, (step + 1) * self.size):
            epoch, at = divmod(place, len(self.clips))
            index = int(self._order(epoch)[at])
            clip = self.clips.frames[index]
            room = len(clip) - self.num_frames
            start = int(_generator(self.seed, 1, place).integers(room + 1)) if room > 0 else 0
            frames.append(clip[start : start + self.num_frames])
            targets.append(self.clips.targets[index])
        stacked, lengths = padded(frames)
        return ClipBatch(stacked, torch.stack(targets), lengths).to(self.clips.device)

    def to(self, device: torch.device | str) -> StoredBatches:
        """Return the same batches on a device."""
        return replace(self, clips=self.clips.to(device))

    def _order(self, epoch: int) -> Any:
        return _generator(self.seed, 0, epoch).permutation(len(self.clips))


def _generator(*counters: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(counters)))


class StoredData:
    """Clips in memory, split for training and tests: what a script hands to `saccade.train.train`.

    Args:
        train: clips to learn from.
        test: clips never learned from.
        validation: clips to choose by; those of the test are not for that.
        num_frames: most frames of a training clip.
        name: what the clips are called in result files.

    >>> black = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    >>> clips = StoredClips([black, black], torch.tensor([0, 1]), Labels(("a", "b")))
    >>> StoredData(clips, clips).frame_format.size
    (32, 32)
    """

    KIND = "memory"
    default_input = "both"

    def __init__(
        self,
        train: StoredClips,
        test: StoredClips,
        validation: StoredClips | None = None,
        *,
        num_frames: int = 32,
        name: str = "memory",
    ) -> None:
        self._parts = {"train": train, "test": test, "validation": validation}
        self.num_frames, self.name = num_frames, name

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.clips("train").labels

    @property
    def frame_format(self) -> FrameFormat:
        """What a model for these clips wants of a frame: what they have."""
        channels, height, width = self.clips("train").frames[0].shape[1:]
        return FrameFormat(channels, (height, width))

    @property
    def facts(self) -> dict[str, Any]:
        """What a model learns from, as columns of a result row."""
        return {"data": self.name}

    def parts(self) -> list[StoredData]:
        """Return the clips, which are measured as one."""
        return [self]

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> StoredData:
        """Return the clips: their test part is what was held out."""
        return self

    def clips(self, split: str) -> StoredClips:
        """Return the clips of a split.

        Raises:
            UsageError: there are none.
        """
        if (found := self._parts.get(split)) is None:
            raise UsageError(f"there are no clips for {split}; give some to StoredData")
        return replace(found, facts={**found.facts, **self.facts, "split": split})

    def batches(self, size: int, seed: int) -> StoredBatches:
        """Return training batches of so many clips."""
        return StoredBatches(self.clips("train"), size, self.num_frames, seed)

    def as_json(self) -> dict[str, Any]:
        """Return what can be remembered of clips in memory: their name."""
        return {"kind": self.KIND, "name": self.name, "num_frames": self.num_frames}

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for training to go on."""
        return self.as_json() | {"num_clips": len(self.clips("train"))}
