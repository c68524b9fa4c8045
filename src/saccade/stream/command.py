"""The command `saccade stream`: what a model says of each frame of a live source, and the events in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from saccade.attention import Look
from saccade.labels import Labels
from saccade.stream.classifier import Classifier, Prediction
from saccade.stream.config import StreamConfig
from saccade.stream.cut import Cuts
from saccade.stream.events import Event, Events
from saccade.stream.measured import cost_of
from saccade.stream.source import Limits, LiveFrame, Source

PICTURE_PX = 640
"""The longest side of the pictures for display."""

_DIGITS = 6  # of a probability: predictions of the same frames are compared to five


@dataclass(frozen=True)
class Moment:
    """A frame of a stream, and what the model says of it.

    Args:
        frame: the frame.
        prediction: what the model says, from all frames since the stream began.
        latency_s: the time from the arrival of the frame to the prediction.
        dropped: the number of frames so far for which the model was too slow.
        begins: whether the stream begins with this frame: at its first one, after a gap, and at a cut if cuts count.
        look: where the model looked; None if nobody watched.
    """

    frame: LiveFrame
    prediction: Prediction
    latency_s: float
    dropped: int
    begins: bool
    look: Look | None = None


def follow(
    config: StreamConfig,
    classifier: Classifier,
    *,
    say: Callable[[str], None],
    is_watched: Callable[[], bool] | None = None,
) -> Iterator[Moment]:
    """Classify the frames of a source as they come, until it ends.

    Args:
        config: the source and the options.
        classifier: the model; it begins anew.
        say: called with a line about the source, such as that it is connected again.
        is_watched: tells at each frame whether somebody watches. Then the moment holds where the model looked, which
            takes some time. None: nobody ever does, and frames come without pictures.

    Raises:
        DataError: if the source cannot be opened, or has failed for too long.
        NonFiniteError: if the model gives NaN or infinity.
    """
    cuts = Cuts() if config.reset_on_cut else None
    with ExitStack() as stack:
        source = stack.enter_context(_source(config, classifier, say, pictures=is_watched is not None))
        has_threads = False
        for frame in source:
            if not has_threads and source.is_live:
                stack.enter_context(classifier.enough_threads(frame.pixels))
            has_threads = True
            is_cut = cuts is not None and cuts.push(frame.pixels)
            if begins := frame.begins or is_cut:
                classifier.reset()
            if is_watched is not None and is_watched():
                prediction, look = classifier.look(frame.pixels)
            else:
                prediction, look = classifier.step(frame.pixels), None
            yield Moment(frame, prediction, time.monotonic() - frame.arrived_s, source.dropped, begins, look)


def _source(config: StreamConfig, classifier: Classifier, say: Callable[[str], None], *, pictures: bool) -> Source:
    return Source(
        config.source,
        classifier.frame_format,
        limits=Limits(reconnect_s=config.reconnect_s),
        realtime=config.realtime,
        picture_px=PICTURE_PX if pictures else None,
        cost=cost_of(classifier.path),
        say=say,
    )


def prediction_lines(
    moments: Iterable[Moment], labels: Labels, *, probabilities: bool = False
) -> Generator[dict[str, Any]]:
    """Yield each moment of a stream as JSON types.

    Args:
        moments: the moments, from `follow`.
        labels: the classes of the model.
        probabilities: whether to add the probability of each class.
    """
    for moment in moments:
        prediction = moment.prediction
        line = {
            "time_s": round(moment.frame.time_s, 3),
            "class": prediction.verdict,
            "probability": round(prediction.probability, _DIGITS),
            "sure": prediction.sure,
            "latency_ms": round(1000 * moment.latency_s, 1),
            "dropped": moment.dropped,
        }
        if moment.begins:
            line["begins"] = True
        if probabilities:
            rounded = (round(p, _DIGITS) for p in prediction.probabilities)
            line["probabilities"] = dict(zip(labels.names, rounded, strict=True))
        yield line


def event_lines(moments: Iterable[Moment], events: Events) -> Generator[dict[str, Any]]:
    """Yield the beginnings and ends of events in a stream as JSON types.

    An event that lasts when the stream ends or is interrupted ends with it.
    """
    try:
        for moment in moments:
            found = events.reset() if moment.begins else []
            found += events.push(moment.frame.time_s, moment.prediction.probabilities)
            yield from map(_event_line, found)
    except KeyboardInterrupt:
        yield from map(_event_line, events.reset())
        raise
    yield from map(_event_line, events.reset())


def _event_line(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {"event": "begins" if event.end_s is None else "ended", "class": event.name}
    line["start_s"] = round(event.start_s, 3)
    if event.end_s is not None:
        line["end_s"] = round(event.end_s, 3)
        line["peak_s"] = round(event.peak_s, 3)
    line["peak_probability"] = round(event.peak_probability, _DIGITS)
    return line
