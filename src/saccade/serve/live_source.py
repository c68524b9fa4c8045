"""The sources of frames that come by themselves: the page's camera, and the stream that all pages share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from jaxtyping import UInt8
from torch import Tensor

from saccade.data.times import Resampler
from saccade.serve.sources import Picture
from saccade.stream.classifier import LONGEST_GAP_S
from saccade.stream.live_frame import LiveFrame
from saccade.stream.waiting import Waiting

_MOST_LINES = 8

Pixels = UInt8[Tensor, "channels height width"]


class LiveSource:
    """Frames that come when they come; any thread may put them. The newest wins, as in `saccade stream`.

    After a longer time than `LONGEST_GAP_S` without a frame, video begins anew.

    Args:
        fps: the rate of the frames, which limits how many wait; None if it is unknown.

    Attributes:
        has_ended: whether no more frames come.
        problem: one line if the source has failed.
    """

    def __init__(self, fps: float | None) -> None:
        self.has_ended = False
        self.problem: str | None = None
        self._rate_fps = fps
        self._lock = threading.Lock()
        self._dropped = 0
        self._last_s: float | None = None
        self._is_open = True
        self._empty()

    @property
    def has_frame(self) -> bool:
        """Whether there is a frame that was not yet returned."""
        return self._num_put - self._num_taken - self._waiting.dropped > 0

    @property
    def dropped(self) -> int:
        """The number of frames so far for which the consumer was too slow."""
        return self._dropped + self._waiting.dropped

    def put(self, frame: LiveFrame) -> None:
        """Add a frame, unless the source is paused."""
        with self._lock:
            if self._is_open:
                self._num_put += 1
                self._waiting.put(frame)

    def pause(self, paused: bool) -> None:
        """Take no frames, or take them again; those that wait are of no use later."""
        with self._lock:
            self._is_open = not paused
            if paused:
                self._dropped += self._waiting.dropped
                self._empty()

    def next_picture(self, missed: int) -> Picture | None:
        """Return the next frame; return None if there is none."""
        with self._lock:
            if not self.has_frame:
                return None
            frame = self._waiting.take()
            self._num_taken += 1
        assert isinstance(frame, LiveFrame)
        begins = frame.begins or self._last_s is None or not 0 <= frame.time_s - self._last_s <= LONGEST_GAP_S
        self._last_s = frame.time_s
        return Picture(frame.pixels, time_s=frame.time_s, begins=begins)

    def take_line(self) -> str | None:
        """Return the next line about the source for the page; return None if there is none."""
        return None

    def _empty(self) -> None:
        self._waiting, self._num_put, self._num_taken = Waiting.at_rate(self._rate_fps), 0, 0


class CameraSource(LiveSource):
    """The camera of a page, resampled by time stamps to the rate that the models learned at.

    A browser that is busy leaves frames out, and the one before is then repeated, as a player shows it.

    Args:
        fps: the rate of the models; None gives them all frames.
    """

    def __init__(self, fps: float | None) -> None:
        super().__init__(fps)
        self._fps, self._stamp_s = fps, 0.0
        self._resampler: Resampler[Pixels] | None = None
        self._start_s, self._num = 0.0, 0

    def put_stamped(self, pixels: Pixels, stamp_s: float) -> None:
        """Add a frame with its time in seconds; where that jumps, video begins anew."""
        if not self._num or not 0 <= stamp_s - self._stamp_s <= LONGEST_GAP_S:
            self._start_s, self._num = stamp_s, 0
            self._resampler = Resampler[Pixels](self._fps) if self._fps else None
        self._stamp_s, arrived_s = stamp_s, time.monotonic()
        for due in [pixels] if self._resampler is None else self._resampler.push(pixels, stamp_s):
            time_s = self._start_s + self._num / self._fps if self._fps else stamp_s
            self.put(LiveFrame(due, time_s, arrived_s, begins=not self._num))
            self._num += 1


class SharedSource(LiveSource):
    """What one page gets of the stream that all pages share.

    Args:
        fps: as for every live source.
        wake: called in any thread when there is news.
    """

    def __init__(self, fps: float | None, wake: Callable[[], None]) -> None:
        super().__init__(fps)
        self._wake, self._lines = wake, deque[str](maxlen=_MOST_LINES)

    def put(self, frame: LiveFrame) -> None:
        """Add a frame, unless the source is paused."""
        super().put(frame)
        self._wake()

    def tell(self, line: str) -> None:
        """Add a line about the stream for the page."""
        self._lines.append(line)
        self._wake()

    def end(self, problem: str | None) -> None:
        """End behind the last frame; the problem is one line, None if the source has ended by itself."""
        self.problem, self.has_ended = problem, True
        self._wake()

    def take_line(self) -> str | None:
        """Return the next line about the stream for the page; return None if there is none."""
        return self._lines.popleft() if self._lines else None
