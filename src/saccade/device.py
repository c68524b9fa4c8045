"""The choice of device, number format and threads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from saccade.errors import UsageError, unknown_name
from saccade.processors import described, num_processors

PRECISIONS = ("auto", "float32", "bfloat16")
# Of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def choose_device(device: str) -> torch.device:
    """Return the device for the name `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: if the name is unknown, or if CUDA is named but not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise unknown_name("device", device, ("auto", "cpu", "cuda"))
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {device!r} was asked for, but torch sees no CUDA device; use --device cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise unknown_name("device", device, ("auto", "cpu", "cuda")) from error


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of matrix products; `auto` means bfloat16 where the device gains from it.

    Raises:
        UsageError: if the name is unknown.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    gains = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_gains()
    return torch.bfloat16 if gains else torch.float32


@contextmanager
def prepared_process() -> Iterator[None]:
    """Settle what holds for a whole process: the number of threads, kept memory, and denormal numbers that are zero.

    It is entered before torch starts its threads, which take over how the first one treats denormal numbers. At the
    end, the first one treats them as before.
    """
    limit_threads()
    keep_freed_memory()
    with flushed_denormals():
        yield


def limit_threads() -> None:
    """Let torch use no more threads than the processors of this process; by itself, it ignores a container's limit."""
    if torch.get_num_threads() > (limit := num_processors()):
        torch.set_num_threads(limit)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat numbers below 1.2e-38 as zero while the block runs, in this thread.

    Threads that torch starts within the block do the same, and go on so after it; those that it has started before do
    not. `prepared_process` settles it for all threads.

    The momentum of a unit that nothing activates any more decays into such numbers. On x86 processors, an operation
    with one of them takes a hundred times as long, so that trainings with such units became ever slower.

    >>> with flushed_denormals():
    ...     (torch.tensor(1e-30) * 1e-10).item()
    0.0
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy before 2.4 would warn if it found these limits without denormal numbers
    before = (torch.tensor(1e-30, dtype=torch.float32, device="cpu") * 1e-10).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _cpu_gains() -> bool:
    """Return whether training steps are shorter with bfloat16 on this processor (docs/log.md).

    Without products of bfloat16 it is emulated, which is several times slower. With AMX, steps are shorter. With
    AVX-512 alone, they took two thirds of the time on an AMD EPYC, and up to 1.5 times as long on an Intel Xeon.
    """
    # torch has no public functions for this.
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and described("vendor_id") == "AuthenticAMD"


def keep_freed_memory() -> bool:
    """Let the C library keep memory that torch has freed, for the next step; return whether it does.

    glibc gives large blocks back to the system. Each layer then gets its memory again page by page, which takes a fifth
    of the time of a frame of 224x224 px in EfficientNet-lite0 (docs/log.md).
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    # Both, since the second alone would stop the first from growing by itself. It can be no larger.
    return all(set_option(*option) == 1 for option in ((_MMAP_THRESHOLD, 1 << 25), (_TRIM_THRESHOLD, 1 << 30)))
