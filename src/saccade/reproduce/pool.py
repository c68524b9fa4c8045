"""Trainings side by side, each in a process of its own with its share of the cores.

One process of one thread a core trains more than one process that shares its every operation among all cores, and does
not suffer where another program keeps one of them busy.
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
from saccade.train.interrupts import held_back
from saccade.train.loop import Progress

POLL_S = 0.2
GRACE_S = 2.0
Job = TypeVar("Job")
Result = TypeVar("Result")


def num_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[Job, Progress], Result],
    jobs: Sequence[Job],
    *,
    num_processes: int,
    take: Callable[[int, dict[str, float]], None],
    done: Callable[[int, Result], None] = lambda number, result: None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Do every job, several at a time; with one process, here.

    Ctrl-C or SIGTERM lets each job under way stop as `saccade.train.train` does, with its state saved.

    Args:
        work: does one job; a function of a module, called with the job and with what takes its progress.
        jobs: what is to be done, in the order in which it is begun.
        num_processes: how many at a time.
        take: called with the number of a job and a row of its progress.
        done: called with the number of a job and what it returned.
        tick: called several times a second while jobs are under way; with one process, after every row.

    Raises:
        Interrupted: jobs were stopped.
        DataError: a process died.
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
    threads = max(1, min(torch.get_num_threads(), num_cores() // num_processes))
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
                    # What it said last comes before its end.
                    _drain(rows, take, wait=False)
                    done(waiting[future], _result(future))
                    del waiting[future]
                if interrupted():
                    raise Interrupted("stopped; every training under way saved its state")
        finally:
            stop.set()
            for future in waiting:
                future.cancel()


@contextmanager
def _unheard() -> Iterator[None]:
    """Let processes that start in the block never hear the terminal's Ctrl-C, not even while they load."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # outside the main thread, which alone gets signals
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
            "a training process ended without a word: memory was short (take fewer at once with --jobs), or it could"
            ' not start (a script needs `if __name__ == "__main__":`). The same command continues from what was saved'
        ) from error


# --- In the processes

_rows: Any
_stop: Any
_parent: int
_busy = threading.Event()


def _begin(rows: Any, stop: Any, threads: int, parent: int) -> None:
    """Start a process: it hears of Ctrl-C from the process that began it, which alone belongs to the terminal."""
    global _rows, _stop, _parent
    _rows, _stop, _parent = rows, stop, parent
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGTERM, _stopped)
    rows.cancel_join_thread()  # what nobody reads any more keeps no process from ending
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
    """Stop what is not held back, such as tests, and let the process live: one that dies takes the others with it."""
    if _busy.is_set():
        raise Interrupted("stopped")
    # It may be handing over a result: who ends with the lock of that queue leaves the others waiting for it.
    threading.Timer(GRACE_S, os._exit, (1,)).start()


def _end_with_parent() -> None:
    """Leave when the parent was killed, once the state of what is under way is saved: nobody else would say so."""
    idle_s = 0.0
    while _busy.is_set() or (os.getppid() == _parent and idle_s < GRACE_S):
        time.sleep(POLL_S)
        # Stopped and idle, it ends soon; else it waits for a queue that a killed process held.
        idle_s = idle_s + POLL_S if _stop.is_set() and not _busy.is_set() else 0.0
    os._exit(1)
