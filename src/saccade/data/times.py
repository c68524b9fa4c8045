"""The time stamps of frames: parts of a video, the frame rate, and resampling to another rate."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Generic, TypeVar

import av

Frame = TypeVar("Frame")

# Longest plausible time between two frames of a file of variable rate.
LONGEST_STILL_S = 60.0
_ROUNDING = 0.1  # of a period
# Containers round time stamps, most of them to thousandths of a second.
ROUNDING_S = 0.001


@dataclass(frozen=True)
class Part:
    """A part of a video: all that a player shows from one moment to another.

    Args:
        start_s: where it starts, in seconds after the first frame of the file.
        end_s: where it ends.

    Raises:
        ValueError: if the part has no length.
    """

    start_s: float = 0.0
    end_s: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s or math.isinf(self.start_s):
            raise ValueError(f"the part is from {self.start_s} to {self.end_s} s; 0 <= start < end is needed")

    @property
    def is_whole(self) -> bool:
        """Whether the part is the whole file."""
        return self == Part()

    def __str__(self) -> str:
        return f"from {self.start_s:g} s" + (f" to {self.end_s:g} s" if self.end_s < math.inf else "")


class Times:
    """The display times of frames, and the frame rate that follows from them.

    *Conventions:* times and durations are in seconds.

    >>> times = Times()
    >>> for moment in (0.0, 0.1, 0.5):
    ...     times.add(moment, 0.1)
    >>> round(times.fps(claimed=10.0), 6)
    5.0
    """

    def __init__(self) -> None:
        # Flat arrays: 16 bytes a frame, so that hours of video take megabytes.
        self._moments_s, self._durations_s = array("d"), array("d")

    def add(self, moment_s: float, duration_s: float) -> None:
        """Add a frame, in any order; a duration of 0 means that it is unknown."""
        self._moments_s.append(moment_s)
        self._durations_s.append(duration_s)

    @property
    def num_repeated(self) -> int:
        """The number of frames with the time stamp of the frame that was added before them."""
        return sum(before == after for before, after in pairwise(self._moments_s))

    def fps(self, claimed: float | None) -> float | None:
        """Return the average number of frames per second.

        Args:
            claimed: the rate in the file's header. It is returned if the frames agree with it to one period, since time
                stamps are rounded, or if the frames give no plausible rate.
        """
        steps = [after - before for before, after in pairwise(sorted(self._moments_s))]
        if not steps or not 0 < min(steps) <= max(steps) <= LONGEST_STILL_S:
            return claimed
        _, last_duration_s = max(zip(self._moments_s, self._durations_s, strict=True))
        lasts_s = sum(steps) + (last_duration_s or mean(steps))
        num = len(self._moments_s)
        if claimed and abs(num / claimed - lasts_s) <= 1 / claimed:
            return claimed
        return num / lasts_s


class Resampler(Generic[Frame]):
    """Resample frames to a fixed rate: each period gets the frame that a player shows at its start.

    A frame within a tenth of a period of the start counts as shown at the start, since containers round time stamps. So
    it is known at once, and a live source is not delayed by a frame.

    Args:
        fps: periods per second.
        start_s: the time stamp at which the first period starts; None for that of the first frame.

    >>> resampler = Resampler[str](fps=10)
    >>> [resampler.push(name, moment_s) for name, moment_s in (("a", 5.0), ("b", 5.04), ("c", 5.3), ("d", 5.4))]
    [['a'], [], ['b', 'b', 'c'], ['d']]
    >>> resampler.rest(duration_s=0.2)
    ['d']
    """

    def __init__(self, fps: float, start_s: float | None = None) -> None:
        self._fps, self._start_s = fps, start_s
        self._shown: Frame | None = None
        self._due, self._at = 0, 0.0  # in periods since the start: the next frame to give, and the last frame

    def push(self, frame: Frame, moment_s: float) -> list[Frame]:
        """Add the next frame in display order; return the frames of the periods that are now known."""
        self._start_s = moment_s if self._start_s is None else self._start_s
        moment = (moment_s - self._start_s) * self._fps
        if self._shown is not None and abs(moment - self._at) > LONGEST_STILL_S * self._fps:
            # A time stamp that leaps is wrong.
            self._start_s, moment = moment_s - (self._at + 1) / self._fps, self._at + 1
        self._at = moment if self._shown is None else max(self._at, moment)
        found = []
        while self._shown is not None and self._due < self._at - _ROUNDING:
            found.append(self._shown)
            self._due += 1
        self._shown = frame
        if abs(self._due - self._at) <= _ROUNDING:
            found.append(frame)
            self._due += 1
        return found

    def rest(self, duration_s: float) -> list[Frame]:
        """Return the frames of the periods in which the last frame is still shown, given how long it is shown."""
        last = self._at + min(duration_s, LONGEST_STILL_S) * self._fps
        if self._shown is None:
            return []
        num = max(0, math.ceil(last - _ROUNDING) - self._due)
        self._due += num
        return [self._shown] * num


def at_rate(
    frames: Iterable[av.VideoFrame], fps: float, start_s: float | None = None, num_periods: float = math.inf
) -> Iterator[av.VideoFrame]:
    """Yield the frame that a player shows at the start of each period; a frame without a time stamp is yielded as well.

    Args:
        frames: the frames, in display order.
        fps: periods per second.
        start_s: the time stamp at which the first period starts; None for that of the first frame.
        num_periods: the largest number of frames to yield; all are read in any case.
    """
    resampler = Resampler[av.VideoFrame](fps, start_s)
    last: av.VideoFrame | None = None
    num = 0
    for frame in frames:
        if frame.time is None:
            yield frame
            continue
        last = frame
        for shown in resampler.push(frame, frame.time):
            if num < num_periods:
                num += 1
                yield shown
    for shown in resampler.rest(0.0 if last is None else duration_s(last)):
        if num < num_periods:
            num += 1
            yield shown


def duration_s(frame: av.VideoFrame) -> float:
    """Return how long a frame is shown; 0 if it is unknown."""
    return float((frame.duration or 0) * (frame.time_base or 0))
