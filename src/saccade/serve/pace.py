"""When the next frame is due, and which ones the server missed."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A clock that ticks a given number of times a second, and counts the ticks that nobody was there for.

    Args:
        fps: ticks a second.
        now: tells the time in seconds.
    """

    def __init__(self, fps: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._fps = fps
        self._due = now()

    @property
    def fps(self) -> float:
        """Ticks a second."""
        return self._fps

    @fps.setter
    def fps(self, fps: float) -> None:
        self._fps = fps
        self.restart()

    def restart(self) -> None:
        """Tick now, and forget what was missed."""
        self._due = self._now()

    def wait_s(self) -> float:
        """Seconds until the next tick; 0 where it is overdue."""
        return max(0.0, self._due - self._now())

    def tick(self) -> int:
        """Take the tick that is due; return how many before it were missed.

        >>> clock = iter([0.0, 0.35, 0.35])
        >>> pace = Pace(10, lambda: next(clock))
        >>> pace.tick(), round(pace.wait_s(), 3)
        (3, 0.05)
        """
        missed = max(0, int((self._now() - self._due) * self._fps + 1e-6))
        self._due += (missed + 1) / self._fps
        return missed
