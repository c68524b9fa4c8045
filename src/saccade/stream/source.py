"""The frames of a source, as they come: a camera, a network stream, a file, standard input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from types import TracebackType

from jaxtyping import UInt8
from torch import Tensor

from saccade.clips import FrameFormat
from saccade.data import video
from saccade.data.container import rate
from saccade.data.pixels import Size
from saccade.errors import DataError, UsageError
from saccade.stream.address import Address, SourceKind
from saccade.stream.decoding import Task, within
from saccade.stream.feed import Feed, is_slow, slow_line
from saccade.stream.limits import Limits as Limits
from saccade.stream.live_frame import LiveFrame as LiveFrame
from saccade.stream.measured import Cost, not_measured

_PACKETS_FOR_RATE = 1000
_NO_LIMITS = Limits()


class Source:
    """The frames of a source in the frame format of a model; a context manager, to be iterated over once.

    A file, standard input, and a recording over HTTP are read as fast as their frames are taken, and none is dropped;
    whoever writes into the pipe waits. A recording has a duration or a size. Any other source is live, and with
    `realtime` every source is live: **the newest frame wins**. A consumer that keeps up gets every frame. One that is
    too slow gets the newest frame, so that its delay does not grow; `dropped` counts the others.

    *Conventions:* frames are chosen by time stamp to match `frame_format.fps`, as `saccade predict` does, and a frame
    is repeated where the source is slower. Stamps that jump, and gaps, begin a new piece of video. With `realtime`,
    files and recordings are played at their own rate. Standard input without a duration is then taken as it comes.

    A live source that is lost is opened again, with pauses that double from half a second to half a minute. The end of
    a file, of standard input and of a recording ends the iteration. No message holds the password of an address.

    Args:
        address: a camera (its number, or a device such as `/dev/video0`), an address (`rtsp`, `http`, `udp`, `tcp`), a
            file, or `-` for standard input.
        frame_format: the frames that the model expects.
        fit: the function from the size of the first frame to that of `LiveFrame.pixels`; None for that of the frame
            format.
        limits: the time limits of a camera or a network stream.
        realtime: whether a file, a recording or standard input counts as live; a camera always does.
        picture_px: the longest side of `LiveFrame.picture`; None for no picture.
        cost: the function from the rate of a source that is slower than the model's to what is told of it.
        say: called with one line for the user, in the thread that iterates: a loss, a slow source, wrong time stamps,
            and at the end of a live source how many frames were dropped.

    Attributes:
        dropped: the number of frames so far that were due and not taken.
        fps: the rate of the source; None as long as it is unknown.

    Raises:
        UsageError: if the address is of no known kind.
        DataError: if the model takes frames with other than 1 or 3 channels. While frames are read: if the source
            cannot be opened, or was lost for longer than its limit.

    >>> import tempfile, torch
    >>> from saccade.data.video_writing import write_gif
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_gif(Path(folder) / "a.gif", torch.zeros(5, 1, 32, 48, dtype=torch.uint8), fps=10)
    ...     with Source(f"{folder}/a.gif", FrameFormat(fps=5), say=print) as source:
    ...         [(round(frame.time_s, 3), frame.begins) for frame in source]
    [(0.0, True), (0.2, False), (0.4, False)]
    """

    def __init__(
        self,
        address: str,
        frame_format: FrameFormat,
        *,
        fit: Callable[[Size], Size] | None = None,
        limits: Limits = _NO_LIMITS,
        realtime: bool = False,
        picture_px: int | None = None,
        cost: Cost = not_measured,
        say: Callable[[str], None],
    ) -> None:
        if frame_format.channels not in (1, 3):
            raise DataError(f"the model takes frames with {frame_format.channels} channels; sources have 1 or 3")
        if picture_px is not None and picture_px < 1:
            raise UsageError(f"picture_px is {picture_px}; at least 1 is needed")
        self._address, self._limits, self._cost, self._say = Address.of(address), limits, cost, say
        self._frame_format, self._fit, self._picture_px = frame_format, fit or frame_format.fit, picture_px
        keeps_size = frame_format.size is not None
        self._task = Task(address, frame_format.channels, frame_format.fps, picture_px, keeps_size, realtime)
        self._has_feed = realtime or self._address.kind is not SourceKind.FILE
        self._feed: Feed | None = None
        self._fps: float | None = None

    def __enter__(self) -> Source:
        if self._has_feed:
            self._feed = Feed(self._task, self._address, self._fit, self._limits, self._cost)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._feed is not None:
            self._feed.close()

    @property
    def dropped(self) -> int:
        """The number of frames so far that were due and not taken."""
        return 0 if self._feed is None else self._feed.waiting.dropped

    @property
    def is_live(self) -> bool:
        """Whether the source does not wait for its frames to be taken; known from the first frame on."""
        return self._feed is not None and self._feed.waiting.is_live

    @property
    def fps(self) -> float | None:
        """The rate of the source; None as long as it is unknown."""
        return self._fps if self._feed is None else self._feed.fps

    def __iter__(self) -> Iterator[LiveFrame]:
        if self._has_feed and self._feed is None:
            raise UsageError("a source is opened by a with statement: with Source(...) as source")
        self._address.check()
        return self._from_file() if self._feed is None else self._from_feed(self._feed)

    def _from_feed(self, feed: Feed) -> Iterator[LiveFrame]:
        num_taken = 0
        while (taken := feed.waiting.take()) is not None:
            if isinstance(taken, str):
                self._say(taken)
            else:
                num_taken += 1
                yield taken
        if self.dropped:
            num = num_taken + self.dropped
            self._say(f"{self.dropped} of {num} frames were dropped: they came faster than they were processed")

    def _from_file(self) -> Iterator[LiveFrame]:
        path, wanted = Path(self._address.shown), self._frame_format
        begins = True
        pictures = repeat(None) if self._picture_px is None else self._pictures(path, self._picture_px)
        with video.frames(path, size=self._fit, num_channels=wanted.channels, fps=wanted.fps) as parts:
            self._tell_rate(path)
            num = 0
            for part in parts:
                for index, pixels in enumerate(part):
                    time_s = num / (wanted.fps or self._fps or 1)
                    if parts.part_seconds is not None:
                        time_s = parts.part_seconds[index]
                    yield LiveFrame(pixels, time_s, time.monotonic(), begins, next(pictures))
                    begins, num = False, num + 1
        if parts.warning:
            self._say(parts.warning)

    def _tell_rate(self, path: Path) -> None:
        if path.suffix.lower() == ".npz":
            return
        self._fps, wanted_fps = rate(path, num_packets=_PACKETS_FOR_RATE), self._frame_format.fps
        if self._fps and wanted_fps and is_slow(self._fps, wanted_fps):
            self._say(slow_line(str(path), self._fps, wanted_fps, self._cost))

    def _pictures(self, path: Path, picture_px: int) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Decode the file a second time: a picture is asked for at a desk, where that costs little."""
        with video.frames(path, size=within(picture_px), num_channels=3, fps=self._frame_format.fps) as parts:
            for part in parts:
                yield from part.permute(0, 2, 3, 1)
