"""The number of processors and the memory that this process may use, and what the processors are."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PARENT = os.getppid()
"""The process that had started this one when this module was imported, which is before torch: later it may be gone."""


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


def num_launched() -> int:
    """Return how many processes of this program a launcher such as torchrun has started; 1 without a launcher."""
    num = os.environ.get("WORLD_SIZE", "")
    return int(num) if "RANK" in os.environ and num.isdecimal() else 1


def memory_bytes(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return how much memory this process may use at most: that of the machine, and the limits of its container.

    Infinity is returned where the system does not tell.

    Args:
        groups: the folder of Linux's control groups.
        own: the file that names the groups of this process.

    >>> memory_bytes() > 1e6
    True
    """
    limits = [math.inf]
    with suppress(AttributeError, ValueError, OSError):  # not on every system
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _folders(groups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(ValueError):  # the limit may be "max", or missing
                limits.append(int(_read(folder / name)))
    return min(limits)


def limit_memory(more_bytes: int) -> None:
    """Limit the memory that this process may take from now on, so that one clip cannot take all of it; only on Linux.

    Args:
        more_bytes: how many bytes more than now.
    """
    if sys.platform != "linux":
        return
    import resource

    lines = _read(Path("/proc/self/status")).splitlines()
    taken_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    wanted, (_, hard) = (taken_kib << 10) + more_bytes, resource.getrlimit(resource.RLIMIT_DATA)
    # RLIMIT_AS would count the gigabytes of address space that libraries only reserve.
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def described(name: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what the system says of the first processor; "" where it says nothing.

    Args:
        name: what is asked for, in Linux's words: `vendor_id` (`GenuineIntel`, `AuthenticAMD`) or `model name`.
        cpuinfo: Linux's description of the processors.
    """
    for line in _read(cpuinfo).splitlines():
        before, _, value = line.partition(":")
        if before.strip() == name:
            return value.strip()
    return ""


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the limits on processor time, in processors, of the groups of this process and those above them."""
    for folder in _folders(groups, own, "cpu"):
        quota_and_period = _read(folder / "cpu.max") or " ".join(
            _read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
        )
        with suppress(ValueError, ZeroDivisionError):  # the quota may be "max", or missing
            quota, period = map(int, quota_and_period.split())
            if quota > 0:
                yield quota / period


def _folders(groups: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of this process, and of those above them, that may limit what is controlled."""
    for line in _read(own).splitlines():
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        # Version 2 has one hierarchy, version 1 one for each set of controllers.
        base = groups / controllers if controller in controllers.split(",") else groups
        yield from (base / part for part in _and_above(place))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")  # a group may have any name
    except OSError:  # not everywhere, and not of this version
        return ""


def _and_above(place: str) -> Iterator[Path]:
    path = Path(place.lstrip("/"))
    yield from (path, *path.parents)
