"""A token bucket, which limits a rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """A token bucket: it fills at a constant rate up to a maximum.

    Args:
        per_s: the amount added per second.
        at_once: the initial amount, which is also the maximum.
        now: a function that returns the time in seconds.

    >>> allowance = Allowance(1.0, 2.0)
    >>> allowance.take(), allowance.take(), allowance.take()
    (True, True, False)
    """

    def __init__(self, per_s: float, at_once: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._at_once, self._now = per_s, at_once, now
        self._left, self._when = at_once, now()

    def take(self) -> bool:
        """Take 1 if at least 1 is left; return whether it was taken."""
        self._gather()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, amount: float) -> float:
        """Take an amount, on credit if less is left; return the seconds until the credit is paid back.

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
