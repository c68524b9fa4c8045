"""Models built from parts, and the three matched models: one trunk, three kinds of attention, equal budgets."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from saccade.clips import FrameFormat
from saccade.errors import unknown_name
from saccade.labels import Labels
from saccade.models.encoder import FrameEncoder, Localisation
from saccade.models.inputs import INPUTS
from saccade.models.small_trunks import light, wide
from saccade.models.video_classifier import VideoClassifier
from saccade.nn.heads import PairHead
from saccade.nn.spatial_transformer import SpatialTransformer
from saccade.nn.temporal import TEMPORAL

TRUNKS: dict[str, Callable[..., nn.Module]] = {"light": light, "wide": wide}
"""Constructors of trunks by name; each takes the number of input channels, and whether its deepest layers deform."""

ATTENTIONS = ("none", "stn", "dcn")
NUM_UNITS = 128
# Sizes of the feature that the LSTM reads. It is wider without attention, so that all models have about as many
# parameters.
PLAIN_FEATURES = {"light": 128, "wide": 160}
ATTENDED_FEATURES = {"light": 112, "wide": 128}
PAIRS = Labels(
    names=tuple(f"{a}{b}" for a in range(10) for b in range(a, 10)),
    parts=tuple((str(a), str(b)) for a in range(10) for b in range(a, 10)),
)
"""The 55 unordered pairs of ten things: the default labels."""


def build(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "light",
    attention: str = "none",
    temporal: str = "lstm",
    input: str = "frames",
    num_features: int = 128,
    mode: str = "affine",
) -> VideoClassifier:
    """Build a video classifier with fresh weights.

    Args:
        labels: the classes; unordered pairs get a head in which pairs share evidence.
        frame_format: the frames that the model expects; by default grey frames of any size.
        trunk: one of `TRUNKS`.
        attention: `none`, `stn` (one map per frame, before the trunk) or `dcn` (the trunk's deepest layers deform).
        temporal: one of `TEMPORAL`.
        input: one of `INPUTS`.
        num_features: the size of the feature of a frame.
        mode: the mode of the spatial transformer, `affine` or `similarity`.

    Raises:
        UsageError: if a name is unknown.

    >>> build(labels=Labels(("wave", "clap")), attention="dcn", input="both").encoder.channels
    2
    """
    for kind, name, known in (
        ("trunk", trunk, tuple(TRUNKS)),
        ("attention", attention, ATTENTIONS),
        ("temporal part", temporal, tuple(TEMPORAL)),
        ("input", input, tuple(INPUTS)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    frame_format = frame_format or FrameFormat()
    seen = INPUTS[input](frame_format.channels)
    channels = int(seen.out_channels)  # type: ignore[arg-type]
    convolutions = TRUNKS[trunk](channels, deformable=attention == "dcn")
    transformer = SpatialTransformer(Localisation(channels, mode), mode=mode) if attention == "stn" else None
    return VideoClassifier(
        input=seen,
        encoder=FrameEncoder(attention=transformer, trunk=convolutions, channels=channels, num_features=num_features),
        temporal=TEMPORAL[temporal](num_features, NUM_UNITS),
        head=_head(labels),
        labels=labels,
        frame_format=frame_format,
    )


def _head(labels: Labels) -> nn.Module:
    if labels.unordered_pairs:
        return PairHead(NUM_UNITS, len(labels.things))
    return nn.Linear(NUM_UNITS, len(labels.names))


def lenet_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "light",
    temporal: str = "lstm",
    input: str = "frames",
) -> VideoClassifier:
    """Build the baseline without attention; a wider feature makes up for the parameters of attention."""
    return build(
        labels=labels,
        frame_format=frame_format,
        trunk=trunk,
        temporal=temporal,
        input=input,
        num_features=PLAIN_FEATURES.get(trunk, 128),
    )


def stn_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "light",
    temporal: str = "lstm",
    input: str = "frames",
    mode: str = "affine",
) -> VideoClassifier:
    """Build the model with a spatial transformer before the trunk: one affine (or similarity) map per frame."""
    return build(
        labels=labels,
        frame_format=frame_format,
        trunk=trunk,
        attention="stn",
        temporal=temporal,
        input=input,
        num_features=ATTENDED_FEATURES.get(trunk, 128),
        mode=mode,
    )


def dcn_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "light",
    temporal: str = "lstm",
    input: str = "frames",
) -> VideoClassifier:
    """Build the model whose two deepest convolutions are deformable (Dai et al. 2017)."""
    return build(
        labels=labels,
        frame_format=frame_format,
        trunk=trunk,
        attention="dcn",
        temporal=temporal,
        input=input,
        num_features=ATTENDED_FEATURES.get(trunk, 128),
    )
