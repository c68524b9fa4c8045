"""Handle Ctrl-C and SIGTERM between two training steps, never within one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C and SIGTERM while the block runs; yield a function that returns whether one arrived.

    An interrupt within an optimiser step would leave weights that belong to no step. A second Ctrl-C is not held back.
    A second SIGTERM is, since job schedulers may send it twice. Only the main thread receives signals; in other
    threads nothing is held back.

    >>> with held_back() as interrupted:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interrupted()
    True
    """
    pressed: list[int] = []

    def keep(number: int, _frame: object) -> None:
        if number == signal.SIGINT and number in pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    try:
        before = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
