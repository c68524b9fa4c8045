"""Decoded clips in memory, their training batches, and their use as training and test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from saccade.clips import CPU, ClipBatch, FrameFormat, padded, part_of
from saccade.data.augment import Augmentation, view_generator
from saccade.data.background import Background
from saccade.data.lazy_frames import LazyFrames
from saccade.errors import UsageError
from saccade.labels import IGNORED, Labels, Targets


@dataclass(frozen=True, eq=False)
class StoredClips:
    """Labelled clips of any lengths and of one frame size.

    Args:
        frames: the clips, uint8 in [0, 255]; `LazyFrames` reads them when they are needed.
        targets: the targets of the clips, as `labels` expects them.
        labels: the classes.
        facts: a description of the clips, as columns of a result row.
        device: the device of the batches.
        names: the name of each clip, such as its path; None if they have none.
        groups: the group of each clip, such as the person shown; None if each clip is a group.

    Raises:
        UsageError: if there are no clips, if frame shapes differ, or if the number of targets is not that of clips.

    >>> black = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    >>> clips = StoredClips([black, black], torch.tensor([0, 1]), Labels(("a", "b")))
    >>> clips.batch(torch.tensor([1])).frames.shape
    torch.Size([1, 4, 3, 64, 64])
    """

    frames: Sequence[UInt8[Tensor, "time channels height width"]]
    targets: Targets
    labels: Labels
    facts: Mapping[str, Any] = field(default_factory=lambda: {"data": "memory"})
    device: torch.device = CPU
    names: Sequence[str] | None = None
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise UsageError("there are no clips; at least 1 is needed")
        if len(self.frames) != len(self.targets):
            raise UsageError(f"there are {len(self.frames)} clips, but {len(self.targets)} targets")
        if isinstance(self.frames, LazyFrames):  # which have one shape, and are not all read
            return
        if len(sizes := {tuple(clip.shape[1:]) for clip in self.frames}) > 1:
            raise UsageError(f"clips have frames of several shapes, {sorted(sizes)}; convert them to one")

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return the clips at `indices` in full length, with shorter clips padded."""
        chosen = indices.tolist()
        frames, lengths = padded([self.frames[index] for index in chosen])
        return ClipBatch(frames, self.targets[chosen], lengths).to(self.device)

    def to(self, device: torch.device | str) -> StoredClips:
        """Return the same clips, with batches on `device`; the clips themselves are not moved."""
        return replace(self, device=torch.device(device))


@dataclass(frozen=True)
class StoredBatches:
    """Training batches of stored clips, which come again and again, each time in another way.

    A batch is a function of (seed, step). Each epoch has a random order. Long clips are cut at random. Clips of rare
    classes come more often than once in an epoch: as often as the square root of the ratio between the number of clips
    of the most frequent class and that of their own. A class with a ninth of the clips of another comes a third as
    often as the other. Full balance would show few clips too many times; no balance would let the rare class be
    ignored. The repetition serves label sets too, where weights in the loss would be unclear; a clip with several
    classes comes as often as its rarest class.

    Source: Gupta, Dollár and Girshick 2019, "LVIS: A dataset for large vocabulary instance segmentation", for the
    repetition.

    Args:
        clips: the clips.
        size: the number of clips in a batch.
        num_frames: the largest number of frames of a clip.
        seed: the seed of orders, cuts and augmented views.
        augmentation: random changes of each clip; None for none.
        views: changed views of the clips that are ready, each a sequence in the order of the clips. Each time a clip
            comes, the clip or one of its views is drawn, all with the same probability.
        background: what some clips are joined with, so that the model learns from streams; None for no joined clips.
        part: which part of each batch comes, and of how many: (0, 1) for all of it.
    """

    clips: StoredClips
    size: int
    num_frames: int
    seed: int
    augmentation: Augmentation | None = None
    views: Sequence[Sequence[Tensor]] = ()
    background: Background | None = None
    part: tuple[int, int] = (0, 1)

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step."""
        places = part_of(range(step * self.size, (step + 1) * self.size), self.part)
        chosen = self._clips_at(places)
        frames = [self._view(index, place) for index, place in zip(chosen, places, strict=True)]
        targets, frame_targets = self.clips.targets[chosen], None
        if self.background is not None:
            joined = [
                self._joined(shown, int(target), index, place)
                for shown, target, index, place in zip(frames, targets, chosen, places, strict=True)
            ]
            frames, of_frames = [frames for frames, _ in joined], [classes for _, classes in joined]
            targets = torch.stack([classes[-1] for classes in of_frames])
            frame_targets = pad_sequence(of_frames, batch_first=True, padding_value=IGNORED)
        stacked, lengths = padded(frames)
        return ClipBatch(stacked, targets, lengths, frame_targets=frame_targets).to(self.clips.device)

    def to(self, device: torch.device | str) -> StoredBatches:
        """Return the same batches on a device."""
        return replace(self, clips=self.clips.to(device))

    def shard(self, number: int, num: int) -> StoredBatches:
        """Return batches of part `number` of `num` of each batch."""
        return replace(self, part=(number, num))

    @property
    def epoch_size(self) -> int:
        """The number of clips in an epoch, in which clips of rare classes come more than once."""
        return round(float(self._repeats.sum()))

    @cached_property
    def _repeats(self) -> NDArray[np.float64]:
        """How often each clip comes in an epoch, on average."""
        targets, num_classes = self.clips.targets, len(self.clips.labels.names)
        present = (targets if targets.dim() == 2 else F.one_hot(targets, num_classes)).bool().numpy()
        counts = present.sum(0)
        of_class = np.sqrt(counts.max() / np.maximum(counts, 1))
        repeats: NDArray[np.float64] = np.where(present, of_class, 1.0).max(1)
        return repeats

    def _clips_at(self, places: Sequence[int]) -> list[int]:
        """Return the clips at places in the sequence of all clips."""
        orders: dict[int, NDArray[np.intp]] = {}
        chosen = []
        for place in places:
            epoch, at = divmod(place, self.epoch_size)
            if epoch not in orders:
                orders[epoch] = self._order(epoch)
            chosen.append(int(orders[epoch][at]))
        return chosen

    def _view(self, index: int, place: int) -> Tensor:
        """Return what a batch shows of a clip at a place in the sequence of all clips."""
        clip = self._version(index, place)
        room = len(clip) - self.num_frames
        start = int(_generator(self.seed, 1, place).integers(room + 1)) if room > 0 else 0
        return self._augmented(clip[start : start + self.num_frames], self.num_frames, index, place)

    def _joined(self, shown: Tensor, target: int, index: int, place: int) -> tuple[Tensor, Int64[Tensor, "time"]]:
        """Return a clip, perhaps with background that is changed in the same way, and the class of each frame."""

        def part(clip: int, start: float, most: int) -> Tensor:
            frames = self._version(clip, place)
            first = int(start * ((len(frames) + 1) // 2))
            return self._augmented(frames[first : first + most], most, index, place)

        assert self.background is not None
        return self.background.joined(shown, target, self.num_frames, part, _generator(self.seed, 3, place))

    def _augmented(self, cut: Tensor, most: int, index: int, place: int) -> Tensor:
        """Return a part of a clip with the change of a place, `most` frames at most: slowed down, it becomes longer."""
        if self.augmentation is None:
            return cut
        return self.augmentation.augmented(cut, view_generator(self.seed, index, place))[:most]

    def _version(self, index: int, place: int) -> Tensor:
        """Return a clip or one of its views."""
        versions = (self.clips.frames, *self.views)
        number = int(_generator(self.seed, 2, place).integers(len(versions))) if self.views else 0
        return versions[number][index]

    def _order(self, epoch: int) -> NDArray[np.intp]:
        generator = _generator(self.seed, 0, epoch)
        order = generator.permutation(len(self.clips))
        if self.epoch_size == len(order):
            return order
        # Evenly spaced points on a line on which each clip has a part as long as it comes often.
        ends = np.cumsum(self._repeats[order])
        points = (generator.random() + np.arange(self.epoch_size)) * (ends[-1] / self.epoch_size)
        chosen = order[np.searchsorted(ends, points, side="right").clip(max=len(order) - 1)]
        return generator.permutation(chosen)


def _generator(*counters: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(counters)))


class StoredData:
    """Clips in memory, split for training and test, which a script passes to `saccade.train.train`.

    Args:
        train: the clips to train on.
        test: the clips to test on; training never uses them.
        validation: the clips to choose settings by; test clips must not be used for this.
        num_frames: the largest number of frames of a training clip.
        name: the name of the clips in result files.

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
        """The frames that a model for these clips expects: their channels and size."""
        channels, height, width = self.clips("train").frames[0].shape[1:]
        return FrameFormat(channels, (height, width))

    @property
    def facts(self) -> dict[str, Any]:
        """A description of the clips, as columns of a result row."""
        return {"data": self.name}

    def parts(self) -> list[StoredData]:
        """Return one part with all clips."""
        return [self]

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> StoredData:
        """Return the data itself; its test split holds the clips that training never uses."""
        return self

    def clips(self, split: str) -> StoredClips:
        """Return the clips of a split.

        Raises:
            UsageError: if the split has no clips.
        """
        if (found := self._parts.get(split)) is None:
            raise UsageError(f"there are no clips for {split}; pass some to StoredData")
        return replace(found, facts={**found.facts, **self.facts, "split": split})

    def batches(self, size: int, seed: int) -> StoredBatches:
        """Return training batches of `size` clips."""
        return StoredBatches(self.clips("train"), size, self.num_frames, seed)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that a checkpoint stores; the clips themselves are not stored."""
        return {"kind": self.KIND, "name": self.name, "num_frames": self.num_frames}

    def identity(self) -> dict[str, Any]:
        """Return the facts that must not change when training continues."""
        return self.as_json() | {"num_clips": len(self.clips("train"))}
