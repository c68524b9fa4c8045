"""An estimate of the time left in a reproduction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


class Forecast:
    """Estimate the time left from the work done so far, on the assumption that the pace stays the same.

    Args:
        work: the amount of work of each job, in any unit.
        clock: a function that returns the time in seconds.

    >>> forecast = Forecast([1.0, 3.0], clock=iter([0.0, 60.0]).__next__)
    >>> forecast.begin(1, 0.5)  # an earlier call did that much of it
    >>> forecast.reach(0, 1.0)
    >>> forecast.left_s()
    90.0
    """

    def __init__(self, work: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock = list(work), clock
        self._done = [0.0] * len(self._work)
        self._before, self._started = 0.0, clock()

    def begin(self, job: int, fraction: float) -> None:
        """Record the fraction of a job that an earlier call has done."""
        self._done[job] = fraction
        self._before += self._work[job] * fraction

    def reach(self, job: int, fraction: float) -> None:
        """Record the fraction of a job that is done."""
        self._done[job] = fraction

    def left_s(self) -> float | None:
        """Return the estimated seconds left; None while too little is done for an estimate."""
        total = sum(self._work)
        done = sum(work * done for work, done in zip(self._work, self._done, strict=True))
        if done - self._before < 0.005 * total:
            return None
        return (self._clock() - self._started) / (done - self._before) * (total - done)
