"""Frames of clips that are read when they are needed, so that a collection of any size fits into memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

from jaxtyping import UInt8
from torch import Tensor

Frames = UInt8[Tensor, "time channels height width"]
K = TypeVar("K")

MAX_BYTES = 1 << 30
"""The default bound of the frames that are kept in memory."""


class RecentFrames(Generic[K]):
    """The frames of the clips that were used last, up to a number of bytes; others are read again.

    Args:
        read: a function that reads the frames of a clip.
        max_bytes: how many bytes of frames are kept in memory.

    >>> import torch
    >>> recent = RecentFrames(lambda clip: torch.zeros(clip, 1, 32, 32, dtype=torch.uint8))
    >>> recent(3).shape
    torch.Size([3, 1, 32, 32])
    """

    def __init__(self, read: Callable[[K], Frames], max_bytes: int = MAX_BYTES) -> None:
        self._read, self._max_bytes = read, max_bytes
        self._kept: dict[K, Frames] = {}
        self._num_bytes = 0
        self._lock = threading.Lock()

    def __call__(self, clip: K) -> Frames:
        """Return the frames of a clip; they must not be written to."""
        with self._lock:
            if (frames := self._kept.pop(clip, None)) is not None:
                self._kept[clip] = frames  # it was used last
                return frames
        # A copy: frames of the cache on disk are mapped, and the number of mappings of a process is limited.
        frames = self._read(clip).clone()
        with self._lock:
            if clip not in self._kept:
                self._kept[clip] = frames
                self._num_bytes += frames.nbytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return frames


class LazyFrames(Sequence[Frames], Generic[K]):
    """A sequence of the frames of clips that reads each clip when it is asked for.

    Args:
        clips: the clips, as `read` knows them.
        read: a function that returns the frames of a clip, such as `RecentFrames`; all have one channel count and size.

    >>> import torch
    >>> frames = LazyFrames([3, 5], lambda clip: torch.zeros(clip, 1, 32, 32, dtype=torch.uint8))
    >>> len(frames), len(frames[1])
    (2, 5)
    """

    def __init__(self, clips: Sequence[K], read: Callable[[K], Frames]) -> None:
        self._clips, self._read = clips, read

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> Frames: ...

    @overload
    def __getitem__(self, index: slice) -> LazyFrames[K]: ...

    def __getitem__(self, index: int | slice) -> Frames | LazyFrames[K]:
        """Return the frames of a clip, or a shorter sequence."""
        if isinstance(index, slice):
            return LazyFrames(self._clips[index], self._read)
        frames: Frames = self._read(self._clips[index])
        return frames
