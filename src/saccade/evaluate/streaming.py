"""The events that a model finds in a stream: held-out clips joined by background."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from saccade import checkpoint, weights
from saccade.clips import DataConfig
from saccade.data.background import Background
from saccade.data.stored import StoredClips
from saccade.device import choose_device
from saccade.errors import UsageError
from saccade.evaluate.command import EvaluateConfig
from saccade.evaluate.forward import Progress
from saccade.labels import Labels
from saccade.models import VideoClassifier
from saccade.stream.joined import MOST_FALSE_ALARMS, THRESHOLDS, Found, Segment, Stream, plan, score

MINUTES = 10.0
"""The length of the background in the stream, in minutes."""

_FRAMES_AT_ONCE = 32
# Of the features of background clips that are kept.
_MOST_BYTES = 1_000_000_000


@dataclass(frozen=True)
class StreamFigures:
    """The events that a model finds in a stream.

    Args:
        at_threshold: the figures at the threshold in the checkpoint.
        others: the figures at other thresholds.
        background_s: the length of the background clips, each once, in seconds.
        background_min: the length of the background in the stream, in minutes.
    """

    at_threshold: Found
    others: tuple[Found, ...]
    background_s: float
    background_min: float

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types, with recall and false alarms a minute."""
        return {
            "at_threshold": _json(self.at_threshold),
            "others": [_json(found) for found in self.others],
            "background_s": self.background_s,
            "background_min": self.background_min,
        }


def evaluate_stream(
    config: EvaluateConfig, data: DataConfig, *, minutes: float | None = None, progress: Progress | None = None
) -> StreamFigures:
    """Join the held-out clips of a model to a stream, and measure the events that it finds.

    Each clip of a class is an event, once, in random order. Between them are parts of the clips of the class that means
    that nothing happens, `minutes` of them in all; they are repeated if there are fewer.

    Args:
        config: the model, the split, the device; its other options do not apply.
        data: the clips.
        minutes: the length of the background; None for `MINUTES`.
        progress: called with the number of frames done and the total.

    Raises:
        UsageError: if the model has no class that means that nothing happens, states no frame rate, or needs whole
            clips; if the split lacks events or background.
    """
    path = weights.find(config.model)
    model, header = checkpoint.load(path, choose_device(config.device))
    labels = header.labels
    if not isinstance(model, VideoClassifier) or labels is None:
        raise UsageError(
            f"{path} holds a {header.model}, which cannot follow a stream; give a model of `saccade train`"
        )
    if labels.none is None:
        raise UsageError(
            f"no class of {path} means that nothing happens, so that no stream can be joined; train with a class folder"
            " named none, or name the class with --none"
        )
    fps = model.frame_format.fps
    if fps is None:
        raise UsageError(f"{path} states no frame rate, so that nothing can be said of a minute; train it on videos")
    clips = data.clips(config.split)
    assert isinstance(clips, StoredClips)
    if (background := Background.of(clips.targets, labels)) is None:
        has_none = labels.names.index(labels.none) in clips.targets.tolist()
        lacks = "class of an event" if has_none else f"class {labels.none!r}"
        raise UsageError(f"no {config.split} clip has the {lacks}; add clips, or choose another --split")
    stream = [joined_stream(model, clips, labels, fps, minutes=minutes, progress=progress)]
    lengths = [len(frames) for frames in clips.frames]
    num_background = sum(lengths[clip] for clip in background.clips)
    in_stream = len(stream[0].probabilities) - (sum(lengths) - num_background)
    return StreamFigures(
        score(stream, labels, fps, labels.min_confidence),
        tuple(score(stream, labels, fps, threshold) for threshold in THRESHOLDS),
        num_background / fps,
        in_stream / fps / 60,
    )


@torch.inference_mode()
def joined_stream(
    model: VideoClassifier,
    clips: StoredClips,
    labels: Labels,
    fps: float,
    *,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Stream:
    """Join clips to a stream, and return what a model says of it.

    Features are computed once for each clip, since background comes repeatedly. So the change at the first frame of a
    clip is zero: that a join is a cut tells the model nothing.

    Args:
        model: the model, in evaluation mode.
        clips: the clips, some of them events and others background; frames, or what the model reads in their place.
        labels: the classes, one of which means that nothing happens.
        fps: frames per second.
        minutes: the length of the background; None for `MINUTES`.
        progress: called with the number of frames done and the total.
    """
    lengths = [len(frames) for frames in clips.frames]
    background_s = 60 * (MINUTES if minutes is None else minutes)
    segments, happens = plan(lengths, clips.targets.tolist(), labels, fps, background_s=background_s, seed=0)
    said: list[list[float]] = []
    state, total = None, sum(map(len, segments))
    for features in _features(model, clips, segments):
        logits, state = model.follow(features.unsqueeze(0), state)
        said += labels.probabilities(logits[0]).tolist()
        if progress is not None:
            progress(len(said), total)
    return Stream(said, happens)


def _features(
    model: VideoClassifier, clips: StoredClips, segments: Sequence[Segment]
) -> Iterator[Float[Tensor, "time features"]]:
    """Yield the features of each segment; those of background are kept while there is room."""
    kept: dict[int, Tensor] = {}
    num_bytes = 0
    for segment in segments:
        features = kept.get(segment.clip)
        if features is None:
            features = _of_clip(model, clips.frames[segment.clip])
            if not segment.is_event and num_bytes < _MOST_BYTES:
                kept[segment.clip] = features
                num_bytes += features.nbytes
        yield features[segment.first : segment.last]


def _of_clip(model: VideoClassifier, frames: Tensor) -> Float[Tensor, "time features"]:
    device, state, found = next(model.parameters()).device, None, []
    for part in frames.split(_FRAMES_AT_ONCE):
        features, state = model.features(part.unsqueeze(0).to(device), state)
        found.append(features[0])
    return torch.cat(found)


def render_stream(figures: StreamFigures) -> Group:
    """Return the figures as a table with one row per threshold, and sentences about what they mean."""
    kept = figures.at_threshold
    said = f"the checkpoint has {kept.told}"
    source = f"background: {figures.background_min:.1f} minutes, from {figures.background_s:.0f} s of clips"
    parts: list[RenderableType] = [_table(figures.others), Text(said), Text(source)]
    if kept.false_per_minute > MOST_FALSE_ALARMS:
        parts.append(Text("to get fewer false alarms, train with more background of what the camera will see"))
    return Group(*parts)


def _table(several: Sequence[Found]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("threshold", "events found", "false alarms a minute", "median delay"):
        table.add_column(heading, justify="right")
    for found in several:
        delay = "-" if found.delay_s is None else f"{found.delay_s:.2f} s"
        table.add_row(f"{found.threshold:g}", f"{100 * found.recall:.1f} %", f"{found.false_per_minute:.2f}", delay)
    return table


def _json(found: Found) -> dict[str, Any]:
    return {**asdict(found), "recall": found.recall, "false_per_minute": found.false_per_minute}
