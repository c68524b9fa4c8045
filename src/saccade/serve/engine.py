"""The models of the page, and the one thread that runs them for everyone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from saccade import checkpoint
from saccade.attention import look
from saccade.checkpoint import Header
from saccade.data import Digits
from saccade.data.labels import LabelScheme
from saccade.errors import DataError
from saccade.models import VideoClassifier
from saccade.nn.recurrent import State
from saccade.predict import label_scheme, probabilities
from saccade.serve.verdict import Verdict, verdict_of


@dataclass(frozen=True)
class LoadedModel:
    """A model that can follow a stream.

    Args:
        name: what the page calls it; no two have the same.
        kind: its name in `saccade.models`.
        network: the model itself.
        scheme: its labels.
        channels: of a frame.
        has_attention: whether it has a part that says where it looks.
    """

    name: str
    kind: str
    network: VideoClassifier
    scheme: LabelScheme
    channels: int
    has_attention: bool


@dataclass(frozen=True)
class Seen:
    """What a model made of one frame: where it looked, as `Look.frame_json` has it, what it said, how long it took."""

    look: dict[str, Any]
    probabilities: list[float]
    verdict: Verdict
    duration_ms: float


@dataclass
class Memory:
    """What the models remember of one stream; empty at its start."""

    states: dict[str, State] = field(default_factory=dict)

    def forget(self) -> None:
        """Begin anew."""
        self.states.clear()


class Engine:
    """Models, digits and the thread that computes.

    One thread for all pages: jobs are done in the order in which they came, and no page has more than one of them, so
    every page gets its turn.

    Args:
        models: at least one.
        digits: what the generator draws from.
        min_confidence: from which probability on there is a verdict.
        digits_only: whether these are the package's own models, which know nothing but digits.
    """

    def __init__(
        self, models: Sequence[LoadedModel], digits: Digits, *, min_confidence: float, digits_only: bool
    ) -> None:
        self.models = {model.name: model for model in models}
        self.digits, self.min_confidence, self.digits_only = digits, min_confidence, digits_only
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="saccade-models")

    def see(
        self,
        model: LoadedModel,
        frame: UInt8[Tensor, "1 height width"],
        memory: Memory,
        *,
        saliency: bool,
    ) -> Seen:
        """Let a model look at the next frame of a stream."""
        begin = time.perf_counter()
        frames = frame.expand(model.channels, -1, -1).unsqueeze(0)
        looked, state = look(model.network, frames, memory.states.get(model.name), saliency=saliency)
        if state is not None:
            memory.states[model.name] = state
        verdict = verdict_of(looked.logits[-1], model.scheme, self.min_confidence)
        shown = looked.frame_json(-1)
        rounded = [round(p, 4) for p in probabilities(looked.logits[-1], model.scheme).tolist()]
        return Seen(shown, rounded, verdict, 1000 * (time.perf_counter() - begin))

    def close(self) -> None:
        """End the thread once its job is done."""
        self.worker.shutdown(wait=True, cancel_futures=True)


def load_models(paths: Sequence[Path]) -> list[LoadedModel]:
    """Load the checkpoints to be shown side by side.

    Args:
        paths: checkpoints, or folders of runs.

    Raises:
        DataError: a checkpoint that cannot be read, has no labels, or cannot follow a stream.
    """
    read = [checkpoint.load(path) for path in paths]
    names = checkpoint.distinct_names([header.model for _, header in read], paths)
    return [_followed(*one, name, path) for one, name, path in zip(read, names, paths, strict=True)]


def _followed(network: nn.Module, header: Header, name: str, path: Path) -> LoadedModel:
    if not isinstance(network, VideoClassifier):
        raise DataError(f"{path} holds a {header.model}, which needs whole clips; give a model of `saccade train`")
    scheme = label_scheme(header, path)
    network.requires_grad_(False)
    channels = int(header.arguments.get("channels", 1))
    # Tells what it is made of, and lets torch set up now what it sets up at first use.
    looked, _ = look(network, torch.zeros(1, channels, 64, 64), saliency=True)
    if looked.logits.shape[-1] != scheme.num_classes:
        came = f"{looked.logits.shape[-1]} classes, its labels {scheme.name!r} {scheme.num_classes}"
        raise DataError(f"{path} has {came}; train it anew")
    has_attention = looked.quadrilateral_px is not None or looked.points_px is not None
    return LoadedModel(name, header.model, network, scheme, channels, has_attention)
