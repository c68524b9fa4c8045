"""The threshold of events, which a training by steps chooses on validation clips joined to a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from saccade.attention.forward import evaluating
from saccade.data.background import Background
from saccade.data.stored import StoredBatches, StoredClips
from saccade.evaluate.streaming import MINUTES, joined_stream
from saccade.models import VideoClassifier
from saccade.nn.temporal import Mean
from saccade.stream.joined import Found, best_threshold
from saccade.train.trainer import Trainer
from saccade.train.validation import some

MAX_SECONDS = 120.0
"""About the longest time that the choice takes; the stream is shorter where a model is slow."""

_TIMED_FRAMES = 32
_LEAST_SHARE = 1 / 16


def choose_threshold(trainer: Trainer, say: Callable[[str], None]) -> Found | None:
    """Choose the threshold of events for the result of a training, and give it to the model and to the header.

    The validation clips are joined to a stream, with ten minutes of background. The threshold is that of
    `best_threshold`.

    Args:
        trainer: the finished training, with the weights that are kept.
        say: a function that is called with a line if the stream is shorter.

    Returns:
        How well events are found at the threshold; None if no class means that nothing happens, no frame rate is
        known, or the validation clips lack events or background.
    """
    model, validation = trainer.product, trainer.validation
    if validation is None or not isinstance(model, VideoClassifier) or (fps := model.frame_format.fps) is None:
        return None
    clips, labels = validation.clips, model.labels
    if (background := Background.of(clips.targets, labels)) is None:
        return None
    reader = validation.reader(model)
    assert isinstance(reader, VideoClassifier)
    with evaluating(reader):
        share = _share(_Pace.of(reader, clips), clips, background, fps)
        if share < 1:
            clips = _with_some_events(clips, background, share)
            say(
                f"the model is slow: the threshold of events is chosen on {len(clips) - len(background.clips)} events"
                f" and {share * MINUTES:.2g} minutes of background in place of {MINUTES:.0f}"
            )
        found = best_threshold([joined_stream(reader, clips, labels, fps, minutes=share * MINUTES)], labels, fps)
    model.labels = replace(labels, min_confidence=found.threshold)
    trainer.header = replace(trainer.header, labels=model.labels)
    return found


def of_endless_memory(trainer: Trainer) -> str | None:
    """Return a line if a model for streams would remember all frames alike; None otherwise."""
    batches, model = trainer.batches, trainer.model
    learns_streams = isinstance(batches, StoredBatches) and batches.background is not None
    if not learns_streams or not isinstance(model, VideoClassifier) or not isinstance(model.temporal, Mean):
        return None
    return (
        "warning: the temporal part mean averages all frames of a stream since its beginning, so that events soon do"
        " not count any more; for streams, choose --temporal gru"
    )


@dataclass(frozen=True)
class _Pace:
    """How long a model takes for a frame, in seconds: for its features, and to follow them in a stream."""

    feature_s: float
    follow_s: float

    @classmethod
    @torch.inference_mode()
    def of(cls, model: VideoClassifier, clips: StoredClips) -> _Pace:
        """Measure the second time that a model runs."""
        device = next(model.parameters()).device
        frames = clips.frames[0][:_TIMED_FRAMES].unsqueeze(0).to(device)
        for _ in range(2):
            started = time.perf_counter()
            features, _ = model.features(frames)
            features.cpu()  # waits for a GPU
            between = time.perf_counter()
            logits, _ = model.follow(features)
            logits.cpu()
        num = frames.shape[1]
        return cls((between - started) / num, (time.perf_counter() - between) / num)


def _share(pace: _Pace, clips: StoredClips, background: Background, fps: float) -> float:
    """Return the share of a whole stream that takes no more than the longest time: 1, 1/2, 1/4, ...

    The stream follows each frame, but computes the features of a clip once, however often its background comes.
    """
    inside = set(background.clips)
    lengths = [len(frames) for frames in clips.frames]
    num_different = sum(lengths[clip] for clip in inside)
    num_events, num_background, share = sum(lengths) - num_different, 60 * MINUTES * fps, 1.0

    def seconds() -> float:
        num_read = min(num_different, share * num_background) + share * num_events
        return pace.feature_s * num_read + pace.follow_s * share * (num_background + num_events)

    while seconds() > MAX_SECONDS and share > _LEAST_SHARE:
        share /= 2
    return share


def _with_some_events(clips: StoredClips, background: Background, share: float) -> StoredClips:
    """Return the background and a share of the events, drawn at random."""
    events = np.setdiff1d(np.arange(len(clips)), background.clips)
    kept = np.random.default_rng(0).permutation(events)[: max(1, round(share * len(events)))]
    return some(clips, np.sort(np.concatenate((np.array(background.clips), kept))))
