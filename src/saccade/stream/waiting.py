"""Frames that wait for a consumer: in order while it keeps up, only the newest while it does not."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

from saccade.stream.live_frame import LiveFrame

LATE_S = 0.1
"""A consumer is behind once the oldest waiting frame has waited so long."""


class Waiting:
    """A short queue between the thread that reads a source and a consumer, where the newest frame wins.

    A consumer that keeps up gets every frame, also those of a burst. One that is behind gets the newest frame, and the
    others are dropped. It is behind while frames wait longer than `LATE_S`, and from then on until it finds only one
    frame. So the time for which frames wait does not grow. If the first frame after a gap is dropped, the next one
    begins.

    Args:
        most: the largest number of frames that wait; the oldest is dropped for a new one. Frames that arrived at the
            same moment, which are repeats, count as one.

    Attributes:
        dropped: the number of frames that were not taken.
    """

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self._most, self._frames, self._lines = most, deque[LiveFrame](), deque[str]()
        self._changed = threading.Condition()
        self._is_behind = self._has_ended = False
        self._error: BaseException | None = None

    def put(self, frame: LiveFrame) -> None:
        """Add a frame; this never waits."""
        with self._changed:
            self._frames.append(frame)
            while len(self._frames) > self._most and self._frames[0].arrived_s < frame.arrived_s:
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
