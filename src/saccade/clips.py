"""Labelled clips, the frame format of models, and the protocols that every data set implements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from saccade import files, foreign
from saccade.labels import FrameTargets, Labels, Targets

Frames = UInt8[Tensor, "*any channels height width"] | Float[Tensor, "*any channels height width"]
Size = tuple[int, int]
CPU = torch.device("cpu")

SHORT_SIDE_PX = 64
# A model needs frames of at least 28 px. Frames of at most 128 px are assumed to have the scale of training clips.
MIN_PX, MAX_KEPT_PX, MAX_PX = 28, 128, 256
MAX_FRAME_PX, MIN_FPS, MAX_FPS = 4096, 0.01, 1000


@dataclass(frozen=True)
class FrameFormat:
    """The frames that a model expects.

    *Conventions:* sizes are (height, width) in pixels. Mean and standard deviation are those of pixels in [0, 1]: one
    number for all channels, or one per channel.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: the size to which every frame is resized. None keeps frames of 28 to 128 px as they are; other frames are
            resized in proportion until the shorter side is 64 px, with the longer side limited to 256 px.
        mean: the mean, which is subtracted from pixels.
        std: the standard deviation, by which pixels are then divided.
        fps: the frame rate of the training clips; files and cameras are resampled to it by time stamps. None: frames
            are not resampled.

    Raises:
        ValueError: if no frame can have the value, or mean or std have neither one value nor one per channel.
    """

    channels: int = 1
    size: Size | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels is {self.channels}; at least 1 is needed")
        if self.size is not None and not all(1 <= edge <= MAX_FRAME_PX for edge in self.size):
            raise ValueError(f"size is {self.size}; (height, width) from 1 to {MAX_FRAME_PX} px is needed")
        if self.fps is not None and not MIN_FPS <= self.fps <= MAX_FPS:
            raise ValueError(f"fps is {self.fps}; a number from {MIN_FPS} to {MAX_FPS} is needed")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is {values}; give 1 finite number, or {self.channels}, one per channel")
        if not all(self.std):
            raise ValueError(f"std is {self.std}; pixels are divided by it, so that no value may be 0")

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> FrameFormat:
        """Create the frame format from the result of `as_json`.

        Raises:
            TypeError, ValueError: if `described` does not describe a frame format.
        """
        foreign.check_types(described, cls)
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in described.items()
        }
        return cls(**read)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return files.json_fields(self)

    def fit(self, size: Size) -> Size:
        """Return the size to which a frame of the given size is resized.

        >>> [FrameFormat().fit(size) for size in ((64, 96), (240, 320), (18, 32))]
        [(64, 96), (64, 85), (64, 114)]
        >>> FrameFormat(size=(64, 64)).fit((240, 320))
        (64, 64)
        """
        if self.size is not None:
            return self.size
        if min(size) >= MIN_PX and max(size) <= MAX_KEPT_PX:
            return size
        zoom = SHORT_SIDE_PX / min(size)
        height, width = (min(round(edge * zoom), MAX_PX) for edge in size)
        return height, width

    def normalise(self, frames: Frames) -> Float[Tensor, "*any channels height width"]:
        """Return the input of the model's first layer for pixels, uint8 in [0, 255] or float in [0, 1]."""
        levels = as_float(frames)
        if self._is_plain:
            return levels
        return (levels - self._per_channel(self.mean, levels)) / self._per_channel(self.std, levels)

    def restore(
        self, levels: Float[Tensor, "*any channels height width"]
    ) -> Float[Tensor, "*any channels height width"]:
        """Undo `normalise`: return pixels in [0, 1]."""
        if self._is_plain:
            return levels
        return levels * self._per_channel(self.std, levels) + self._per_channel(self.mean, levels)

    @property
    def _is_plain(self) -> bool:
        return not any(self.mean) and all(value == 1 for value in self.std)

    @staticmethod
    def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values).view(-1, 1, 1)


@dataclass(frozen=True)
class Poses:
    """The position, angle and scale of each thing in every frame.

    *Conventions:* positions are (y, x) in pixels; the centre of the upper left pixel is (0, 0). Angles are
    counter-clockwise as seen on the screen. Boxes are (top, left, bottom, right) around the visible part, clipped to
    the frame; bottom and right are exclusive; a box without a visible part is all zero. A thing that is absent from a
    clip has thing and instance -1.

    Args:
        centre_px: the centre of each thing.
        angle_deg: the angle of each thing.
        scale: the scale of each thing; 1 is its original size.
        box_px: the box around each thing.
        thing: the kind of each thing, such as the digit 0 to 9.
        instance: the index of the example that each thing shows, such as a digit image.
    """

    centre_px: Float[Tensor, "batch time things 2"]
    angle_deg: Float[Tensor, "batch time things"]
    scale: Float[Tensor, "batch time things"]
    box_px: Int64[Tensor, "batch time things 4"] | Float[Tensor, "batch time things 4"]
    thing: Int64[Tensor, "batch things"]
    instance: Int64[Tensor, "batch things"]

    @property
    def present(self) -> Bool[Tensor, "batch things"]:
        """A mask of the things that each clip shows."""
        return self.thing >= 0

    def map(self, change: Callable[[Tensor], Tensor]) -> Poses:
        """Return the poses with `change` applied to every tensor, for instance to move it to a device."""
        return Poses(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True)
class ClipBatch:
    """Clips with their targets.

    Args:
        frames: the clips; shorter clips are padded at the end with arbitrary values.
        targets: the targets of the clips, as `Labels` expects them; of clips that change their class, those at the end.
        lengths: the number of valid frames in each clip; None means that all frames are valid.
        poses: the poses of the things in the clips, if requested.
        frame_targets: the targets of the frames; None if those of the clips hold at every frame.
    """

    frames: UInt8[Tensor, "batch time channels height width"] | Float[Tensor, "batch time channels height width"]
    targets: Targets
    lengths: Int64[Tensor, "batch"] | None = None
    poses: Poses | None = None
    frame_targets: FrameTargets | None = None

    def to(self, device: torch.device | str) -> ClipBatch:
        """Return the batch on a device."""
        lengths, frame_targets = (
            part if part is None else part.to(device) for part in (self.lengths, self.frame_targets)
        )
        poses = None if self.poses is None else self.poses.map(lambda values: values.to(device))
        return ClipBatch(self.frames.to(device), self.targets.to(device), lengths, poses, frame_targets)

    @property
    def valid(self) -> Bool[Tensor, "batch time"] | None:
        """A mask of the valid frames; None means that all frames are valid."""
        return None if self.lengths is None else valid_frames(self.lengths, self.frames.shape[1])


def as_float(frames: Frames) -> Float[Tensor, "*any channels height width"]:
    """Return uint8 pixels as float in [0, 1]; return float pixels unchanged."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def valid_frames(lengths: Int64[Tensor, "batch"], num_frames: int) -> Bool[Tensor, "batch time"]:
    """Return a mask of the frames within the length of each clip.

    Raises:
        ValueError: if a length is outside 1 to `num_frames`.
    """
    if bool(((lengths < 1) | (lengths > num_frames)).any()):
        raise ValueError(f"lengths must lie in 1 to {num_frames}; got {lengths.tolist()}")
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def padded(clips: list[Tensor]) -> tuple[Tensor, Int64[Tensor, "batch"] | None]:
    """Stack clips of one frame size, padded with zeros; return them with their lengths, or None if those are equal.

    >>> frames, lengths = padded([torch.ones(2, 1, 4, 4), torch.ones(3, 1, 4, 4)])
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 3, 1, 4, 4]), [2, 3])
    """
    lengths = [len(clip) for clip in clips]
    if len(set(lengths)) == 1:
        return torch.stack(clips), None
    frames = clips[0].new_zeros(len(clips), max(lengths), *clips[0].shape[1:])
    for row, clip in zip(frames, clips, strict=True):
        row[: len(clip)] = clip
    return frames, torch.tensor(lengths, device=frames.device)


class Clips(Protocol):
    """A finite set of labelled clips."""

    @property
    def labels(self) -> Labels:
        """The classes."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """A description of the clips, as columns of a result row; the column `data` holds their name."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return the clips at `indices`."""
        ...

    def to(self, device: torch.device | str) -> Clips:
        """Return the same clips, with batches on `device`."""
        ...


@runtime_checkable
class LocatedClips(Clips, Protocol):
    """Clips with known poses of the things that they show."""

    def located(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return the clips at `indices`, with poses."""
        ...


class Batches(Protocol):
    """Training batches; each is a function of the step alone, so that training resumes exactly."""

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of `step`, in a training of `num_steps` steps."""
        ...

    def to(self, device: torch.device | str) -> Batches:
        """Return the same batches on a device."""
        ...


def part_of(whole: range, part: tuple[int, int]) -> range:
    """Return part `number` of `num` of a range; parts cover all, each place once, and differ by one at most.

    >>> part_of(range(10, 17), (1, 3))
    range(12, 14)
    """
    number, num = part
    return whole[len(whole) * number // num : len(whole) * (number + 1) // num]


@runtime_checkable
class ShardableBatches(Batches, Protocol):
    """Training batches that can be divided among processes."""

    def shard(self, number: int, num: int) -> ShardableBatches:
        """Return batches of part `number` of `num` of each batch; the parts together are the whole batch, in order."""
        ...


class DataConfig(Protocol):
    """The source of labelled clips; a checkpoint stores it as JSON."""

    @property
    def labels(self) -> Labels:
        """The classes."""
        ...

    @property
    def frame_format(self) -> FrameFormat:
        """The frames that a model for these clips expects."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """A description of the training data, as columns of a result row; see `Clips.facts`."""
        ...

    @property
    def default_input(self) -> str:
        """The recommended input of a model for these clips, one of `models.INPUTS`."""
        ...

    def parts(self) -> Sequence[DataConfig]:
        """Return the parts that are evaluated separately, for example one per condition; usually there is one part."""
        ...

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> DataConfig:
        """Return the standard test of a model that was trained with this configuration.

        Args:
            learned: the facts of the training data.
            seed: the seed of the training.
            given: the fields to override.
        """
        ...

    def clips(self, split: str) -> Clips:
        """Return the clips of a split: train, validation or test."""
        ...

    def batches(self, size: int, seed: int) -> Batches:
        """Return training batches of `size` clips, drawn with `seed`."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types; the entry `kind` names the type of configuration."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the facts that must not change when training continues; the location of the clips may change."""
        ...
