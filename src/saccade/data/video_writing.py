"""Write clips and images to files: MP4 for players and browsers, GIF and PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from saccade import files
from saccade.clips import MAX_FPS, MIN_FPS

MAX_GIF_FPS = 50
# Constant rate factor 1 is the best quality that all players support; 0 is lossless, and few players support it.
_H264 = {"crf": "1", "preset": "ultrafast"}
_PIXELS = {1: "gray", 3: "rgb24"}
_WANTED = "uint8 (time, channels, height, width) with 1 or 3 channels"


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


def _as_av(frames: UInt8[Tensor, "time channels height width"]) -> Iterator[av.VideoFrame]:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] not in _PIXELS or not frames.numel():
        raise ValueError(f"frames are {frames.dtype} of shape {tuple(frames.shape)}; {_WANTED} is needed")
    arrays = frames.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    pixels = _PIXELS[frames.shape[1]]
    return (av.VideoFrame.from_ndarray(a[..., 0] if a.shape[-1] == 1 else a, format=pixels) for a in arrays)


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
