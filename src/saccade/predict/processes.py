"""Work in several processes: results in order, bounded memory, and a process that dies costs only its job.

The pools of Python's library do not serve here. `ProcessPoolExecutor` gives up all jobs when a process dies, and both
import the caller's main module in each process, which runs a script again that is not written for it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from saccade.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")

# Results that wait for an earlier, slower job.
_MAX_AHEAD = 256
_GRACE_S = 5.0
_POLL_S = 1.0
_READY, _RESULT, _RAISED = range(3)
# This file as a program: it imports what the work needs and no more. With -P, the folder of the file is not searched
# for modules.
_COMMAND = (sys.executable, "-P", str(Path(__file__)))
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def in_order(
    prepare: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    *,
    num_processes: int,
    lost: Callable[[Job, str], Result],
) -> Iterator[Result]:
    """Yield the result of each job, in order of the jobs, which are done in several processes of one thread each.

    After Ctrl-C, the results that are there are yielded before KeyboardInterrupt is raised.

    Args:
        prepare: called once in each process, for instance to load a model; returns the function that does a job. Like
            jobs and results, it is pickled.
        jobs: the jobs.
        num_processes: the largest number of processes.
        lost: returns the result of a job whose process died, given the job and how the process died.

    Raises:
        DataError: if no process can start.
        Exception: what `prepare` or a job raises.
    """
    done: dict[int, Result] = {}
    due = 0
    pool = _Pool(prepare, jobs, num_processes, lost)
    try:
        while due < len(jobs):
            done.update(pool.exchange(due + _MAX_AHEAD))
            while due in done:
                yield done.pop(due)
                due += 1
    except KeyboardInterrupt:
        yield from (done[number] for number in sorted(done))
        raise
    finally:
        pool.close()


class Isolated(Generic[Job, Result]):
    """One process that does one job at a time; a job that ends it costs only itself, and another process follows.

    Args:
        prepare: as for `in_order`.
        lost: as for `in_order`.

    Raises:
        DataError: in a call, if no process can start.
        Exception: in a call, what `prepare` or the job raises.
    """

    def __init__(self, prepare: Callable[[], Callable[[Job], Result]], lost: Callable[[Job, str], Result]) -> None:
        self._prepare, self._lost = prepare, lost
        self._worker: _Worker | None = None

    def __call__(self, job: Job) -> Result:
        """Do a job, and return its result."""
        worker = self._worker or self._started()
        worker.begin(0, job)
        found = self._told(worker)
        if isinstance(found, str):
            return self._lost(job, found)
        result: Result = found[0]
        return result

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _started(self) -> _Worker:
        try:
            self._worker = _Worker(self._prepare)
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        worker = self._worker
        if isinstance(why := self._told(worker), str):
            raise _not_started(why)
        return worker

    def _told(self, worker: _Worker) -> tuple[Any] | str:
        """Return the content of the next message, or how the process ended that should have sent it."""
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._worker = None
            return worker.died()
        if kind == _RAISED:
            self.close()
            raise content
        return (content,)


class _Pool(Generic[Job, Result]):
    """Processes, and the jobs that wait for one; arguments as for `in_order`."""

    def __init__(
        self,
        prepare: Callable[[], Callable[[Job], Result]],
        jobs: Sequence[Job],
        num: int,
        lost: Callable[[Job, str], Result],
    ) -> None:
        self._prepare, self._jobs, self._num, self._lost = prepare, jobs, num, lost
        self._waiting = deque(range(len(jobs)))
        self._workers: list[_Worker] = []

    def exchange(self, end: int) -> Iterator[tuple[int, Result]]:
        """Give jobs below number `end` to idle processes; wait a moment for messages, and yield the results in them."""
        while self._waiting and len(self._workers) < self._num:
            try:
                self._workers.append(_Worker(self._prepare))
            except OSError as error:  # no more processes or open files are allowed
                if not self._workers:
                    raise _not_started(error.strerror or str(error)) from error
                self._num = len(self._workers)
        for worker in self._workers:
            if worker.is_ready and worker.number is None and self._waiting and self._waiting[0] < end:
                job = self._waiting.popleft()
                worker.begin(job, self._jobs[job])
        # Not for ever: Ctrl-C just before the wait would be noticed only at the next message.
        told = wait([worker.connection for worker in self._workers], _POLL_S)
        for worker in [worker for worker in self._workers if worker.connection in told]:
            number = worker.number
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):
                why = self._remove(worker)
                if number is not None:
                    yield number, self._lost(self._jobs[number], why)
                continue
            if kind == _RAISED:
                raise content
            worker.is_ready, worker.number = True, None
            if kind == _RESULT and number is not None:
                yield number, content

    def _remove(self, worker: _Worker) -> str:
        """Remove a process that died, and return how; another takes its place, unless it died while it started."""
        self._workers.remove(worker)
        why = worker.died()
        self._num -= not worker.is_ready
        if not self._num:
            raise _not_started(why)
        return why

    def close(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """A process and the job that it does; Ctrl-C at the terminal does not reach it."""

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.number: int | None = None
        self.is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                process_group=0,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        with suppress(OSError):  # it has died: told when it is waited for
            self.connection.send(prepare)

    def begin(self, number: int, job: object) -> None:
        self.number = number
        with suppress(OSError):
            self.connection.send(job)

    def died(self) -> str:
        """Return how a process ended that has closed its connection."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.end()
        status = self._process.returncode
        if status >= 0:
            return f"exit status {status}"
        with suppress(ValueError):
            return signal.Signals(-status).name
        return f"signal {-status}"

    def end(self) -> None:
        """End the process, whatever it does: it writes nothing."""
        self.connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _not_started(why: str) -> DataError:
    return DataError(f"no process for the work could start ({why}); do it in this one: --workers 1")


def serve(handle: str) -> None:
    """Do the jobs of another process until it closes the connection.

    Args:
        handle: the file descriptor of the connection, in decimal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with Connection(int(handle)) as connection, suppress(EOFError, ConnectionError):
        try:
            work = connection.recv()()
            connection.send((_READY, None))
            while True:
                connection.send((_RESULT, work(connection.recv())))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            error.add_note(traceback.format_exc())
            connection.send((_RAISED, _picklable(error)))


def _end_with(parent: int) -> None:
    """End this process when its parent has died: a long job would only notice at its end."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    serve(sys.argv[1])
