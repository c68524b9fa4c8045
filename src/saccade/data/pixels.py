"""Convert decoded frames to the size and channels that are wanted, oriented as a player shows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Size = tuple[int, int]
"""(height, width) in pixels."""

# Planes are what tensors hold; for the planar format FFmpeg also interpolates colours in full.
_FORMATS = {1: "gray", 3: "gbrp"}
_PLANES = {1: (0,), 3: (2, 0, 1)}
# Whether rows become columns, and which axes are then flipped.
_Orientation = tuple[bool, tuple[int, ...]]
# Those of quarter turns counter-clockwise.
_TURNS = ((False, ()), (True, (0,)), (False, (0, 1)), (True, (1,)))


class Converter:
    """Convert frames of any format to one size and 1 or 3 channels; the tables of the scaler are made only once.

    *Conventions:* the scaler is FFmpeg's bilinear one, which averages over all pixels where it shrinks.

    Args:
        size: the size of the result; a function makes it from the size of the first frame as shown; None keeps that.
        num_channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, size: Size | Callable[[Size], Size] | None, num_channels: int) -> None:
        self.num_channels = num_channels
        self.shown_size: Size | None = None  # of the first frame
        self._wanted, self._scaler = size, VideoReformatter()
        self._orientation: _Orientation | None = None
        self._rotation_deg = 0
        self._last: tuple[av.VideoFrame, NDArray[np.uint8]] | None = None

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return a frame as (channels, height, width), valid until the next call; a repeated frame is not made again.

        Raises:
            ValueError: if the frame cannot be converted.
            av.FFmpegError: likewise.
        """
        if self._last is None or self._last[0] is not frame:
            self._last = frame, self._converted(frame)
        return self._last[1]

    def _converted(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        if self._orientation is None or frame.rotation != self._rotation_deg:
            self._orientation, self._rotation_deg = _orientation_of(frame), frame.rotation
        transposed, flips = self._orientation
        if self.shown_size is None:
            self.shown_size = (frame.width, frame.height) if transposed else (frame.height, frame.width)
            if callable(self._wanted):
                self._wanted = self._wanted(self.shown_size)
        size = self._wanted or self.shown_size
        assert not callable(size)
        height, width = reversed(size) if transposed else size
        planes = self._planes(frame, width, height)
        return np.stack([np.flip(plane.swapaxes(0, 1) if transposed else plane, flips) for plane in planes])

    def _planes(self, frame: av.VideoFrame, width: int, height: int) -> list[NDArray[np.uint8]]:
        # With one thread: callers run several processes.
        convert = partial(self._scaler.reformat, frame, width, height, threads=1)
        if self.num_channels == 3 and (width, height) == (frame.width, frame.height):
            # Without scaling, libswscale 9.5 leaves columns at the right edge of planes unwritten, at many widths. The
            # packed format has the same values, and all of them.
            made = convert("rgb24")
            return list(_array(made.planes[0], height, 3 * width).reshape(height, width, 3).transpose(2, 0, 1))
        made = convert(_FORMATS[self.num_channels])
        return [_array(made.planes[index], height, width) for index in _PLANES[self.num_channels]]


def _array(plane: av.video.plane.VideoPlane, height: int, width: int) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, :width]


def _orientation_of(frame: av.VideoFrame) -> _Orientation:
    """Return how a player orients a frame.

    The orientation follows from the file's display matrix; other angles are rounded to the nearest quarter turn.
    """
    # A frame whose side data was looked at is in a cycle of references, and its memory waits for the garbage collector;
    # so a tiny copy is looked at.
    tiny = VideoReformatter().reformat(frame, 2, 2, "gray", interpolation=Interpolation.POINT, threads=1)
    try:
        matrix = tiny.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data, such as EXIF
        return _TURNS[round(frame.rotation / 90) % 4]
    if not isinstance(matrix, SideData):
        return False, ()
    # x' = a x + c y and y' = b x + d y, with y downwards.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    to_x, to_y = (c, b) if transposed else (a, d)
    return transposed, tuple(axis for axis, sign in enumerate((to_y, to_x)) if sign < 0)
