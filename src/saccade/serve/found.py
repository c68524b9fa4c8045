"""The events that the models of a page find in its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saccade.serve.engine import Engine
from saccade.stream.events import Event, Events

# As `saccade stream --events` prints them.
_TIME_DIGITS, _PROBABILITY_DIGITS = 3, 6


class Found:
    """The events of each model, by its name.

    Args:
        engine: the models, and the thresholds of their verdicts.
    """

    def __init__(self, engine: Engine) -> None:
        self._events = {
            name: Events(model.labels, threshold=engine.min_confidence[name]) for name, model in engine.models.items()
        }
        self._ended: dict[str, list[Event]] = {}

    def push(self, name: str, time_s: float, probabilities: Sequence[float]) -> None:
        """Add what a model says of a moment of the source."""
        self._keep(name, self._events[name].push(time_s, probabilities))

    def reset(self, *names: str) -> None:
        """Let models begin anew, by default all; events that last end."""
        for name in names or self._events:
            self._keep(name, self._events[name].reset())

    def clear(self) -> None:
        """Let all models begin anew with another source, of which earlier events say nothing."""
        self.reset()
        self._ended = {}

    def take(self) -> dict[str, list[dict[str, Any]]]:
        """Return the events that have ended since the last call, and those that last now, as JSON types."""
        ended, self._ended = self._ended, {}
        found = {name: [*ended.get(name, ()), *events.lasting] for name, events in self._events.items()}
        return {name: [_as_json(event) for event in some] for name, some in found.items() if some}

    def _keep(self, name: str, found: Sequence[Event]) -> None:
        if ended := [event for event in found if event.end_s is not None]:
            self._ended.setdefault(name, []).extend(ended)


def _as_json(event: Event) -> dict[str, Any]:
    return {
        "class": event.name,
        "start_s": round(event.start_s, _TIME_DIGITS),
        "end_s": None if event.end_s is None else round(event.end_s, _TIME_DIGITS),
        "peak_s": round(event.peak_s, _TIME_DIGITS),
        "peak_probability": round(event.peak_probability, _PROBABILITY_DIGITS),
    }
