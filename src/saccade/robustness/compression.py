"""Compress a clip with H.264 in memory, and decode it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MAX_CRF = 51
"""The constant rate factor of the lowest quality."""

Planes = tuple[NDArray[np.uint8], ...]

_NO_COLOUR = 128
# ITU-R BT.601 in full range, as in JPEG: luma and two colour differences of red, green and blue.
_TO_YCC = torch.tensor(((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))
_TO_RGB = torch.linalg.inv(_TO_YCC)


def compressed(
    frames: UInt8[Tensor, "time channels height width"], crf: float
) -> UInt8[Tensor, "time channels height width"]:
    """Return a clip as it comes back from H.264; the same clip and quality give the same bits on one machine.

    Levels have the full range. Colour is stored at half resolution, but for frames of odd size.

    Args:
        frames: the clip, grey or RGB.
        crf: the constant rate factor, from 0 (best) to `MAX_CRF`; cameras and video sites use about 18 to 35.
    """
    height, width = frames.shape[-2:]
    # Planes are made here: libswscale leaves columns at the right edge of planes unwritten, at many widths.
    shrink = 1 if height % 2 or width % 2 else 2
    planes = [plane.numpy() for plane in _planes(frames.cpu(), shrink)]
    pictures = zip(*planes, strict=True)
    pixels = "yuvj444p" if shrink == 1 else "yuvj420p"
    coded = [torch.from_numpy(np.stack(plane)) for plane in zip(*_coded(pictures, pixels, crf), strict=True)]
    return _pixels(coded, frames.shape[1], shrink)


def _coded(pictures: Iterable[Planes], pixels: str, crf: float) -> Iterator[Planes]:
    """Encode pictures and yield them as they are decoded."""
    encoder, decoder = av.CodecContext.create("libx264", "w"), av.CodecContext.create("h264", "r")
    assert isinstance(encoder, VideoCodecContext)
    assert isinstance(decoder, VideoCodecContext)
    encoder.time_base, encoder.pix_fmt = Fraction(1, 15), pixels
    # As live cameras encode, without looking ahead: with that, x264 gives other bits each time for small frames.
    encoder.options = {"crf": f"{crf:g}", "preset": "veryfast", "tune": "zerolatency"}
    encoder.thread_count = decoder.thread_count = 1
    for index, picture in enumerate(pictures):
        if index == 0:
            encoder.height, encoder.width = picture[0].shape
        frame = av.VideoFrame(picture[0].shape[1], picture[0].shape[0], pixels)
        for plane, values in zip(frame.planes, picture, strict=True):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.pts, frame.time_base = index, encoder.time_base
        for packet in encoder.encode(frame):
            yield from map(_arrays, decoder.decode(packet))
    for packet in encoder.encode(None):
        yield from map(_arrays, decoder.decode(packet))
    yield from map(_arrays, decoder.decode(None))


def _arrays(frame: av.VideoFrame) -> Planes:
    return tuple(
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].copy()
        for plane in frame.planes
    )


def _planes(
    frames: UInt8[Tensor, "time channels height width"], shrink: int
) -> list[UInt8[Tensor, "time rows columns"]]:
    """Return luma and the two colour differences, these averaged over squares of `shrink` pixels."""
    if frames.shape[1] == 1:
        none = torch.full_like(frames[:, 0, ::shrink, ::shrink], _NO_COLOUR)
        return [frames[:, 0].contiguous(), none, none]
    levels = torch.einsum("cd,tdhw->tchw", _TO_YCC, frames.float())
    colour = F.avg_pool2d(levels[:, 1:], shrink) + _NO_COLOUR
    return [_as_bytes(plane) for plane in (levels[:, 0], colour[:, 0], colour[:, 1])]


def _pixels(
    planes: list[UInt8[Tensor, "time rows columns"]], channels: int, shrink: int
) -> UInt8[Tensor, "time channels height width"]:
    """Undo `_planes`."""
    luma = planes[0].unsqueeze(1)
    if channels == 1:
        return luma
    colour = torch.stack(planes[1:], 1).float() - _NO_COLOUR
    levels = torch.cat((luma.float(), F.interpolate(colour, scale_factor=shrink)), 1)
    return _as_bytes(torch.einsum("cd,tdhw->tchw", _TO_RGB, levels))


def _as_bytes(levels: Float[Tensor, "*any"]) -> UInt8[Tensor, "*any"]:
    return levels.round().clamp(0, 255).to(torch.uint8)
