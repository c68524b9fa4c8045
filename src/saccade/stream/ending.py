"""The end of a stream by SIGTERM, as service managers and containers send it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM inside the block like Ctrl-C, then end by it: events that last are told with their ends."""
    if threading.current_thread() is not threading.main_thread():  # no other thread receives signals
        yield
        return
    has_come = False

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        if not has_come:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if has_come:
        signal.raise_signal(signal.SIGTERM)
