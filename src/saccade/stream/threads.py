"""The number of threads that compute the frames of a live source."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from saccade.stream.limits import USUAL_FPS

# The share of a frame's time that one thread may take. The rest is for decoding and for other programs.
_ENOUGH = 0.6
_TRIALS = 5


@contextmanager
def enough_threads(step: Callable[[], object], fps: float | None) -> Iterator[int]:
    """Compute with as few threads as keep the pace inside the block; yield their number.

    Threads wait for each other at every layer. Where another program takes a core now and then, two threads have taken
    ten times the time of one (docs/log.md). So one thread computes if that is fast enough. Otherwise the faster of one
    thread and torch's own number of threads is taken. Both are timed.

    Args:
        step: computes one frame.
        fps: the frames per second that the model takes; None for those of a usual camera.

    >>> with enough_threads(lambda: None, fps=25) as num_threads:
    ...     num_threads
    1
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone_s = _median_s(step)
        if before > 1 and alone_s > _ENOUGH / (fps or USUAL_FPS):
            torch.set_num_threads(before)
            if _median_s(step) > alone_s:
                torch.set_num_threads(1)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _median_s(step: Callable[[], object]) -> float:
    step()  # the first one sets up memory
    times_s = []
    for _ in range(_TRIALS):
        start_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s)
