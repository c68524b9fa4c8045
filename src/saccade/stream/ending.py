"""The end of a stream by SIGTERM, as service managers and containers send it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# `timeout` sends SIGTERM to a process and then to its group, so that it comes twice.
_TWICE_S = 1.0


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM inside the block like Ctrl-C, then end by it: events that last are told with their ends.

    Another SIGTERM within a second does not interrupt this; a later one does, as where nobody reads what is told.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread receives signals
        yield
        return
    came_s: float | None = None

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal came_s
        if came_s is None or time.monotonic() - came_s > _TWICE_S:
            came_s = time.monotonic()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        if came_s is None:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if came_s is not None:
        signal.raise_signal(signal.SIGTERM)
