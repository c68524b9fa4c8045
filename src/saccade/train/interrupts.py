"""Ctrl-C, or the SIGTERM of a job scheduler, between two steps of training, never within one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C and SIGTERM back while the block runs, and give a function that tells whether one came.

    An interrupt that cut an optimizer's step in half would leave weights that belong to no step. A second Ctrl-C is not
    held back; a second SIGTERM is, since those who end a process may say so twice. Outside the main thread, which alone
    gets signals, nothing is held back.

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
