"""A thread that pages share fairly."""

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
"""Work in steps: a generator that is suspended at each `yield`."""


@dataclass
class Account:
    """The thread time that one user has consumed, in seconds."""

    had_s: float = 0.0


@dataclass(order=True)
class _Job:
    had_s: float
    order: int
    work: Work[Any] = field(compare=False)
    account: Account = field(compare=False)
    outcome: Future[Any] = field(compare=False)


class Turns:
    """One thread with fair queueing: after every step of work, the account that has consumed least is next.

    An account that asks for more than an equal share waits, and the others get what they ask for. An idle account does
    not accumulate credit (start-time fair queueing).

    Args:
        name: the name of the thread.
        share: the maximum fraction of time in which the thread works; it sleeps after every step.

    Source: Goyal, Vin and Cheng, "Start-time fair queueing", SIGCOMM 1996.
    """

    def __init__(self, name: str, *, share: float = 1.0) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._rest_per_s = 1 / share - 1
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._orders = itertools.count()
        # The consumption at which the latest step began. No account starts with less.
        self._least_s = 0.0

    async def do(self, account: Account, work: Work[T]) -> T:
        """Run work in the thread, charge its time to an account, and return its result.

        If the caller is cancelled, the work ends before its next step.
        """
        outcome: Future[T] = Future()
        self._queue(work, account, outcome)
        return await asyncio.wrap_future(outcome)

    def close(self) -> None:
        """Stop the thread after its current step."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _queue(self, work: Work[Any], account: Account, outcome: Future[Any]) -> None:
        with self._lock:
            account.had_s = max(account.had_s, self._least_s)
            heapq.heappush(self._waiting, _Job(account.had_s, next(self._orders), work, account, outcome))
        try:
            # There are as many turns as waiting steps. A turn chooses its step only when it begins.
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
        except BaseException as error:  # any exception belongs to the caller that waits
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
    """Return a call as work of a single step.

    >>> work = whole(max, 2, 3)
    >>> try:
    ...     next(work)
    ... except StopIteration as end:
    ...     print(end.value)
    3
    """
    return function(*arguments)
    yield
