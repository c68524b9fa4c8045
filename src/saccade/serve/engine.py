"""The loaded models, and the threads that all pages share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from saccade import checkpoint, weights
from saccade.attention import Look, look
from saccade.checkpoint import Header
from saccade.clips import MAX_PX, FrameFormat
from saccade.data.digits import Digits
from saccade.errors import DataError, UsageError
from saccade.explain.truth import names_digits
from saccade.labels import Labels
from saccade.models import VideoClassifier
from saccade.nn.temporal import State
from saccade.predict import classes_of
from saccade.serve.broadcast import Broadcast
from saccade.serve.turns import Turns
from saccade.serve.verdict import Verdict, task_of, verdict_of

# Slow messages get a fifth of one core: Python runs one thread at a time, and frames have priority.
_ERRANDS_SHARE = 0.2
# Models that look closer get frames of up to this size.
_LARGEST_PX = 2 * MAX_PX


@dataclass(frozen=True)
class LoadedModel:
    """A model that can process a stream frame by frame.

    Args:
        name: the name on the page; it is unique.
        kind: the name of the model in results, which `name` begins with.
        network: the model.
        labels: the model's classes.
        frame_format: the frames that the model expects.
        attention: `stn` for a spatial transformer, `multi-stn` for one of several glimpses, `dcn` for deformable
            convolutions; None for neither.
    """

    name: str
    kind: str
    network: VideoClassifier
    labels: Labels
    frame_format: FrameFormat
    attention: Literal["stn", "multi-stn", "dcn"] | None

    @property
    def knows_digits(self) -> bool:
        """Whether the model's classes are those of a digit scheme."""
        return names_digits(self.labels)

    @property
    def task(self) -> str:
        """A sentence about the model's classes; empty if it names any digits."""
        return task_of(self.labels)


@dataclass(frozen=True)
class Seen:
    """The result of a model for one frame; `look` is as `Look.frame_json` returns it."""

    look: dict[str, Any]
    probabilities: list[float]
    verdict: Verdict
    duration_ms: float


@dataclass
class Memory:
    """The temporal states of the models in one stream, by model name; empty at its start."""

    states: dict[str, State] = field(default_factory=dict)

    def forget(self) -> None:
        """Clear all states."""
        self.states.clear()


class Engine:
    """The models, the digit images, and two threads: `frames` runs the models, `errands` handles slow messages.

    Args:
        models: one or more models, which must expect the same frames.
        digits: the digit images for the generator; None if the models do not know digits.
        min_confidence: the minimum probability of a verdict; None for that of each model.
        broadcast: the stream that pages may watch; None if there is none.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        digits: Digits | None = None,
        *,
        min_confidence: float | None = None,
        broadcast: Broadcast | None = None,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.digits, self.broadcast = digits, broadcast
        self.min_confidence = {model.name: model.labels.threshold(min_confidence) for model in models}
        self.frame_format = models[0].frame_format
        self.frames, self.errands = Turns("saccade-frames"), Turns("saccade-errands", share=_ERRANDS_SHARE)

    def see(
        self,
        model: LoadedModel,
        frame: UInt8[Tensor, "channels height width"],
        memory: Memory,
        *,
        saliency: bool,
    ) -> Seen:
        """Run a model on the next frame of a stream; a grey frame is expanded to RGB for a model of RGB frames."""
        begin = time.perf_counter()
        frames = frame.expand(model.frame_format.channels, -1, -1).unsqueeze(0)
        looked, state = look(model.network, frames, memory.states.get(model.name), saliency=saliency)
        if state is not None:
            memory.states[model.name] = state
        verdict = verdict_of(looked.logits[-1], model.labels, self.min_confidence[model.name])
        shown = looked.frame_json(-1)
        probabilities = model.labels.probabilities(looked.logits[-1]).tolist()
        return Seen(shown, probabilities, verdict, 1000 * (time.perf_counter() - begin))

    def close(self) -> None:
        """Stop the threads after their current steps."""
        self.frames.close()
        self.errands.close()


def load_models(paths: Sequence[Path]) -> list[LoadedModel]:
    """Load the models that are shown side by side.

    Args:
        paths: checkpoints, run folders, or names of models of the package.

    Raises:
        DataError: if a checkpoint cannot be read, has no labels, or holds a model that cannot process a stream.
        UsageError: if the models expect different frames.
    """
    paths = [weights.find(path) for path in paths]
    read = [checkpoint.load(path) for path in paths]
    names = checkpoint.distinct_names([header.kind for _, header in read], paths)
    models = [_followed(*one, name, path) for one, name, path in zip(read, names, paths, strict=True)]
    _check_wants([_Wants(model.name, model.knows_digits, model.frame_format) for model in models])
    return models


def check_together(paths: Sequence[Path]) -> None:
    """Check that models expect the same frames; only the headers of the checkpoints are read.

    Args:
        paths: checkpoints, run folders, or names of models of the package.

    Raises:
        DataError: if a checkpoint cannot be read, or has no labels.
        UsageError: if the models expect different frames.
    """
    paths = [weights.find(path) for path in paths]
    headers = [checkpoint.read_header(path) for path in paths]
    names = checkpoint.distinct_names([header.kind for header in headers], paths)
    _check_wants(
        [
            _Wants(name, names_digits(classes_of(header, path)), header.frame_format or FrameFormat())
            for name, header, path in zip(names, headers, paths, strict=True)
        ]
    )


@dataclass(frozen=True)
class _Wants:
    name: str
    digits: bool
    frames: FrameFormat

    def __str__(self) -> str:
        kind = "grey" if self.frames.channels == 1 else "RGB"
        size = "any size" if self.frames.size is None else "{}x{} px".format(*self.frames.size)
        return f"{kind} frames of {size}" + (f" at {self.frames.fps:g} per second" if self.frames.fps else "")


def _check_wants(models: Sequence[_Wants]) -> None:
    first, *others = models
    for other in others:
        why = None
        if first.digits != other.digits:
            one, no = (first, other) if first.digits else (other, first)
            why = f"{one.name} knows digits and {no.name} does not"
        elif any(getattr(first.frames, part) != getattr(other.frames, part) for part in ("channels", "size", "fps")):
            why = f"{first.name} needs {first}; {other.name} needs {other}"
        if why is not None:
            raise UsageError(f"{why}: they cannot watch the same frames; show them one by one")


def _followed(network: nn.Module, header: Header, name: str, path: Path) -> LoadedModel:
    if not isinstance(network, VideoClassifier):
        raise DataError(f"{path} holds a {header.model}, which needs whole clips; give a model of `saccade train`")
    labels = classes_of(header, path)
    network.requires_grad_(False)
    wanted = network.frame_format
    if wanted.size is not None and max(wanted.size) > _LARGEST_PX:
        raise DataError(f"{path} needs frames of {wanted.size} px; give a model with sides of up to {_LARGEST_PX} px")
    # The first run shows whether there is attention, and includes the set-up that torch does at first use.
    looked, _ = look(network, torch.zeros(1, wanted.channels, *wanted.fit((64, 64))), saliency=True)
    if looked.logits.shape[-1] != len(labels.names):
        came = f"{looked.logits.shape[-1]} classes, its labels name {len(labels.names)}"
        raise DataError(f"{path} has {came}; train it again")
    return LoadedModel(name, header.kind, network, labels, wanted, _attention(looked))


def _attention(looked: Look) -> Literal["stn", "multi-stn", "dcn"] | None:
    if looked.quadrilateral_px is not None:
        return "stn" if looked.quadrilateral_px.shape[1] == 1 else "multi-stn"
    return None if looked.points_px is None else "dcn"
