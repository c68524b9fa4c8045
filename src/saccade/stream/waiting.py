"""Frames that wait for a consumer: of a live source the newest wins, of any other source none is lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

from saccade.stream.limits import USUAL_FPS
from saccade.stream.live_frame import LiveFrame

QUEUE_S = 0.5
"""The longest piece of video that waits; a burst after a pause of the network fits."""

LATE_S = 0.1
"""A consumer is behind once the oldest waiting frame has waited so long."""

_FEWEST = 4


class Waiting:
    """A short queue between the thread that reads a source and a consumer.

    Of a live source, the newest frame wins. A consumer that keeps up gets every frame, also those of a burst. One that
    is behind gets the newest frame, and the others are dropped. It is behind while frames wait longer than `LATE_S`,
    and from then on until it finds only one frame. So the time for which frames wait does not grow. If the first frame
    after a gap is dropped, the next one begins.

    Of a source that can wait, no frame is dropped: while the queue is full, the thread that reads waits.

    Args:
        most: the largest number of frames that wait; the oldest is dropped for a new one. Frames that arrived at the
            same moment, which are repeats, count as one.

    Attributes:
        dropped: the number of frames that were not taken.
        is_live: whether the newest frame wins. It may change before the first frame.
    """

    def __init__(self, most: int) -> None:
        self.dropped, self.is_live = 0, True
        self._most, self._frames, self._lines = most, deque[LiveFrame](), deque[str]()
        self._changed = threading.Condition()
        self._is_behind = self._has_ended = self._is_closed = False
        self._error: BaseException | None = None

    @classmethod
    def at_rate(cls, fps: float | None) -> Waiting:
        """Create a queue for `QUEUE_S` of video; without a rate, for that of a usual camera."""
        return cls(max(_FEWEST, round(QUEUE_S * (fps or USUAL_FPS))))

    def put(self, frame: LiveFrame) -> None:
        """Add a frame. If the source is not live, wait while the queue is full, until `close` is called."""
        with self._changed:
            if not self.is_live:
                self._changed.wait_for(lambda: len(self._frames) < self._most or self._is_closed)
            self._frames.append(frame)
            while self.is_live and len(self._frames) > self._most and self._frames[0].arrived_s < frame.arrived_s:
                self._drop_oldest()
            self._changed.notify()

    def say(self, line: str) -> None:
        """Add a line for the user, which the consumer gets before the frames."""
        with self._changed:
            self._lines.append(line)
            self._changed.notify()

    def end(self, error: BaseException | None = None) -> None:
        """Let the consumer end behind the last frame, with an error if there is one."""
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify()

    def close(self) -> None:
        """Let a thread that waits in `put` go on: no more frames are taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def take(self) -> LiveFrame | str | None:
        """Wait for a frame or a line; None if all has ended.

        Raises:
            BaseException: the error with which the source ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._frames or self._has_ended)
            if self._lines:
                return self._lines.popleft()
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            if not self.is_live:
                self._changed.notify()
                # Only now is it due, as a frame of a file: it could have been decoded later.
                return replace(self._frames.popleft(), arrived_s=time.monotonic())
            is_late = time.monotonic() - self._frames[0].arrived_s > LATE_S
            self._is_behind = is_late or (self._is_behind and len(self._frames) > 1)
            while self._is_behind and len(self._frames) > 1:
                self._drop_oldest()
            return self._frames.popleft()

    def _drop_oldest(self) -> None:
        begins = self._frames.popleft().begins
        self.dropped += 1
        if begins:
            self._frames[0] = replace(self._frames[0], begins=True)
