"""Clips with labels: what models see and learn from, wherever it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from saccade import files, foreign
from saccade.labels import Labels, Targets

Frames = UInt8[Tensor, "*any channels height width"] | Float[Tensor, "*any channels height width"]
Size = tuple[int, int]
CPU = torch.device("cpu")

SHORT_SIDE_PX = 64
# From 28 px on a model sees anything, and up to 128 px a frame is taken to be drawn at the scale that the model knows.
MIN_PX, MAX_KEPT_PX, MAX_PX = 28, 128, 256
MAX_FRAME_PX = 8192


@dataclass(frozen=True)
class FrameFormat:
    """What a model wants of a frame.

    *Conventions:* sizes are (height, width) in pixels; mean and deviation are of pixels in [0, 1], one number for all
    channels or one each.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: every frame is resized to it. None keeps frames of 28 to 128 px as they are; others keep their proportions
            and are resized until the shorter side is 64 px and the longer at most 256.
        mean: what is subtracted from pixels.
        std: what they are divided by then.
        fps: the rate that the model learned at; files and cameras are brought to it by time stamps. None: as they come.

    Raises:
        ValueError: numbers that no frame has, or that are not one for each channel.
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
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps is {self.fps}; a number above 0 is needed")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is {values}; one finite number, or one for each of {self.channels} channels")
        if not all(self.std):
            raise ValueError(f"std is {self.std}; what pixels are divided by must not be 0")

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> FrameFormat:
        """Return what `as_json` described.

        Raises:
            TypeError, ValueError: it describes no frame format.
        """
        foreign.check_types(described, cls)
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in described.items()
        }
        return cls(**read)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)

    def fit(self, size: Size) -> Size:
        """Return the size at which the model sees a frame.

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
        """Bring pixels to what the model's first layer gets; uint8 is in [0, 255], float in [0, 1]."""
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
    """Where things are in every frame.

    *Conventions:* positions are (y, x) in pixels, the centre of the upper left pixel is (0, 0); angles count
    counter-clockwise as seen on the screen; boxes are (top, left, bottom, right) around what shows, cut to the frame,
    bottom and right exclusive, all zero where nothing shows. What a clip lacks has thing and instance -1.

    Args:
        centre_px: of each thing.
        angle_deg: of each thing.
        scale: of each thing; 1 is its own size.
        box_px: around each thing.
        thing: what each is.
        instance: which one of its kind.
    """

    centre_px: Float[Tensor, "batch time things 2"]
    angle_deg: Float[Tensor, "batch time things"]
    scale: Float[Tensor, "batch time things"]
    box_px: Int64[Tensor, "batch time things 4"] | Float[Tensor, "batch time things 4"]
    thing: Int64[Tensor, "batch things"]
    instance: Int64[Tensor, "batch things"]

    @property
    def present(self) -> Bool[Tensor, "batch things"]:
        """Which of the things a clip has."""
        return self.thing >= 0

    def map(self, change: Callable[[Tensor], Tensor]) -> Poses:
        """Return the poses with every tensor changed, for instance moved to a device or cut to some of the clips."""
        return Poses(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True)
class ClipBatch:
    """Clips with their targets.

    Args:
        frames: the clips; shorter ones are padded at the end with anything.
        targets: of the clips, as `Labels` has them.
        lengths: number of frames that count in each clip; None counts all.
        poses: where things are, if that was asked for.
    """

    frames: UInt8[Tensor, "batch time channels height width"] | Float[Tensor, "batch time channels height width"]
    targets: Targets
    lengths: Int64[Tensor, "batch"] | None = None
    poses: Poses | None = None

    def to(self, device: torch.device | str) -> ClipBatch:
        """Return the batch on a device."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        poses = None if self.poses is None else self.poses.map(lambda values: values.to(device))
        return ClipBatch(self.frames.to(device), self.targets.to(device), lengths, poses)

    @property
    def valid(self) -> Bool[Tensor, "batch time"] | None:
        """Which frames count; None counts all."""
        return None if self.lengths is None else valid_frames(self.lengths, self.frames.shape[1])


def as_float(frames: Frames) -> Float[Tensor, "*any channels height width"]:
    """Bring uint8 pixels to [0, 1]; leave float ones as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def valid_frames(lengths: Int64[Tensor, "batch"], num_frames: int) -> Bool[Tensor, "batch time"]:
    """Mark the frames that count.

    Raises:
        ValueError: a length outside 1 to `num_frames`.
    """
    if bool(((lengths < 1) | (lengths > num_frames)).any()):
        raise ValueError(f"lengths must lie in 1 to {num_frames}; got {lengths.tolist()}")
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def padded(clips: list[Tensor]) -> tuple[Tensor, Int64[Tensor, "batch"] | None]:
    """Stack clips of one frame size; shorter ones are padded with zeros, and lengths tell them apart.

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
        """What the clips are, as columns of a result row; `data` names them."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return some of the clips."""
        ...

    def to(self, device: torch.device | str) -> Clips:
        """Return the same clips; batches are then on `device`."""
        ...


@runtime_checkable
class LocatedClips(Clips, Protocol):
    """Clips that know where things are in them."""

    def located(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return some of the clips with their poses."""
        ...


class Batches(Protocol):
    """What a model learns from: each batch is a function of the step alone, so that training resumes exactly."""

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step; `num_steps` is the length of the training."""
        ...

    def to(self, device: torch.device | str) -> Batches:
        """Return the same batches on a device."""
        ...


class DataConfig(Protocol):
    """Where labelled clips come from; a checkpoint remembers it as JSON."""

    @property
    def labels(self) -> Labels:
        """The classes."""
        ...

    @property
    def frame_format(self) -> FrameFormat:
        """What a model for these clips wants of a frame."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a model trained on it learned from, as `Clips.facts` has it."""
        ...

    @property
    def default_input(self) -> str:
        """What of the frames a model for these clips sees best, one of `models.INPUTS`."""
        ...

    def parts(self) -> Sequence[DataConfig]:
        """Return the parts that are measured separately, such as conditions; usually one part with all clips."""
        ...

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> DataConfig:
        """Return the standard test of a model that learned from this.

        Args:
            learned: the facts of its training.
            seed: of its training.
            given: fields that shall be otherwise.
        """
        ...

    def clips(self, split: str) -> Clips:
        """Return the clips of a split: train, validation or test."""
        ...

    def batches(self, size: int, seed: int) -> Batches:
        """Return training batches of so many clips, drawn by a seed."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them, and under `kind` which configuration it is."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for training to continue on the same clips, wherever they are now."""
        ...
