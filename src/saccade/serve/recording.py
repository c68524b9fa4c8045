"""A recording of the page's camera: frames with time stamps, checked, and made into a clip of a constant rate."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor  # importing it would delay the page

FPS = 15
"""The frame rate of recorded clips, that at which training reads them."""

MAX_SHORT_PX, MAX_LONG_PX = 240, 480
"""The most pixels of the shorter and of the longer side of a recorded frame."""

SECONDS = (0.5, 10.0)
"""The shortest and the longest recording."""

_MIN_PX = 28
# The page may be a moment late to stop.
_LATEST_S = SECONDS[1] + 1
_MAX_FRAMES = int(_LATEST_S * FPS) + 1
_HEAD = struct.Struct("<HHI")
_STAMP_BYTES = 4
MAX_BYTES = _HEAD.size + _MAX_FRAMES * (_STAMP_BYTES + 3 * MAX_SHORT_PX * MAX_LONG_PX)
"""The maximum length of a recording, in bytes."""


def parse(data: bytes | bytearray) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Parse a recording into frames of shape (time, height, width, 3), and their times in seconds after the first.

    *Conventions:* numbers are little-endian. Height and width have two bytes each, the number of frames four. Then
    follow the time of each frame in milliseconds, four bytes each, and the pixels, row by row, in RGB.

    Raises:
        DataError: if the size of frames, their number, a time or the number of bytes is not one that a page sends.
    """
    if len(data) < _HEAD.size:
        raise DataError(f"a recording begins with {_HEAD.size} bytes about its size; got {len(data)} bytes")
    height, width, num = _HEAD.unpack_from(data)
    short, long = sorted((height, width))
    if not (_MIN_PX <= short <= MAX_SHORT_PX and long <= MAX_LONG_PX) or height % 2 or width % 2:
        raise DataError(
            f"recorded frames have even sides of {_MIN_PX} to {MAX_SHORT_PX} px, the longer one of up to"
            f" {MAX_LONG_PX} px; got {height}x{width} px"
        )
    if not 2 <= num <= _MAX_FRAMES:
        raise DataError(f"a recording has 2 to {_MAX_FRAMES} frames; got {num}")
    if len(data) != (needed := _HEAD.size + num * (_STAMP_BYTES + 3 * height * width)):
        raise DataError(f"a recording of {num} frames of {height}x{width} px is {needed} bytes long; got {len(data)}")
    stamps = np.frombuffer(data, "<u4", num, _HEAD.size).astype(np.float64) / 1000
    times = stamps - stamps[0]
    if not (np.diff(times) > 0).all():
        raise DataError("the frames of a recording are not in the order of time; record it again")
    if not SECONDS[0] <= times[-1] <= _LATEST_S:
        raise DataError(
            f"a recording lasts {SECONDS[0]:g} to {SECONDS[1]:g} s; this one has {times[-1]:.1f} s: record it again"
        )
    pixels = np.frombuffer(data, np.uint8, offset=_HEAD.size + num * _STAMP_BYTES)
    return pixels.reshape(num, height, width, 3), times


def at_constant_rate(times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the index of the frame that shows at each tick of the rate `FPS`; a late frame repeats the one before.

    >>> at_constant_rate(np.array([0.0, 0.05, 0.2])).tolist()
    [0, 1, 1, 2]
    """
    ticks = np.arange(int(times[-1] * FPS + 0.5) + 1) / FPS
    # Cameras are not punctual: a frame counts for a tick that it misses by little.
    return np.searchsorted(times, ticks + 0.25 / FPS, side="right") - 1


def encode(data: bytes | bytearray) -> bytes:
    """Return a recording as the content of an MP4 file of constant frame rate. This is slow, and imports torch.

    Raises:
        DataError: as `parse`.
    """
    import torch

    from saccade.record.clip_encoder import ClipEncoder

    frames, times = parse(data)
    clip = ClipEncoder()
    for tick, index in enumerate(at_constant_rate(times)):
        pixels: UInt8[Tensor, "3 height width"] = torch.tensor(frames[index]).permute(2, 0, 1)
        clip.add(pixels, tick / FPS)
    return clip.content()
