"""Trainings in parallel, each in its own process with its share of the cores.

One process with one thread per core trains faster than one process that splits every operation among all cores, and is
not slowed down if another program keeps a core busy.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from saccade.errors import DataError, Interrupted
from saccade.processors import num_processors
from saccade.train.interrupts import held_back
from saccade.train.loop import Progress

POLL_S = 0.2
GRACE_S = 2.0
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_all(
    work: Callable[[Job, Progress], Result],
    jobs: Sequence[Job],
    *,
    num_processes: int,
    take: Callable[[int, dict[str, float]], None],
    done: Callable[[int, Result], None] = lambda number, result: None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Do every job, several at a time; with `num_processes` of 1, in this process.

    On Ctrl-C or SIGTERM, each running job saves its state and stops, as `saccade.train.train` does.

    Args:
        work: the function that does one job. It is defined at the top level of a module, and is called with the job
            and a function that takes rows of progress.
        jobs: the jobs, in the order in which they start.
        num_processes: the number of jobs at a time.
        take: a function that is called with the number of a job and a row of its progress.
        done: a function that is called with the number of a job and its result.
        tick: a function that is called several times a second while jobs run; with one process, after every row.

    Raises:
        Interrupted: if jobs were stopped.
        DataError: if a process died.
    """
    if num_processes <= 1:
        for number, job in enumerate(jobs):

            def show(row: dict[str, float], number: int = number) -> None:
                take(number, row)
                tick()

            done(number, work(job, show))
        return
    context = multiprocessing.get_context("spawn")
    rows, stop = context.Queue(), context.Event()
    threads = max(1, min(torch.get_num_threads(), num_processors() // num_processes))
    with (
        held_back() as interrupted,
        ProcessPoolExecutor(num_processes, context, _begin, (rows, stop, threads, os.getpid())) as pool,
    ):
        with _unheard():
            waiting = {pool.submit(_work, work, job, number): number for number, job in enumerate(jobs)}
        try:
            while waiting:
                _drain(rows, take)
                tick()
                for future in [future for future in waiting if future.done()]:
                    # Take the last rows of a job before its result.
                    _drain(rows, take, wait=False)
                    done(waiting[future], _result(future))
                    del waiting[future]
                if interrupted():
                    raise Interrupted("stopped; every running training saved its state")
        finally:
            stop.set()
            for future in waiting:
                future.cancel()


@contextmanager
def _unheard() -> Iterator[None]:
    """Make processes that start in the block ignore the terminal's Ctrl-C, even while they load."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # outside the main thread, which alone receives signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _drain(rows: Any, take: Callable[[int, dict[str, float]], None], *, wait: bool = True) -> None:
    try:
        take(*rows.get(timeout=POLL_S if wait else 0.01))
        while True:
            take(*rows.get_nowait())
    except queue.Empty:
        pass


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a training process died without a message: memory ran out (train fewer at once with --jobs), or it could"
            ' not start (a script needs `if __name__ == "__main__":`); the same command continues from the saved state'
        ) from error


# --- In the worker processes

_rows: Any
_stop: Any
_parent: int
_busy = threading.Event()


def _begin(rows: Any, stop: Any, threads: int, parent: int) -> None:
    """Set up a worker process, which learns of Ctrl-C only from its parent, since it leaves the terminal's group."""
    global _rows, _stop, _parent
    _rows, _stop, _parent = rows, stop, parent
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGTERM, _stopped)
    rows.cancel_join_thread()  # rows that nobody reads must not keep the process from ending
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work(work: Callable[[Job, Progress], Result], job: Job, number: int) -> Result:
    stopped = False

    def show(row: dict[str, float]) -> None:
        nonlocal stopped
        orphaned = os.getppid() != _parent
        if not orphaned:
            _rows.put((number, row))
        if not stopped and (orphaned or _stop.is_set()):
            stopped = True
            signal.raise_signal(signal.SIGTERM)

    if _stop.is_set():
        raise Interrupted("not begun")
    _busy.set()
    try:
        return work(job, show)
    finally:
        _busy.clear()


def _stopped(_number: int, _frame: object) -> None:
    """Stop work that holds no signals back, such as tests, but not the process: its death would end the whole pool."""
    if _busy.is_set():
        raise Interrupted("stopped")
    # It may be sending a result: if it ended with the lock of that queue, the others would wait for the lock.
    threading.Timer(GRACE_S, os._exit, (1,)).start()


def _end_with_parent() -> None:
    """End this process if its parent was killed, once running work has saved its state: no signal would tell it."""
    idle_s = 0.0
    while _busy.is_set() or (os.getppid() == _parent and idle_s < GRACE_S):
        time.sleep(POLL_S)
        # When stopped and idle, it ends soon; otherwise it could wait for a queue that a killed process held.
        idle_s = idle_s + POLL_S if _stop.is_set() and not _busy.is_set() else 0.0
    os._exit(1)
