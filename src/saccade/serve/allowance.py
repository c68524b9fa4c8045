"""How much of something somebody may have in a second."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """So much a second, and an amount at once (a token bucket).

    Args:
        per_s: what comes in every second.
        at_once: what is there at first, and the most that gathers.
        now: tells the time in seconds.

    >>> allowance = Allowance(1.0, 2.0)
    >>> allowance.take(), allowance.take(), allowance.take()
    (True, True, False)
    """

    def __init__(self, per_s: float, at_once: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._at_once, self._now = per_s, at_once, now
        self._left, self._when = at_once, now()

    def take(self) -> bool:
        """Take one; return whether there was one left."""
        self._gather()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, amount: float) -> float:
        """Take an amount, on credit where less is left; return after how many seconds it is paid back.

        >>> allowance = Allowance(10.0, 1.0)
        >>> allowance.charge(1.0), round(allowance.charge(5.0), 1)
        (0.0, 0.5)
        """
        self._gather()
        self._left -= amount
        return max(0.0, -self._left / self._per_s)

    def _gather(self) -> None:
        now = self._now()
        self._left = min(self._at_once, self._left + (now - self._when) * self._per_s)
        self._when = now
