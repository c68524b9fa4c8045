"""A thread that many pages share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
Work = Generator[None, None, T]
"""Work that can be put aside wherever it yields."""


@dataclass
class Account:
    """What somebody has had of a thread, in seconds of work."""

    had_s: float = 0.0


@dataclass(order=True)
class _Job:
    had_s: float
    order: int
    work: Work[Any] = field(compare=False)
    account: Account = field(compare=False)
    outcome: Future[Any] = field(compare=False)


class Turns:
    """One thread, shared by what each has had of it: after every step of work, who had least is next.

    Who asks for more than an equal share waits, and the others get what they ask for. Who asks for nothing saves
    nothing up (start-time fair queueing).

    Args:
        name: of the thread.
        share: the part of the time in which the thread works at most; it rests after every step.

    Source: Goyal, Vin and Cheng, "Start-time fair queueing", SIGCOMM 1996.
    """

    def __init__(self, name: str, *, share: float = 1.0) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._rest_per_s = 1 / share - 1
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._orders = itertools.count()
        # What the one who had the thread last had before: nobody begins with less.
        self._least_s = 0.0

    async def do(self, account: Account, work: Work[T]) -> T:
        """Do work in the thread, charge an account for it, and return what it returns.

        Work whose caller is cancelled ends at its next step.
        """
        outcome: Future[T] = Future()
        self._queue(work, account, outcome)
        return await asyncio.wrap_future(outcome)

    def close(self) -> None:
        """End the thread once its step is done."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _queue(self, work: Work[Any], account: Account, outcome: Future[Any]) -> None:
        with self._lock:
            account.had_s = max(account.had_s, self._least_s)
            heapq.heappush(self._waiting, _Job(account.had_s, next(self._orders), work, account, outcome))
        try:
            # As many turns as there are steps that wait; whose a turn is shows when it comes.
            self._thread.submit(self._turn)
        except RuntimeError:  # the thread has ended
            outcome.cancel()

    def _turn(self) -> None:
        with self._lock:
            job = heapq.heappop(self._waiting)
            self._least_s = job.had_s
        if job.outcome.cancelled():
            job.work.close()
            return
        begin = time.thread_time()
        deliver: Callable[[], None] | None = None
        try:
            next(job.work)
        except StopIteration as end:
            deliver = partial(job.outcome.set_result, end.value)
        except BaseException as error:  # whatever it is, it is for the one who waits
            deliver = partial(job.outcome.set_exception, error)
        took_s = time.thread_time() - begin
        job.account.had_s += took_s
        if deliver is None:
            self._queue(job.work, job.account, job.outcome)
        elif job.outcome.set_running_or_notify_cancel():
            deliver()
        if self._rest_per_s:
            self._closing.wait(took_s * self._rest_per_s)


def whole(function: Callable[..., T], *arguments: Any) -> Work[T]:
    """Return a call as work in a single step.

    >>> work = whole(max, 2, 3)
    >>> try:
    ...     next(work)
    ... except StopIteration as end:
    ...     print(end.value)
    3
    """
    return function(*arguments)
    yield
