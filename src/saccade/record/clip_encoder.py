"""Encode the frames of a clip as they come."""

from __future__ import annotations

import io
from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

# Nearly lossless: a model that learns from clips is to see the same in the camera.
_H264 = {"crf": "8", "preset": "veryfast"}
_TICK_S = Fraction(1, 90000)


class ClipEncoder:
    """Encode one clip as H.264 in MP4, with the time stamps of its source.

    The file is made in memory, since PyAV does not report errors on closing a file, such as a full disk.

    Attributes:
        num_frames: the number of frames so far.
    """

    def __init__(self) -> None:
        self.num_frames = 0
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream: VideoStream | None = None
        self._first_s = self._last_s = 0.0

    @property
    def duration_s(self) -> float:
        """The display time of the frames so far, if the last one is shown as long as the others on average."""
        num = self.num_frames
        return (self._last_s - self._first_s) * num / (num - 1) if num > 1 else 0.0

    def add(self, pixels: UInt8[Tensor, "3 height width"], time_s: float) -> None:
        """Add a frame of even height and width, later than the one before.

        Args:
            pixels: the frame, in RGB.
            time_s: its time stamp, in seconds after any moment.
        """
        frame = av.VideoFrame.from_ndarray(pixels.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
        if self._stream is None:
            self._stream, self._first_s = self._opened(frame.height, frame.width), time_s
        frame.pts, frame.time_base = round((time_s - self._first_s) / _TICK_S), _TICK_S
        # The last frame is shown as long as the one before it.
        frame.duration = round((time_s - self._last_s) / _TICK_S) if self.num_frames else 0
        self._container.mux(self._stream.encode(frame))
        self.num_frames, self._last_s = self.num_frames + 1, time_s

    def content(self) -> bytes:
        """End the clip; return the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()

    def _opened(self, height: int, width: int) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=30, options=_H264)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TICK_S
        stream.codec_context.flags |= Flags.frame_duration
        stream.codec_context.thread_count = 1
        return stream
