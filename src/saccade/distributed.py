"""Several processes that torchrun started: which part of the work each has, and what all of them agree on.

A process by itself is the first and only one, so that callers need no second way.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from saccade.clips import part_of
from saccade.errors import DataError, NonFiniteError, SaccadeError, UsageError
from saccade.processors import PARENT, num_launched

_T = TypeVar("_T")

# The processes of a launch start together, on machines that a launcher has already brought together.
_TO_MEET = timedelta(minutes=10)
_TO_REACH_S = 10.0
# A process that has died ends the others at once. One that decodes a large collection may let them wait for hours.
_PATIENCE = timedelta(days=1)
# What torch says if a process that it waits for is gone.
_LOST = re.compile("gloo/transport|NCCL .*remote|DistNetworkError|Connection (closed|reset) by peer")
# Errors with one message, which can be raised anew in another process.
_OWN: tuple[type[SaccadeError], ...] = (UsageError, DataError, NonFiniteError)


def is_launched() -> bool:
    """Return whether torchrun, or another launcher that sets its variables, started this process as one of several."""
    return num_launched() > 1


def is_restarted() -> bool:
    """Return whether torchrun started the processes anew, with the same arguments, after one of them had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launcher() -> str | None:
    """Return what tells this launch from others; None without a launcher."""
    return f"{platform.node()} {os.getppid()}" if is_launched() else None


def num_here() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that the launcher started, while the block runs; without a launcher, do nothing.

    Raises:
        SaccadeError: if another process ends before this one.
    """
    if not is_launched() or dist.is_initialized():
        yield
        return
    # DistributedDataParallel imports this module. Its functions have the group of all processes at that time as a
    # default, and would keep it alive.
    import torch.distributed.nn

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        _check_launcher()
        store, number, num = next(iter(rendezvous("env://", timeout=_TO_MEET)))
        # A launcher that starts its processes again may keep the store, with the addresses of those before.
        count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        attempt = dist.PrefixStore(count, store)  # type: ignore[attr-defined]
        dist.init_process_group(store=attempt, rank=number, world_size=num, timeout=_PATIENCE)
        try:
            yield
        except BaseException as error:
            _forget_locals(error)
            raise
        finally:
            dist.destroy_process_group()
            # The threads of the group live as long as the last object that refers to it, and modules refer to one
            # another. One that lets go of a tensor while the interpreter ends aborts the process.
            gc.collect()
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise SaccadeError(
            "another process of this training has ended, and says why if it can; continue from the last checkpoint"
            " with --resume"
        ) from error


def launcher_is_gone() -> bool:
    """Return whether the launcher was killed and left this process behind.

    A process without a launcher may outlive its parent.

    >>> launcher_is_gone()
    False
    """
    return is_launched() and os.getppid() != PARENT


def _check_launcher() -> None:
    """Raise SaccadeError if the launcher, whose store tells the processes of one another, ended while this one started.

    Torch would try to reach it for as long as the processes may take to meet.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # the first process holds the store, and may start later
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    end = time.monotonic() + _TO_REACH_S
    while True:
        try:
            socket.create_connection(address, timeout=_TO_REACH_S).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise SaccadeError(
                    f"the launcher of this process cannot be reached at {':'.join(map(str, address))} ({error}); start"
                    " the training again, with --resume if it had begun"
                ) from error
        time.sleep(0.5)


def _forget_locals(error: BaseException | None) -> None:
    """Clear the local variables of the frames that an error and those before it passed: they hold modules."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Return whether this is the process that writes files and prints."""
    return rank() == 0


def part(num: int) -> range:
    """Return which of `num` things this process has; parts cover all, each thing once, and differ by one at most.

    >>> part(8)
    range(0, 8)
    """
    return part_of(range(num), (rank(), size()))


def from_first(value: _T) -> _T:
    """Return what the first process passed."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def gathered(value: _T) -> list[_T]:
    """Return what each process passed, in the order of their numbers."""
    if size() == 1:
        return [value]
    held: list[Any] = [None] * size()
    dist.all_gather_object(held, value)
    return held


def rows(values: Sequence[float]) -> Float[Tensor, "processes values"]:
    """Return the numbers of all processes, a row for each; this is much cheaper than `gathered`.

    >>> rows([1.0, 2.0]).tolist()
    [[1.0, 2.0]]
    """
    found = torch.zeros(size(), len(values), dtype=torch.float64)
    found[rank()] = torch.tensor(values, dtype=torch.float64)
    if size() > 1:
        dist.all_reduce(found)
    return found


def any_of(flag: bool) -> bool:
    """Return whether a process passed True."""
    return (size() == 1 and flag) or bool(rows([flag]).any())


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise an error that a process raises in the block in all processes, since they would wait for it.

    Raises:
        SaccadeError: that of the first process that failed; the message has its number.
    """
    failure: SaccadeError | None = None
    try:
        yield
    except SaccadeError as error:
        if size() == 1:
            raise
        failure = error
    if size() == 1 or not any_of(failure is not None):
        return
    told = gathered(None if failure is None else (type(failure), str(failure)))
    number, kind, message = next((number, *found) for number, found in enumerate(told) if found is not None)
    raise (kind if kind in _OWN else DataError)(f"process {number}: {message}") from failure


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process run the block before the others, which then find what it has stored."""
    if size() == 1:
        yield
        return
    if not is_first():
        dist.barrier()
    yield
    if is_first():
        dist.barrier()
