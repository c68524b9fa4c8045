"""The frames of a clip, read in constant memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.container import Decoder
from saccade.data.pixels import Converter, Size
from saccade.data.times import at_rate
from saccade.errors import DataError

FRAMES_PER_PART = 32
_PART_BYTES = 1 << 26  # of large frames, a part has fewer

_Picture = tuple[NDArray[np.uint8], float | None]  # with its time in seconds after the first


@dataclass(frozen=True)
class Source:
    """The properties of a video as it was decoded, whatever size and rate its frames were converted to.

    Args:
        num_frames: the number of decoded frames, before they are resampled; of a part of a file, those of the part.
        duration_s: their display time in seconds; None if it is unknown.
        fps: their average number per second; None if it is unknown.
        size: (height, width) of the first frame, as a player shows it.
        codec: FFmpeg's name of the codec; "npz" for an `.npz` file.
        bit_rate_bps: bits of the video per second, without sound and container; None if it is unknown.
    """

    num_frames: int
    duration_s: float | None
    fps: float | None
    size: tuple[int, int]
    codec: str
    bit_rate_bps: float | None


class Frames(ABC):
    """The frames of a clip in parts of at most `FRAMES_PER_PART`; they can be read once.

    Attributes:
        part_seconds: the display time of each frame of the last part, in seconds after the first frame of all; None if
            it is unknown, and from then on.
        fps: as for `Clip`; like the next two, it is known when all parts have been read.
        warning: as for `Clip`.
        source: as for `Clip`.
    """

    def __init__(self, convert: Converter) -> None:
        self._convert = convert
        self.part_seconds: tuple[float, ...] | None = ()
        self.fps: float | None = None
        self.warning: str | None = None
        self.source: Source | None = None

    def __iter__(self) -> Iterator[UInt8[Tensor, "time channels height width"]]:
        last_s = 0.0
        for pictures in _in_parts(self._pictures()):
            moments = [moment_s for _, moment_s in pictures if moment_s is not None]
            if (
                self.part_seconds is None
                or len(moments) < len(pictures)
                or [last_s, *moments] != sorted([last_s, *moments])
            ):
                self.part_seconds = None
            else:
                self.part_seconds, last_s = tuple(moments), moments[-1]
            yield torch.from_numpy(np.stack([array for array, _ in pictures]))
        self._finish(self._convert.shown_size or (0, 0))

    @abstractmethod
    def _pictures(self) -> Iterator[_Picture]:
        """Yield the converted frames."""

    @abstractmethod
    def _finish(self, size: Size) -> None:
        """Set what is known when all frames have been read."""


class ArrayFrames(Frames):
    """The frames of an `.npz` file.

    Args:
        arrays: each (height, width) in grey or (height, width, 3) in RGB.
        convert: makes frames of the wanted size.
        max_frames: the largest number of frames; None for all.
    """

    def __init__(self, arrays: Iterable[NDArray[np.uint8]], convert: Converter, max_frames: int | None) -> None:
        super().__init__(convert)
        self._arrays, self._num_frames = islice(arrays, max_frames), 0

    def _pictures(self) -> Iterator[_Picture]:
        for array in self._arrays:
            self._num_frames += 1
            frame = av.VideoFrame.from_ndarray(array, format="gray" if array.ndim == 2 else "rgb24")
            yield self._convert(frame), None

    def _finish(self, size: Size) -> None:
        self.source = Source(self._num_frames, None, None, size, "npz", None)


class VideoFrames(Frames):
    """The frames of a video file.

    Args:
        decoder: the decoder of the file.
        path: the file, for messages.
        convert: makes frames of the wanted size.
        max_frames: the largest number of frames; None for all.
        fps: the frame rate to resample to; None for all frames.
    """

    def __init__(
        self, decoder: Decoder, path: Path, convert: Converter, max_frames: int | None, fps: float | None
    ) -> None:
        super().__init__(convert)
        self._decoder, self._path, self._max_frames, self._wanted_fps = decoder, path, max_frames, fps
        self._num_frames = 0

    def _pictures(self) -> Iterator[_Picture]:
        first_s: float | None = None
        for frame in islice(self._shown(), self._max_frames):
            first_s = frame.time if first_s is None else first_s
            if self._wanted_fps is not None:
                moment_s: float | None = self._num_frames / self._wanted_fps
            else:
                moment_s = None if frame.time is None or first_s is None else frame.time - first_s
            self._num_frames += 1
            yield self._converted(frame), moment_s
        if not self._num_frames:
            raise self._decoder.nothing()

    def _shown(self) -> Iterator[av.VideoFrame]:
        frames, fps = iter(self._decoder), self._wanted_fps
        if fps is None:
            return frames
        first = list(islice(frames, 1))  # tells the decoder where the part starts
        return at_rate(chain(first, frames), fps, self._decoder.start_s, self._decoder.num_periods(fps))

    def _converted(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        try:
            return self._convert(frame)
        except (ValueError, av.FFmpegError) as error:
            raise DataError(
                f"{self._path} holds a frame that cannot be converted ({error}); encode the file again"
            ) from error

    def _finish(self, size: Size) -> None:
        decoder = self._decoder
        self.fps = self._wanted_fps or decoder.fps
        self.warning = None if self._num_frames == self._max_frames else decoder.damage()
        self.source = Source(
            decoder.num_frames, decoder.duration_s, decoder.fps, size, decoder.codec, decoder.bit_rate_bps
        )


def _in_parts(pictures: Iterator[_Picture]) -> Iterator[list[_Picture]]:
    part: list[_Picture] = []
    for picture in pictures:
        part.append(picture)
        if len(part) == FRAMES_PER_PART or len(part) * picture[0].nbytes >= _PART_BYTES:
            yield part
            part = []
    if part:
        yield part
