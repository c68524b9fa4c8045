"""Read every clip of a collection in parallel processes, and record what it holds; no file can end the scan."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.data import members, video
from saccade.data.collection import Collection, Entry
from saccade.data.duplicates import fingerprint
from saccade.data.frame_cache import FrameCache, default_folder, default_max_bytes
from saccade.data.pixels import Size
from saccade.errors import DataError, UsageError
from saccade.processors import limit_memory, num_processors

TIME_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 4 << 30
_SMALL_PX = 32
_FPS = 30.0  # two hours at this rate and size take about 200 MB
_POLL_S = 0.2
_GRACE_S = 2.0


@dataclass(frozen=True)
class Record:
    """What a scan found in a clip; a property is None if it is unknown or the clip cannot be read.

    Args:
        entry: the clip.
        digest: SHA-256 of the file, as hexadecimal digits.
        num_bytes: the size of the file.
        num_frames: the number of decoded frames.
        duration_s: their display time in seconds.
        fps: their average number per second.
        size: (height, width) of the first frame, as a player shows it.
        codec: FFmpeg's name of the codec.
        bit_rate_bps: bits of the video per second.
        warning: one line if the file is damaged and only a part of it could be read.
        error: one line if the clip cannot be read.
        fingerprint: what `duplicates.find` compares, from `duplicates.fingerprint`.
    """

    entry: Entry
    digest: str | None = None
    num_bytes: int | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    codec: str | None = None
    bit_rate_bps: float | None = None
    warning: str | None = None
    error: str | None = None
    fingerprint: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)


def read_small(entry: Entry) -> video.Clip:
    """Return a clip with small grey frames, which suffice to compare clips.

    Raises:
        DataError: as for `video.read_clip`.
    """
    size = (_SMALL_PX, _SMALL_PX)
    return video.read_clip(entry.path, size=size, fps=_FPS, start_s=entry.start_s, end_s=entry.end_s)


def read_cached(
    entry: Entry, *, size: Size | None, num_channels: int, fps: float | None, digest: str | None = None
) -> video.Clip:
    """Return a clip through the default frame cache, so that it is decoded once.

    Args and errors are those of `FrameCache.read`.
    """
    return _cache_in(default_folder()).read(
        entry.path,
        size=size,
        num_channels=num_channels,
        fps=fps,
        start_s=entry.start_s,
        end_s=entry.end_s,
        digest=digest,
    )


def cache_warning() -> str | None:
    """Return one line if the default frame cache could not be used, by this process or by one that scanned for it."""
    return _cache_in(default_folder()).warning


@cache
def _cache_in(folder: Path) -> FrameCache:
    """Return this process's cache in a folder; a new one would measure the whole folder at its first entry."""
    return FrameCache(folder, default_max_bytes(folder))


def scan(
    collection: Collection,
    *,
    read: Callable[[Entry], video.Clip] = read_small,
    workers: int | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """Read every clip in parallel processes; return a record of each, in order of the collection's entries.

    A clip that cannot be read, takes too long, needs too much memory or crashes its process costs only itself: its
    record says why, and the scan continues. Each process uses one thread.

    Args:
        collection: the clips.
        read: a function that reads a clip, with its `source`; it is defined at the top level of a module.
        workers: the number of processes; None takes the number of processors.
        time_limit_s: the longest time in seconds that one clip may take.
        memory_limit_bytes: how much memory one process may take to read a clip; only Linux keeps this limit.
        progress: a function that is called with the number of clips read and the total.

    Raises:
        UsageError: if there are no workers, or no time.
        DataError: if the processes cannot start.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1; got {workers}")
    if not time_limit_s > 0:
        raise UsageError(f"time_limit_s must be above 0; got {time_limit_s}")
    entries = collection.entries
    begin = partial(_Worker, partial(_serve, read=read, memory_limit_bytes=memory_limit_bytes))
    records: dict[int, Record] = {}
    with closing(_in_processes(entries, begin, workers or num_processors(), time_limit_s)) as found:
        for number, record in found:
            records[number] = record
            if progress is not None:
                progress(len(records), len(entries))
    return [records[number] for number in range(len(entries))]


def _in_processes(
    entries: Sequence[Entry], begin: Callable[[], _Worker], num_workers: int, time_limit_s: float
) -> Generator[tuple[int, Record], None, None]:
    """Yield the number and the record of each clip, as they become known; a process that died is replaced."""
    waiting = deque(enumerate(entries))
    pool: list[_Worker] = []
    num_left = len(entries)
    try:
        while num_left:
            pool = [worker for worker in pool if not worker.lost]
            while len(pool) < min(num_workers, num_left):
                try:
                    pool.append(begin())
                except OSError as error:  # no more processes or open files are allowed
                    raise _not_started(error.strerror or str(error)) from error
            for worker in pool:
                if worker.ready and waiting:
                    worker.take(*waiting.popleft(), time_limit_s)
            wait([worker.connection for worker in pool], _POLL_S)
            for found in chain.from_iterable(worker.results(time_limit_s) for worker in pool):
                num_left -= 1
                yield found
    finally:
        for worker in pool:
            worker.end()


def record_of(entry: Entry, read: Callable[[Entry], video.Clip]) -> Record:
    """Return the record of one clip, read in this process; whatever goes wrong in reading becomes its error."""
    record = Record(entry)
    try:
        record = replace(record, digest=members.digest_of(entry.path), num_bytes=members.state(entry.path)[0])
        clip = read(entry)
        marks = fingerprint(clip.frames)
    except DataError as error:
        return replace(record, error=str(error))
    except MemoryError:
        return replace(record, error=f"{entry.path} needs more memory than a clip may take; make it shorter or smaller")
    except Exception as error:  # a file of any content must not end the scan
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return replace(record, error=f"{entry.path} cannot be read ({' '.join(str(why).split())})")
    record = replace(record, warning=clip.warning, fingerprint=marks)
    if clip.source is None:
        return record
    names = ("num_frames", "duration_s", "fps", "size", "codec", "bit_rate_bps")
    return replace(record, **{name: getattr(clip.source, name) for name in names})


class _Worker:
    """A process that reads one clip at a time, and may die of it."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._job: tuple[int, Entry] | None = None
        self._ends_at_s = math.inf
        self._started = self.ready = self.lost = False

    def take(self, number: int, entry: Entry, time_limit_s: float) -> None:
        """Begin to read a clip."""
        self._job, self.ready = (number, entry), False
        self._ends_at_s = time.monotonic() + time_limit_s
        with suppress(OSError):  # the process was killed meanwhile, as `results` will find
            self.connection.send(entry)

    def results(self, time_limit_s: float) -> Iterator[tuple[int, Record]]:
        """Yield the number and the record of the clip, if it has been read or has failed."""
        job, failed, record = self._job, None, None
        try:
            if self.connection.poll():
                record, warning = self.connection.recv()
                cache_here = _cache_in(default_folder())
                cache_here.warning = cache_here.warning or warning
                self._started = self.ready = True
            elif time.monotonic() > self._ends_at_s:
                failed = f"took longer than {time_limit_s:g} s to read; raise the limit, or cut the clip"
        except (EOFError, OSError):
            self._process.join(_GRACE_S)
            failed = f"ended the process that read it ({self._cause()}); encode the file again"
        if failed is not None:
            self.lost = True
            self.end()
            if not self._started:
                raise _not_started(self._cause())
            record = Record(job[1], error=f"{job[1].path} {failed}") if job is not None else None
        if job is not None and record is not None:
            self._job, self._ends_at_s = None, math.inf
            yield job[0], record

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join(_GRACE_S)
        self.connection.close()

    def _cause(self) -> str:
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit status {code}"
        name = signal.Signals(-code).name
        return f"{name}: perhaps the memory ran out" if name == "SIGKILL" else f"{name}: its decoder crashed"


def _not_started(why: str) -> DataError:
    return DataError(
        f"a process that reads clips could not start ({why}); raise the limits of the shell (ulimit), or, in a script,"
        ' call scan below `if __name__ == "__main__":`'
    )


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # a new process then starts within milliseconds
    return context


def _serve(connection: Connection, *, read: Callable[[Entry], video.Clip], memory_limit_bytes: int) -> None:
    """Read clips in this process until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scan ends its processes itself
    torch.set_num_threads(1)
    limit_memory(memory_limit_bytes)
    try:
        connection.send((None, None))
        while True:
            connection.send((record_of(connection.recv(), read), cache_warning()))
    except (EOFError, OSError):
        return
