"""Video files: read into clips, write from them.

Everything goes through PyAV, one thread, one frame at a time. Files are foreign data: one may be cut off or hold no
picture at all, and is closed whatever comes.
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
"""Endings of the files that count as clips in a folder; a file named outright may have any."""

_PIXELS = {1: "gray", 3: "rgb24"}
_WANTED = "uint8 (time, channels, height, width) with 1 or 3 channels"
# Constant rate factor 1 is the best that every player's H.264 profile has; 0 would be lossless and plays in few.
_H264 = {"crf": "1", "preset": "ultrafast"}
MAX_GIF_FPS = 50
_ROUNDING = 0.1  # of a period
_PACKETS_FOR_RATE = 1000
# Compressed grey video has colours that are off by a level or two.
_GREY_TOLERANCE = 3


@dataclass(frozen=True)
class Clip:
    """A clip and what is known of where it came from.

    Args:
        frames: the pixels, uint8 in [0, 255].
        fps: average frames per second; None where the file does not say.
        warning: one line if the file is damaged and only a part could be read.
    """

    frames: UInt8[Tensor, "time channels height width"]
    fps: float | None = None
    warning: str | None = None


@dataclass(frozen=True)
class Description:
    """What a clip is by its first frame and its container.

    Args:
        size: (height, width) of a frame, as a player shows it.
        fps: average frames per second; None where the file does not say.
        grey: whether the frame has no colour but what compression adds.
    """

    size: tuple[int, int]
    fps: float | None
    grey: bool


def is_named_as_clip(path: Path) -> bool:
    """Tell whether a file in a folder is to be read as a clip, by its ending.

    TypeScript has the ending of transport streams; these begin with a byte of their own.
    """
    ending = path.suffix.lower()
    if ending != ".ts":
        return ending in SUFFIXES
    with path.open("rb") as file:
        return file.read(1) == b"G"


def describe(path: Path) -> Description:
    """Tell size, rate and colour of a clip without reading all of it.

    Raises:
        DataError: as `read_clip`.
    """
    first = read_clip(path, num_channels=3, max_frames=1).frames
    height, width = first.shape[-2:]
    levels = first.int()
    grey = int((levels.amax(1) - levels.amin(1)).max()) <= _GREY_TOLERANCE
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

    *Conventions:* frames stand as a player would show them: turned and mirrored as the file's display matrix says.
    Non-square pixels are not stretched and transparency is ignored. Grey is luma in [0, 255]. An `.npz` file holds
    `frames`, uint8, (time, channels, height, width) or (time, height, width).

    Args:
        path: the file.
        size: (height, width) that every frame is resized to; None keeps the size of the first frame.
        num_channels: 1 for grey, 3 for RGB.
        max_frames: stop after so many frames; None reads all.
        fps: frames a second that are wanted: by the time stamps, the frame that a player shows at each moment. None
            takes all frames. An `.npz` file has no time stamps, and is read whole.

    Raises:
        DataError: no such file, not a video, only sound, or no frame that can be decoded.

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
    convert = _Converter(size, _PIXELS[num_channels])
    if _is_npz(path):
        with closing(npz.read_frames(path)) as frames:
            return Clip(_time_first(convert.stack(map(_as_frame, islice(frames, max_frames)))))
    with opened(path) as container:
        return _read_video(Decoder(container, path), path, convert, max_frames, fps)


def write_mp4(path: Path, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
    """Write a clip as H.264 that every player and browser shows, all but lossless for grey frames.

    Grey is written in full range, so that no level is lost to rounding; colour is stored at half resolution. Odd sizes
    take 4:4:4, which not every player shows. The file appears whole, and the same frames give the same bytes.

    Raises:
        ValueError: no frames, or not uint8 with 1 or 3 channels.
        OSError: the file cannot be written.
    """
    odd = frames.shape[-2] % 2 or frames.shape[-1] % 2
    pixels, scaler = "yuvj444p" if odd else "yuvj420p", VideoReformatter()
    shown = [scaler.reformat(f, format=pixels, dst_color_range="JPEG", threads=1) for f in _as_av(frames)]
    _write(path, _muxed(shown, fps, "mp4", "libx264", _H264))


def write_gif(path: Path, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
    """Write a clip as an endless GIF.

    Grey frames keep all 256 levels exactly; RGB frames share the 256 colours that suit them best, without dithering.

    Raises:
        ValueError: no frames, or not uint8 with 1 or 3 channels; above 50 frames a second, which no GIF shows.
        OSError: the file cannot be written.
    """
    if fps > MAX_GIF_FPS:
        raise ValueError(f"fps is {fps}; a GIF shows at most {MAX_GIF_FPS} frames a second")
    shown = list(_as_av(frames))
    _write(path, _muxed(shown if frames.shape[1] == 1 else _with_palette(shown), fps, "gif", "gif"))


def write_png(path: Path, image: UInt8[Tensor, "channels height width"]) -> None:
    """Write a grey or RGB image.

    Raises:
        ValueError: not uint8 with 1 or 3 channels.
        OSError: the file cannot be written.
    """
    (frame,) = _as_av(image.unsqueeze(0))
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = frame.height, frame.width
    encoder.pix_fmt, encoder.time_base = frame.format.name, Fraction(1)
    _write(path, b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None))))


class _Converter:
    """Bring frames of any format to one size and pixel format; the scaler's tables are made once for all."""

    def __init__(self, size: tuple[int, int] | None, pixels: str) -> None:
        self.size, self.pixels, self.scaler = size, pixels, VideoReformatter()

    def stack(self, frames: Iterable[av.VideoFrame]) -> NDArray[np.uint8]:
        """Convert and stack frames; without a size, the first one's is that of all."""
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
    """Return how a player shows a frame: whether rows become columns, and which axes are flipped then.

    The file's display matrix says so; angles between quarter turns are taken for the nearest.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
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
    return Clip(_time_first(frames), fps or decoder.fps, None if stopped else decoder.damage())


def _at_rate(frames: Iterable[av.VideoFrame], fps: float) -> Iterator[av.VideoFrame]:
    """Give the frame that a player shows at each multiple of a period, from the first frame's time on."""
    start: float | None = None
    shown: av.VideoFrame | None = None
    due, at = 0, 0.0  # periods since the first frame: of what comes next, and of the frame that came last
    for frame in frames:
        if frame.time is None:  # nothing tells when it is shown
            yield frame
            continue
        start = frame.time if start is None else start
        if shown is not None and abs((frame.time - start) * fps - at) > LONGEST_STILL_S * fps:
            start = frame.time - (at + 1) / fps  # time stamps are claims: one that leaps is taken for the next period
        at = max(at, (frame.time - start) * fps)
        # Containers round time stamps, to hundredths of a second at worst.
        while shown is not None and due < at - _ROUNDING:
            yield shown
            due += 1
        shown = frame
    if shown is not None and due <= at + _ROUNDING:
        yield shown


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
    """Bring RGB frames to 256 colours, chosen once for all of them."""
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
    # Into memory: PyAV does not tell when closing a file fails, and a full disk must be told of.
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
    if not 0.01 <= fps <= 1000:
        raise ValueError(f"fps is {fps}; a number from 0.01 to 1000 is needed")
    return Fraction(fps).limit_denominator(1000)


def _write(path: Path, content: bytes) -> None:
    with files.whole(path) as temporary:
        temporary.write_bytes(content)
