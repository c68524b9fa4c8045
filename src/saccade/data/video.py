"""Read clips from video files.

All files go through PyAV, with one thread and one frame at a time. Files are untrusted: a file may be truncated or hold
no frame. It is closed in every case.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.data import members, npz
from saccade.data.container import ADVICE, decoding, rate
from saccade.data.pixels import Converter, Size
from saccade.data.reading import ArrayFrames, Frames, VideoFrames
from saccade.data.reading import Source as Source
from saccade.data.times import Part
from saccade.errors import DataError

SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v"),
        *(".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".npz", ".nut", ".ogv", ".qt", ".ts"),
        *(".vob", ".webm", ".wmv", ".y4m"),
    )
)
"""The suffixes of the files that count as clips in a folder; a file that is named explicitly may have any suffix."""

MAX_CLIP_BYTES = 1 << 31
"""The largest size of a clip that is read as a whole."""

_PACKETS_FOR_RATE = 1000
# Compression shifts the colours of grey video by a level or two.
_GREY_TOLERANCE = 3


@dataclass(frozen=True)
class Clip:
    """A clip, with the frame rate and the damage of its file.

    Args:
        frames: the pixels, uint8 in [0, 255].
        fps: average frames per second; None if it is unknown.
        warning: one line if the file is damaged and only a part could be read; else None.
        seconds: the display time of each frame, in seconds after the first; None if it is unknown.
        source: the properties of the video before its frames were resized and resampled; None if it is no file.
    """

    frames: UInt8[Tensor, "time channels height width"]
    fps: float | None = None
    warning: str | None = None
    seconds: tuple[float, ...] | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Description:
    """The properties of a clip, from its first frame and its container.

    Args:
        size: (height, width) of a frame, as a player shows it.
        fps: average frames per second; None if it is unknown.
        grey: whether the frame has no colours, apart from those that compression adds.
    """

    size: tuple[int, int]
    fps: float | None
    grey: bool


def is_named_as_clip(path: Path) -> bool:
    """Return whether a file in a folder counts as a clip by its suffix.

    Transport streams and TypeScript share the suffix `.ts`; the first byte of a transport stream tells them apart.
    """
    ending = path.suffix.lower()
    if ending != ".ts":
        return ending in SUFFIXES
    try:
        with members.opened(path) as file:
            return file.read(1) == b"G"
    except OSError:
        return True  # reading it tells why it cannot be read


def describe(path: Path) -> Description:
    """Return the size, rate and colour of a clip, without reading all of it.

    Raises:
        DataError: as for `read_clip`.
    """
    first = read_clip(path, num_channels=3, max_frames=1).frames
    height, width = first.shape[-2:]
    grey = int((first.amax(1) - first.amin(1)).max()) <= _GREY_TOLERANCE
    fps = None if _is_npz(path) else rate(path, num_packets=_PACKETS_FOR_RATE)
    return Description((height, width), fps, grey)


def read_clip(
    path: Path,
    *,
    size: Size | Callable[[Size], Size] | None = None,
    num_channels: int = 1,
    max_frames: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Clip:
    """Read a clip, or a part of it, from a video file, a GIF or an `.npz` file.

    *Conventions:* frames are rotated and mirrored by the file's display matrix, as a player shows them. Non-square
    pixels are not stretched, and transparency is ignored: the colours of transparent pixels are read as they are
    stored. Grey is luma in [0, 255]. A part holds what a player shows from `start_s` to `end_s`, by time stamps: its
    first frame may have begun before. An `.npz` file holds an array `frames` of uint8, (time, channels, height,
    width) or (time, height, width).

    Args:
        path: the file.
        size: the (height, width) to which every frame is resized; a function makes it from the size of the first frame;
            None keeps that size.
        num_channels: 1 for grey, 3 for RGB.
        max_frames: the largest number of frames to read; None reads all.
        fps: the frame rate to resample to: the clip has the frame that a player shows, by time stamps, at the start of
            each period. None reads all frames. An `.npz` file has no time stamps, and all its frames are read.
        start_s: where the part starts, in seconds after the first frame; None for the beginning.
        end_s: where the part ends; None for the end of the file.

    Raises:
        DataError: if the file is missing, is not a video, holds only sound, has no decodable frame in the part, or
            takes more than `MAX_CLIP_BYTES`.
        ValueError: if `num_channels` is neither 1 nor 3, `max_frames` is below 1, or the part has no length.

    >>> import tempfile
    >>> from saccade.data.video_writing import write_gif
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_gif(Path(folder) / "a.gif", torch.zeros(5, 1, 32, 48, dtype=torch.uint8), fps=10)
    ...     clip = read_clip(Path(folder) / "a.gif", size=(64, 96), start_s=0.2)
    >>> clip.frames.shape, clip.fps
    (torch.Size([3, 1, 64, 96]), 10.0)
    """
    chunks: deque[UInt8[Tensor, "time channels height width"]] = deque()
    seconds: list[float] | None = []
    num_bytes = 0
    with frames(
        path, size=size, num_channels=num_channels, max_frames=max_frames, fps=fps, start_s=start_s, end_s=end_s
    ) as read:
        for chunk in read:
            chunks.append(chunk)
            num_bytes += chunk.nbytes
            if num_bytes > MAX_CLIP_BYTES:
                raise _too_long(path, chunk)
            seconds = None if seconds is None or read.part_seconds is None else [*seconds, *read.part_seconds]
    moments = None if seconds is None else tuple(seconds)
    return Clip(_joined(chunks), read.fps, read.warning, moments, read.source)


def _too_long(path: Path, frame: UInt8[Tensor, "time channels height width"]) -> DataError:
    num, (height, width) = MAX_CLIP_BYTES // frame[0].nbytes, frame.shape[-2:]
    return DataError(
        f"{path} has more than {num} frames of {height}x{width} px, which take over {MAX_CLIP_BYTES >> 30} GiB;"
        " give a part of it, a smaller size or a lower frame rate"
    )


def _joined(
    chunks: deque[UInt8[Tensor, "time channels height width"]],
) -> UInt8[Tensor, "time channels height width"]:
    """Join chunks and empty the queue, so that memory holds each of them only once."""
    clip = torch.empty((sum(map(len, chunks)), *chunks[0].shape[1:]), dtype=torch.uint8)
    place = 0
    while chunks:
        chunk = chunks.popleft()
        clip[place : place + len(chunk)] = chunk
        place += len(chunk)
    return clip


@contextmanager
def frames(
    path: Path,
    *,
    size: Size | Callable[[Size], Size] | None = None,
    num_channels: int = 1,
    max_frames: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Iterator[Frames]:
    """Open a clip whose frames are read in constant memory; the file is closed behind the block.

    Args and errors are those of `read_clip`, but for the limit of memory; errors of the frames come as they are read.
    """
    if num_channels not in (1, 3):
        raise ValueError(f"num_channels is {num_channels}; 1 (grey) or 3 (RGB) is needed")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}; at least 1 is needed")
    part = Part(start_s or 0.0, math.inf if end_s is None else end_s)
    if not members.is_file(path):
        raise DataError(f"no clip at {path}; {ADVICE}")
    try:
        members.opened(path).close()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    convert = Converter(size, num_channels)
    if _is_npz(path):
        if not part.is_whole:
            raise DataError(f"{path} has no time stamps, so that no part of it can be read; give it whole")
        with closing(npz.read_frames(path)) as arrays:
            yield ArrayFrames(arrays, convert, max_frames)
    else:
        with decoding(path, part) as decoder:
            yield VideoFrames(decoder, path, convert, max_frames, fps)


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"
