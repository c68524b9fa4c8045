"""The number of processors that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def num_processors(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processors this process may use: its affinity and the limits of its container count.

    The limits of all control groups above the process count, not only those of a container: a batch system or systemd
    sets them too.

    Args:
        groups: the folder of Linux's control groups.
        own: the file that names the groups of this process.

    >>> num_processors() >= 1
    True
    """
    num = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([num, *(math.ceil(quota) for quota in _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the limits on processor time, in processors, of the groups of this process and those above them."""
    for line in _read(own).splitlines():
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        # Version 2 has one hierarchy, version 1 one for each set of controllers.
        base = groups / controllers if "cpu" in controllers.split(",") else groups
        for folder in (base / part for part in _and_above(place)):
            quota_and_period = _read(folder / "cpu.max") or " ".join(
                _read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
            )
            with suppress(ValueError, ZeroDivisionError):  # the quota may be "max", or missing
                quota, period = map(int, quota_and_period.split())
                if quota > 0:
                    yield quota / period


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # not everywhere, and not of this version
        return ""


def _and_above(place: str) -> Iterator[Path]:
    path = Path(place.lstrip("/"))
    yield from (path, *path.parents)
