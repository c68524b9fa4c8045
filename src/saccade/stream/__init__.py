"""Follow a live stream with a trained model: frames in, predictions and events out."""

from __future__ import annotations

from saccade.stream.classifier import Classifier, Prediction
from saccade.stream.command import Moment, event_lines, follow, prediction_lines
from saccade.stream.config import StreamConfig
from saccade.stream.events import Event, Events

__all__ = [
    "Classifier",
    "Event",
    "Events",
    "Moment",
    "Prediction",
    "StreamConfig",
    "event_lines",
    "follow",
    "prediction_lines",
]
