"""The engine for one machine: the processes of `saccade predict`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from saccade.predict.bulk import Predictor, lost
from saccade.predict.parquet import Done, Output, Part
from saccade.predict.processes import in_order
from saccade.processors import num_processors


def each(parts: Sequence[Part], work: Predictor, out: Output, *, num_workers: int | None) -> Iterator[Done]:
    """Make some parts, and yield each once it is written.

    Args:
        parts: the parts.
        work: what a worker does.
        out: where the parts are written.
        num_workers: the number of processes; None for one per processor, and one for a GPU.
    """
    clips = [clip for part in parts for clip in part.clips]
    num = num_workers or (num_processors() if work.device.type == "cpu" else 1)
    rows = in_order(work, clips, num_processes=min(num, max(1, len(clips))), lost=lost)
    for part in parts:
        made = list(islice(rows, len(part.clips)))
        if [row["clip"] for row in made] != list(part.clips):  # after Ctrl-C, rows come with gaps
            deque(rows, maxlen=0)  # it ends with KeyboardInterrupt
            return
        yield out.write(part, made)
