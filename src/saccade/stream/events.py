"""Events in a stream of probabilities: smoothed over time, with one threshold to begin and a lower one to end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from saccade.labels import Labels

SMOOTHING_S = 0.25
"""The time constant of the exponential mean of probabilities, in seconds."""

RELEASE = 0.6
"""An event ends where the smoothed probability of its class falls below this share of the threshold."""


@dataclass(frozen=True)
class Event:
    """Something that happens in a stream.

    *Conventions:* times are in seconds after the first frame of the stream.

    Args:
        name: the class.
        start_s: when it was noticed: the smoothed probability of its class reached the threshold.
        end_s: when it ended; None while it lasts.
        peak_probability: the largest smoothed probability of the class so far.
        peak_s: when that was.
    """

    name: str
    start_s: float
    end_s: float | None
    peak_probability: float
    peak_s: float


class Events:
    """Find the events in the probabilities of a stream.

    An event begins where the smoothed probability of a class reaches the threshold; if classes exclude each other, the
    class must also be the most probable one. It ends where that probability falls below `RELEASE` of the threshold, or
    where another class begins, if they exclude each other. The class `labels.none` is no event. Smoothing begins at
    probability 0, since one frame says little.

    Args:
        labels: the classes.
        threshold: the smoothed probability at which an event begins; None for `labels.min_confidence`.
        smoothing_s: the time constant of the mean, in seconds; 0 for none.

    Raises:
        ValueError: if the threshold lies outside 0 to 1, or the time constant is negative.

    >>> events = Events(Labels(("none", "wave"), none="none"), threshold=0.5, smoothing_s=0)
    >>> said = [(0.0, 0.9), (0.1, 0.2), (0.2, 0.1), (0.3, 0.8)]  # times, and probabilities of "none"
    >>> found = [event for time_s, p in said for event in events.push(time_s, (p, 1 - p))]
    >>> [(event.name, event.start_s, event.end_s) for event in found]
    [('wave', 0.1, None), ('wave', 0.1, 0.3)]
    """

    def __init__(self, labels: Labels, *, threshold: float | None = None, smoothing_s: float = SMOOTHING_S) -> None:
        self.threshold = labels.min_confidence if threshold is None else threshold
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in 0 to 1; got {threshold}")
        if smoothing_s < 0:
            raise ValueError(f"smoothing_s must be at least 0; got {smoothing_s}")
        self._labels, self._smoothing_s = labels, smoothing_s
        self._smooth = [0.0] * len(labels.names)
        self._last_s: float | None = None
        self._lasting: dict[int, Event] = {}

    def push(self, time_s: float, probabilities: Sequence[float]) -> list[Event]:
        """Add the probabilities at a moment, later than those before; return the events that end or begin now."""
        self._follow(time_s, probabilities)
        begins = [index for index in self._above() if index not in self._lasting]
        ends = [
            index
            for index in self._lasting
            if self._smooth[index] < RELEASE * self.threshold or (begins and self._labels.exclusive)
        ]
        found = [self._ended(index, time_s) for index in ends]
        for index, event in self._lasting.items():
            if self._smooth[index] > event.peak_probability:
                self._lasting[index] = replace(event, peak_probability=self._smooth[index], peak_s=time_s)
        for index in begins:
            p = self._smooth[index]
            self._lasting[index] = Event(self._labels.names[index], time_s, None, p, time_s)
            found.append(self._lasting[index])
        return found

    @property
    def lasting(self) -> list[Event]:
        """The events that last now, with their peaks so far."""
        return list(self._lasting.values())

    def reset(self) -> list[Event]:
        """Forget what was before, as after a gap; return the events that lasted until then, with their ends."""
        ended = [self._ended(index, self._last_s or 0.0) for index in list(self._lasting)]
        self._smooth, self._last_s = [0.0] * len(self._labels.names), None
        return ended

    def _follow(self, time_s: float, probabilities: Sequence[float]) -> None:
        # The first frame counts as if it were one time constant's tenth after the beginning, whatever the rate is.
        elapsed_s = 0.1 * self._smoothing_s if self._last_s is None else max(0.0, time_s - self._last_s)
        weight = 1.0 if not self._smoothing_s else 1 - math.exp(-elapsed_s / self._smoothing_s)
        self._smooth = [old + weight * (new - old) for old, new in zip(self._smooth, probabilities, strict=True)]
        self._last_s = time_s

    def _above(self) -> list[int]:
        """Return the classes that reach the threshold, apart from the one that means nothing."""
        reach = [index for index, p in enumerate(self._smooth) if p >= self.threshold]
        if self._labels.exclusive:
            reach = [index for index in reach if self._smooth[index] == max(self._smooth)][:1]
        return [index for index in reach if self._labels.names[index] != self._labels.none]

    def _ended(self, index: int, time_s: float) -> Event:
        return replace(self._lasting.pop(index), end_s=time_s)
