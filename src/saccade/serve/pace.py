"""A clock for frames: the time of the next frame, and the number of missed frames."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A clock that ticks at a given rate and counts missed ticks.

    Args:
        fps: the number of ticks per second.
        now: a function that returns the time in seconds.
    """

    def __init__(self, fps: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._fps = fps
        self._due = now()

    @property
    def fps(self) -> float:
        """The number of ticks per second."""
        return self._fps

    @fps.setter
    def fps(self, fps: float) -> None:
        self._fps = fps
        self.restart()

    def restart(self) -> None:
        """Make a tick due now, and discard missed ticks."""
        self._due = self._now()

    def delay(self) -> None:
        """Count the next period from now: what is late stays late, and nothing is missed."""
        self._due = self._now() + 1 / self._fps

    def wait_s(self) -> float:
        """Return the seconds until the next tick; 0 if it is overdue."""
        return max(0.0, self._due - self._now())

    def tick(self) -> int:
        """Take the latest due tick; return the number of missed ticks before it.

        >>> clock = iter([0.0, 0.35, 0.35])
        >>> pace = Pace(10, lambda: next(clock))
        >>> pace.tick(), round(pace.wait_s(), 3)
        (3, 0.05)
        """
        missed = max(0, int((self._now() - self._due) * self._fps + 1e-6))
        self._due += (missed + 1) / self._fps
        return missed
