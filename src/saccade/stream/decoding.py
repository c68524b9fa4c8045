"""What the reading process does: decode a live source, choose the frames that are due, convert and send them."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from saccade.data.container import MAX_PIXELS
from saccade.data.pixels import Converter, Size
from saccade.data.times import LONGEST_STILL_S, Resampler, duration_s
from saccade.errors import DataError, SaccadeError
from saccade.stream import wire
from saccade.stream.address import Address, SourceKind
from saccade.stream.timeline import Moment, Timeline

_LIMITS = {"max_pixels": str(MAX_PIXELS)}
_LEAP_S = 2.0
_ALIVE_S = 1.0
_PARENT_HAS_GONE = (BrokenPipeError, ConnectionResetError, EOFError)
# Their demuxers invent stamps from an assumed rate.
_WITHOUT_STAMPS = frozenset(("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe", "jpeg_pipe", "png_pipe"))
# The size is that of the list, which a live stream has too.
_PLAYLISTS = frozenset(("hls", "dash"))


@dataclass(frozen=True)
class Task:
    """What the reading process is to read.

    Args:
        address: the source, as the user gave it.
        num_channels: 1 for grey, 3 for RGB.
        fps: the frame rate to resample to; None for all frames.
        picture_px: the longest side of the picture for display; None for no picture.
        keeps_size: whether frames of any size are scaled to the same one.
        realtime: whether a recording is played at its own rate; without it, it is read as fast as its frames are taken.
    """

    address: str
    num_channels: int
    fps: float | None
    picture_px: int | None
    keeps_size: bool
    realtime: bool

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def serve(connection: Connection) -> None:
    """Read the source of the task that the first message holds, until it ends or nobody wants it."""
    task = Task(**wire.content_of(connection.recv_bytes()))
    address = Address.of(task.address)
    with suppress(*_PARENT_HAS_GONE):
        connection.send_bytes(wire.told(wire.Kind.READY))
        try:
            with _opened(address) as container:
                _Reading(task, address, container, connection).run()
            last = wire.told(wire.Kind.END)
        except SaccadeError as error:
            last = wire.told(wire.Kind.ERROR, str(error))
        except av.FFmpegError as error:
            last = wire.told(wire.Kind.ERROR, address.explain(error))
        except _PARENT_HAS_GONE:
            return
        except Exception as error:  # its text may hold the address
            last = wire.told(wire.Kind.ERROR, f"{address.shown} cannot be read: {type(error).__name__} in the reader")
        connection.send_bytes(last)


def _opened(address: Address) -> InputContainer:
    if address.is_standard_input and not _has_content(0):
        raise DataError(f"{address.shown} is empty; pipe a video into this command")
    options = {**address.options, **_LIMITS}
    container = av.open(address.url, format=address.container, options=options, metadata_errors="replace")
    if container.format.name == "tty":
        container.close()
        raise DataError(f"{address.shown} is text; a video is needed")
    return container


def _has_content(descriptor: int) -> bool:
    """Wait until there is something to read, or the end; take nothing."""
    try:
        return bool(os.pread(descriptor, 1, os.lseek(descriptor, 0, os.SEEK_CUR)))
    except OSError:  # a pipe
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll())


class _Reading:
    """One reading of a source."""

    def __init__(self, task: Task, address: Address, container: InputContainer, connection: Connection) -> None:
        self._task, self._address, self._container, self._connection = task, address, container, connection
        # Live streams have neither duration nor size. What has one can be read faster than it is shown.
        has_size = container.size > 0 and container.format.name not in _PLAYLISTS
        has_end = bool(container.duration) or has_size
        self._is_recording = (
            address.kind is SourceKind.FILE
            or (address.kind is SourceKind.PIPE and (has_end or not task.realtime))
            or (address.kind is SourceKind.WEB and has_end)
        )
        by_arrival = not self._is_recording and container.format.name in _WITHOUT_STAMPS
        self._timeline = Timeline(LONGEST_STILL_S if self._is_recording else _LEAP_S, by_arrival)
        self._keeps_size, self._coded_size = task.keeps_size or self._is_recording, (0, 0)

    def run(self) -> None:
        """Send the frames that are due until the source ends."""
        self._connection.send_bytes(wire.told(wire.Kind.OPEN, self._is_recording))
        last: av.VideoFrame | None = None
        for frame in self._decoded():
            arrived_s = time.monotonic()
            moment = self._timeline.add(frame.time, arrived_s)
            if moment is None:
                continue
            size = frame.height, frame.width
            if moment.begins or (size != self._coded_size and not self._keeps_size):
                self._begin(moment)
            self._coded_size = size
            if moment.note:
                self._connection.send_bytes(wire.told(wire.Kind.NOTE, moment.note))
            if self._is_recording and self._task.realtime:
                self._wait_for(moment)
            self._connection.send_bytes(wire.seen(moment.at_s - self._start_s))
            self._send([frame] if self._resampler is None else self._resampler.push(frame, moment.at_s), moment.at_s)
            last = frame
        if last is None:
            raise DataError(f"{self._address.shown} sent no frame that can be decoded; check that it sends video")
        self._send([] if self._resampler is None else self._resampler.rest(duration_s(last)), 0.0)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        with suppress(IndexError):  # PyAV ends so where a stream begins that was not there when the source was opened
            for packet in self._container.demux(self._video_stream()):
                with suppress(av.FFmpegError):  # a damaged packet costs its own frames
                    yield from packet.decode()

    def _video_stream(self) -> VideoStream:
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise DataError(f"{self._address.shown} sends no video; give the address of a video stream")
        chosen = next((s for s in streams if s.disposition & Disposition.default), streams[0])
        if chosen.codec_context is None:
            raise DataError(f"{self._address.shown} is encoded in a way that this PyAV cannot decode; use H.264")
        # More threads would each hold back a frame.
        chosen.codec_context.thread_count = 1
        chosen.codec_context.options = _LIMITS
        return chosen

    def _begin(self, moment: Moment) -> None:
        task = self._task
        self._start_s, self._started_s = moment.at_s, time.monotonic()
        self._resampler = None if task.fps is None else Resampler[av.VideoFrame](task.fps)
        self._convert = Converter(self._asked, task.num_channels)
        self._draw = None if task.picture_px is None else Converter(within(task.picture_px), 3)
        self._num_sent = 0
        self._sent: av.VideoFrame | None = None

    def _asked(self, size: Size) -> Size:
        """Ask the parent, which knows the frame format of the model."""
        self._connection.send_bytes(wire.told(wire.Kind.SIZE, size))
        height, width = wire.content_of(self._connection.recv_bytes())
        return height, width

    def _wait_for(self, moment: Moment) -> None:
        while (left_s := self._started_s + moment.at_s - self._start_s - time.monotonic()) > 0:
            if left_s > _ALIVE_S:
                self._connection.send_bytes(wire.told(wire.Kind.ALIVE))
            time.sleep(min(left_s, _ALIVE_S))

    def _send(self, frames: list[av.VideoFrame], at_s: float) -> None:
        fps, due_s = self._task.fps, time.monotonic()
        for frame in frames:
            time_s = at_s - self._start_s if fps is None else self._num_sent / fps
            pixels, picture = self._converted(frame) if frame is not self._sent else (None, None)
            message = wire.Shown(time_s, due_s, not self._num_sent, pixels, picture)
            self._connection.send_bytes(message.packed())
            self._num_sent, self._sent = self._num_sent + 1, frame

    def _converted(self, frame: av.VideoFrame) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        try:
            return self._convert(frame), None if self._draw is None else self._draw(frame)
        except (ValueError, av.FFmpegError) as error:
            raise DataError(
                f"{self._address.shown} sends frames that cannot be converted ({type(error).__name__});"
                " choose another pixel format or codec"
            ) from error


def within(longest_px: int) -> Callable[[Size], Size]:
    """Return the function from a size to the largest one in proportion that is no larger and fits into a square.

    >>> within(320)((480, 640)), within(320)((48, 64))
    ((240, 320), (48, 64))
    """

    def fit(size: Size) -> Size:
        zoom = min(1.0, longest_px / max(size))
        return max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom))

    return fit
