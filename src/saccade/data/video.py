"""Read clips from video files, and write clips to them.

All files go through PyAV, with one thread and one frame at a time. Files are untrusted: a file may be truncated or hold
no frame. It is closed in every case.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.sidedata.sidedata import SideData
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from saccade import files
from saccade.clips import MAX_FPS, MIN_FPS
from saccade.data import npz
from saccade.data.container import ADVICE, LONGEST_STILL_S, Decoder, opened, rate
from saccade.errors import DataError

SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v"),
        *(".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".npz", ".nut", ".ogv", ".qt", ".ts"),
        *(".vob", ".webm", ".wmv", ".y4m"),
    )
)
"""The suffixes of the files that count as clips in a folder; a file that is named explicitly may have any suffix."""

_PIXELS = {1: "gray", 3: "rgb24"}
_WANTED = "uint8 (time, channels, height, width) with 1 or 3 channels"
# Constant rate factor 1 is the best quality that all players support; 0 is lossless, and few players support it.
_H264 = {"crf": "1", "preset": "ultrafast"}
MAX_GIF_FPS = 50
_ROUNDING = 0.1  # of a period
_PACKETS_FOR_RATE = 1000
# Orientations of quarter turns counter-clockwise, as `_orientation` returns them.
_TURNS = ((False, ()), (True, (0,)), (False, (0, 1)), (True, (1,)))
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
    """

    frames: UInt8[Tensor, "time channels height width"]
    fps: float | None = None
    warning: str | None = None
    seconds: tuple[float, ...] | None = None


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
        with path.open("rb") as file:
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
    size: tuple[int, int] | None = None,
    num_channels: int = 1,
    max_frames: int | None = None,
    fps: float | None = None,
) -> Clip:
    """Read a clip from a video file, a GIF or an `.npz` file.

    *Conventions:* frames are rotated and mirrored by the file's display matrix, as a player shows them. Non-square
    pixels are not stretched, and transparency is ignored. Grey is luma in [0, 255]. An `.npz` file holds an array
    `frames` of uint8, (time, channels, height, width) or (time, height, width).

    Args:
        path: the file.
        size: the (height, width) to which every frame is resized; None keeps the size of the first frame.
        num_channels: 1 for grey, 3 for RGB.
        max_frames: the largest number of frames to read; None reads all.
        fps: the frame rate to resample to: the clip has the frame that a player shows, by time stamps, at the start of
            each period. None reads all frames. An `.npz` file has no time stamps, and all its frames are read.

    Raises:
        DataError: if the file is missing, is not a video, holds only sound, or has no decodable frame.
        ValueError: if `num_channels` is neither 1 nor 3, or `max_frames` is below 1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_gif(Path(folder) / "a.gif", torch.zeros(5, 1, 32, 48, dtype=torch.uint8), fps=10)
    ...     clip = read_clip(Path(folder) / "a.gif", size=(64, 96))
    >>> clip.frames.shape, clip.fps
    (torch.Size([5, 1, 64, 96]), 10.0)
    """
    if num_channels not in _PIXELS:
        raise ValueError(f"num_channels is {num_channels}; 1 (grey) or 3 (RGB) is needed")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}; at least 1 is needed")
    if not path.is_file():
        raise DataError(f"no clip at {path}; {ADVICE}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    convert = _Converter(size, _PIXELS[num_channels])
    if _is_npz(path):
        with closing(npz.read_frames(path)) as frames:
            return Clip(_time_first(convert.stack(map(_as_frame, islice(frames, max_frames)))))
    with opened(path) as container:
        return _read_video(Decoder(container, path), path, convert, max_frames, fps)


def write_mp4(path: Path, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
    """Write a clip as H.264 that every player and browser shows, nearly lossless for grey frames.

    Grey is written in full range, so that rounding loses no level. Colour is stored at half resolution. Frames of odd
    size are stored as 4:4:4, which some players do not show. The file is written atomically, and the same frames give
    the same bytes.

    Raises:
        ValueError: if there are no frames, or they are not uint8 with 1 or 3 channels.
        OSError: if the file cannot be written.
    """
    odd = frames.shape[-2] % 2 or frames.shape[-1] % 2
    pixels, scaler = "yuvj444p" if odd else "yuvj420p", VideoReformatter()
    shown = [scaler.reformat(f, format=pixels, dst_color_range="JPEG", threads=1) for f in _as_av(frames)]
    _write(path, _muxed(shown, fps, "mp4", "libx264", _H264))


def write_gif(path: Path, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
    """Write a clip as a GIF that repeats endlessly.

    Grey frames keep all 256 levels exactly. RGB frames share one palette of 256 colours, without dithering.

    Raises:
        ValueError: if there are no frames, they are not uint8 with 1 or 3 channels, or `fps` is above 50, the maximum
            for GIFs.
        OSError: if the file cannot be written.
    """
    if fps > MAX_GIF_FPS:
        raise ValueError(f"fps is {fps}; a GIF shows at most {MAX_GIF_FPS} frames a second")
    shown = list(_as_av(frames))
    _write(path, _muxed(shown if frames.shape[1] == 1 else _with_palette(shown), fps, "gif", "gif"))


def write_png(path: Path, image: UInt8[Tensor, "channels height width"]) -> None:
    """Write a grey or RGB image as a PNG file.

    Raises:
        ValueError: if the image is not uint8 with 1 or 3 channels.
        OSError: if the file cannot be written.
    """
    (frame,) = _as_av(image.unsqueeze(0))
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = frame.height, frame.width
    encoder.pix_fmt, encoder.time_base = frame.format.name, Fraction(1)
    _write(path, b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None))))


class _Converter:
    """Convert frames of any format to one size and pixel format; the tables of the scaler are made only once."""

    def __init__(self, size: tuple[int, int] | None, pixels: str) -> None:
        self.size, self.pixels, self.scaler = size, pixels, VideoReformatter()

    def stack(self, frames: Iterable[av.VideoFrame]) -> NDArray[np.uint8]:
        """Convert and stack frames; without a given size, all frames take the size of the first."""
        arrays = [self._array(frame) for frame in frames]
        return np.stack(arrays) if arrays else np.empty((0, 0, 0), np.uint8)

    def _array(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        transposed, flips = _orientation(frame)
        if self.size is None:
            self.size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
        height, width = reversed(self.size) if transposed else self.size
        array = self.scaler.reformat(frame, width, height, self.pixels, threads=1).to_ndarray()
        return np.flip(array.swapaxes(0, 1) if transposed else array, flips)


def _orientation(frame: av.VideoFrame) -> tuple[bool, tuple[int, ...]]:
    """Return how a player orients a frame: whether rows become columns, and which axes are then flipped.

    The orientation follows from the file's display matrix; other angles are rounded to the nearest quarter turn.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data, such as EXIF
        return _TURNS[round(frame.rotation / 90) % 4]
    if not isinstance(matrix, SideData):
        return False, ()
    # x' = a x + c y and y' = b x + d y, with y downwards.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    to_x, to_y = (c, b) if transposed else (a, d)
    return transposed, tuple(axis for axis, sign in enumerate((to_y, to_x)) if sign < 0)


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _read_video(decoder: Decoder, path: Path, convert: _Converter, max_frames: int | None, fps: float | None) -> Clip:
    try:
        frames = convert.stack(islice(decoder if fps is None else _at_rate(decoder, fps), max_frames))
    except (ValueError, av.FFmpegError) as error:
        raise DataError(f"{path} holds a frame that cannot be converted ({error}); encode the file again") from error
    if not len(frames):
        raise decoder.nothing()
    stopped = len(frames) == max_frames
    seconds = decoder.seconds if fps is None else tuple(number / fps for number in range(len(frames)))
    return Clip(_time_first(frames), fps or decoder.fps, None if stopped else decoder.damage(), seconds)


def _at_rate(frames: Iterable[av.VideoFrame], fps: float) -> Iterator[av.VideoFrame]:
    """Yield the frame that a player shows at each multiple of a period after the time of the first frame."""
    start: float | None = None
    shown: av.VideoFrame | None = None
    due, at = 0, 0.0  # in periods since the first frame: the next frame to yield, and the last frame that was read
    for frame in frames:
        if frame.time is None:  # its display time is unknown
            yield frame
            continue
        start = frame.time if start is None else start
        if shown is not None and abs((frame.time - start) * fps - at) > LONGEST_STILL_S * fps:
            start = frame.time - (at + 1) / fps  # a time stamp that leaps is wrong: take the next period
        at = max(at, (frame.time - start) * fps)
        # Containers round time stamps, to hundredths of a second at worst.
        while shown is not None and due < at - _ROUNDING:
            yield shown
            due += 1
        shown = frame
    # The last frame is shown for its duration, and at least once.
    last = at + min(_duration_s(shown), LONGEST_STILL_S) * fps if shown is not None else at
    while shown is not None and (due <= at + _ROUNDING or due < last - _ROUNDING):
        yield shown
        due += 1


def _duration_s(frame: av.VideoFrame) -> float:
    return float((frame.duration or 0) * (frame.time_base or 0))


def _time_first(frames: NDArray[np.uint8]) -> UInt8[Tensor, "time channels height width"]:
    clip = torch.from_numpy(frames)
    return clip.unsqueeze(1) if clip.ndim == 3 else clip.permute(0, 3, 1, 2).contiguous()


def _as_av(frames: UInt8[Tensor, "time channels height width"]) -> Iterator[av.VideoFrame]:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] not in _PIXELS or not frames.numel():
        raise ValueError(f"frames are {frames.dtype} of shape {tuple(frames.shape)}; {_WANTED} is needed")
    arrays = frames.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return (_as_frame(array[..., 0] if frames.shape[1] == 1 else array) for array in arrays)


def _as_frame(array: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(array, format=_PIXELS[1 if array.ndim == 2 else 3])


def _with_palette(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """Convert RGB frames to 256 colours, which are chosen once for all frames."""
    first, graph = frames[0], av.filter.Graph()
    source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=Fraction(1))
    split, sink = graph.add("split"), graph.add("buffersink")
    choose, use = graph.add("palettegen", "reserve_transparent=0"), graph.add("paletteuse", "dither=none")
    source.link_to(split)
    split.link_to(choose, 0, 0)
    split.link_to(use, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, Fraction(1)
        graph.push(frame)
    graph.push(None)
    return [graph.vpull() for _ in frames]


def _muxed(
    frames: list[av.VideoFrame], fps: float, container_format: str, codec: str, options: dict[str, str] | None = None
) -> bytes:
    # Write to memory first: PyAV does not report errors on closing a file, such as a full disk.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=_rate(fps), options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, frames[0].format.name
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, 1 / _rate(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _rate(fps: float) -> Fraction:
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ValueError(f"fps is {fps}; a number from {MIN_FPS} to {MAX_FPS} is needed")
    return Fraction(fps).limit_denominator(1000)


def _write(path: Path, content: bytes) -> None:
    with files.whole(path) as temporary:
        temporary.write_bytes(content)
