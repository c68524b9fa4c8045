"""Clips joined to a stream: events with background between them, and how well the events are found."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from saccade.intervals import wilson_interval
from saccade.labels import MIN_CONFIDENCE, Labels
from saccade.stream.events import Event, Events

LATEST_S = 1.0
"""An event that is noticed later than this after its end counts as missed."""

MOST_FALSE_ALARMS = 1.0
"""The number of false alarms a minute that the threshold in a checkpoint gives on validation clips."""

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)


@dataclass(frozen=True)
class Segment:
    """A part of a clip in a joined stream.

    *Conventions:* frames are numbered from 0; the last one is exclusive.

    Args:
        clip: the index of the clip.
        first: its first frame.
        last: the frame after its last one.
        is_event: whether the clip is an event; otherwise it is background.
    """

    clip: int
    first: int
    last: int
    is_event: bool

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Span:
    """When an event happens in a joined stream, in seconds after its first frame."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Stream:
    """What a model says of a joined stream.

    Args:
        probabilities: those of each class at each frame.
        happens: the events of the stream.
    """

    probabilities: Sequence[Sequence[float]]
    happens: Sequence[Span]


@dataclass(frozen=True)
class Found:
    """How well the events of a stream were found at a threshold.

    Args:
        threshold: the threshold.
        num_events: the number of events in the stream.
        num_found: the number of events that were noticed by their class, before `LATEST_S` after their end.
        num_false: the number of events that were noticed where there was none of that class.
        minutes: the length of the stream.
        delay_s: the median time from the beginning of an event to its notice; None if none was found.
    """

    threshold: float
    num_events: int
    num_found: int
    num_false: int
    minutes: float
    delay_s: float | None

    @property
    def recall(self) -> float:
        """The share of events that were found."""
        return self.num_found / self.num_events if self.num_events else 0.0

    @property
    def false_per_minute(self) -> float:
        """The number of false alarms a minute."""
        return self.num_false / self.minutes if self.minutes else 0.0

    @property
    def told(self) -> str:
        """The figures in words, with a 95 % interval for the share of events that are found."""
        low, high = (100 * end for end in wilson_interval(self.num_found, self.num_events))
        delay = "" if self.delay_s is None else f", half of these within {self.delay_s:.1f} s of their beginning"
        return (
            f"threshold {self.threshold:g}: {self.num_found} of {self.num_events} events found"
            f" ({100 * self.recall:.0f} %, 95 % interval {low:.0f} to {high:.0f}){delay};"
            f" {self.num_false} false alarms in {self.minutes:.0f} minutes"
        )


def joined(
    lengths: Sequence[int], is_event: Sequence[bool], *, num_background: int, rng: random.Random
) -> list[Segment]:
    """Join clips to a stream: each event once, in random order, with background before, between and after.

    Args:
        lengths: the number of frames of each clip.
        is_event: whether each clip is an event; the others are background.
        num_background: the number of background frames. Background clips are repeated until there are so many; the
            lengths of the gaps vary from half the mean to one and a half of it.
        rng: the source of all choices.

    Raises:
        ValueError: if there is no event or no background.
    """
    events = [clip for clip, event in enumerate(is_event) if event]
    background = [clip for clip, event in enumerate(is_event) if not event]
    if not events or not background:
        raise ValueError(f"there are {len(events)} events and {len(background)} background clips; both are needed")
    rng.shuffle(events)
    mean = num_background / (len(events) + 1)
    left: list[int] = []
    found: list[Segment] = []
    for place in range(len(events) + 1):
        gap = max(1, round(mean * rng.uniform(0.5, 1.5)))
        while gap > 0:
            if not left:
                left = rng.sample(background, len(background))
            clip = left.pop()
            first = rng.randrange((lengths[clip] + 1) // 2)
            found.append(Segment(clip, first, min(lengths[clip], first + gap), False))
            gap -= len(found[-1])
        if place < len(events):
            found.append(Segment(events[place], 0, lengths[events[place]], True))
    return found


def plan(
    lengths: Sequence[int], targets: Sequence[int], labels: Labels, fps: float, *, background_s: float, seed: int
) -> tuple[list[Segment], list[Span]]:
    """Join labelled clips to a stream; return its parts, and when its events happen.

    Args:
        lengths: the number of frames of each clip.
        targets: the class of each clip.
        labels: the classes, one of which means that nothing happens.
        fps: frames per second.
        background_s: the length of the background, in seconds.
        seed: the seed of all choices.

    Raises:
        ValueError: as `joined`.
    """
    names = [labels.names[target] for target in targets]
    is_event = [name != labels.none for name in names]
    segments = joined(lengths, is_event, num_background=round(background_s * fps), rng=random.Random(seed))
    return segments, spans(segments, names, fps)


def spans(segments: Iterable[Segment], names: Sequence[str], fps: float) -> list[Span]:
    """Return when the events of a joined stream happen.

    Args:
        segments: the stream.
        names: the class of each clip.
        fps: frames per second.
    """
    found, frame = [], 0
    for segment in segments:
        if segment.is_event:
            found.append(Span(names[segment.clip], frame / fps, (frame + len(segment)) / fps))
        frame += len(segment)
    return found


def score(streams: Sequence[Stream], labels: Labels, fps: float, threshold: float) -> Found:
    """Return how well the events of streams are found.

    Several notices of one event count once.

    Args:
        streams: the streams.
        labels: the classes.
        fps: frames per second.
        threshold: the threshold of events.
    """
    delays_s: list[float] = []
    num_false = 0
    for stream in streams:
        first: dict[Span, float] = {}
        for event in _noticed(stream, labels, fps, threshold):
            span = next((span for span in stream.happens if _is_of(event, span)), None)
            if span is None:
                num_false += 1
            else:
                first.setdefault(span, event.start_s - span.start_s)
        delays_s += first.values()
    num_events = sum(len(stream.happens) for stream in streams)
    num_frames = sum(len(stream.probabilities) for stream in streams)
    delay_s = median(delays_s) if delays_s else None
    return Found(threshold, num_events, len(delays_s), num_false, num_frames / fps / 60, delay_s)


def best_threshold(streams: Sequence[Stream], labels: Labels, fps: float) -> Found:
    """Return the lowest threshold with at most `MOST_FALSE_ALARMS` a minute; the highest one if none has so few.

    It is at least `labels.MIN_CONFIDENCE`: in a few clips of background, no false alarm is no evidence for less.
    """
    for threshold in (one for one in THRESHOLDS if one >= MIN_CONFIDENCE):
        found = score(streams, labels, fps, threshold)
        if found.false_per_minute <= MOST_FALSE_ALARMS:
            break
    return found


def _noticed(stream: Stream, labels: Labels, fps: float, threshold: float) -> list[Event]:
    events = Events(labels, threshold=threshold)
    said = (event for frame, p in enumerate(stream.probabilities) for event in events.push(frame / fps, p))
    return [event for event in said if event.end_s is None]


def _is_of(event: Event, span: Span) -> bool:
    return event.name == span.name and span.start_s <= event.start_s <= span.end_s + LATEST_S
