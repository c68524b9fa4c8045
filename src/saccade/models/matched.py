"""Models built from parts, the three matched models, and the one of several glimpses beside them."""

from __future__ import annotations

from torch import nn

from saccade.clips import FrameFormat
from saccade.errors import UsageError, unknown_name
from saccade.labels import Labels
from saccade.models.encoder import FrameEncoder, GlimpseEncoder, Localisation
from saccade.models.inputs import INPUTS
from saccade.models.picture_encoder import CHANGE_GAIN, MapEncoder, PictureEncoder
from saccade.models.small_trunks import searching
from saccade.models.trunks import (
    CROP_TRUNKS,
    OLD_NAMES,
    PICTURE_PX,
    PICTURE_TRUNKS,
    SMALL_TRUNKS,
    TRUNKS,
    default_temporal,
    expected,
)
from saccade.models.video_classifier import VideoClassifier
from saccade.nn.glimpses import Glimpses
from saccade.nn.heads import PairHead
from saccade.nn.peaks import PeakLocalisation
from saccade.nn.spatial_transformer import CloserLook, SpatialTransformer
from saccade.nn.temporal import TEMPORAL

ATTENTIONS = ("none", "stn", "dcn", "multi-stn")
COMBINATIONS = tuple(
    (trunk, attention)
    for trunk in TRUNKS
    for attention in ATTENTIONS
    if attention != "multi-stn" or trunk in SMALL_TRUNKS
)
"""The trunks and the kinds of attention that go together."""
NUM_UNITS = 128
NUM_GLIMPSES, MAX_GLIMPSES, GLIMPSE_PX = 2, 4, 32
# Sizes of the feature that the LSTM reads. It is wider without attention, so that all models have about as many
# parameters.
PLAIN_FEATURES = {"small": 128, "wide": 160}
ATTENDED_FEATURES = {"small": 112, "wide": 128}
GLIMPSES_FEATURES = 256
# The factors of the pictures of a frame, by input.
_GAINS = {"frames": (1.0,), "differences": (CHANGE_GAIN,), "both": (1.0, CHANGE_GAIN)}
PAIRS = Labels(
    names=tuple(f"{a}{b}" for a in range(10) for b in range(a, 10)),
    parts=tuple((str(a), str(b)) for a in range(10) for b in range(a, 10)),
)
"""The 55 unordered pairs of ten things: the default labels."""


def build(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "small",
    attention: str = "none",
    temporal: str | None = None,
    input: str = "frames",
    num_features: int | None = None,
    mode: str | None = None,
    num_glimpses: int | None = None,
) -> VideoClassifier:
    """Build a video classifier with fresh weights.

    The trunks `small` and `wide` read frames of any size, and their map is pooled over the whole frame. Those for
    pictures, `resnet18` and `efficientnet-lite0`, read frames and differences as pictures of their own, and their map
    is averaged over a 3x3 grid, so that the model knows where things are.

    Args:
        labels: the classes; unordered pairs get a head in which pairs share evidence.
        frame_format: the frames that the model expects; by default frames of any size, in colour for the trunks for
            pictures and in grey for the others. `trunks.expected` gives it the mean and deviation of pretrained
            weights.
        trunk: one of `TRUNKS`.
        attention: `none`, `stn`, `dcn` or `multi-stn`. `stn` predicts one map per frame, before the trunk; with a trunk
            for pictures it looks at the frame small and samples it in full resolution, see `CloserLook`. `dcn` makes
            the trunk's deepest layers deformable, or puts a deformable layer on the map of `efficientnet-lite0`.
            `multi-stn` places several maps per frame on the peaks of a map, see `PeakLocalisation`, and one small trunk
            reads all crops, see `Glimpses`.
        temporal: one of `TEMPORAL`; None takes `trunks.default_temporal`.
        input: one of `INPUTS`.
        num_features: the size of the feature of a frame; None takes 256 for `multi-stn`, whose feature tells of several
            crops, and 128 otherwise.
        mode: the mode of the spatial transformer of `stn`, `affine` (also None) or `similarity`.
        num_glimpses: the number of maps per frame of `multi-stn`; None takes two.

    Raises:
        UsageError: if a name is unknown, or if trunk, attention, its mode and number of glimpses do not go together.

    >>> build(labels=Labels(("wave", "clap")), attention="dcn", input="both").encoder.channels
    2
    """
    trunk = OLD_NAMES.get(trunk, trunk)
    temporal = default_temporal(trunk) if temporal is None else temporal
    for kind, name, known in (
        ("trunk", trunk, TRUNKS),
        ("attention", attention, ATTENTIONS),
        ("temporal part", temporal, tuple(TEMPORAL)),
        ("input", input, tuple(INPUTS)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    check_together(trunk, attention)
    check_num_glimpses(num_glimpses, attention)
    if mode is not None and attention != "stn":
        raise UsageError(f"mode {mode!r} was given beside attention {attention}; only stn has a mode")
    frame_format = frame_format or expected(trunk, FrameFormat(3 if trunk in PICTURE_TRUNKS else 1))
    num_features = num_features or (GLIMPSES_FEATURES if attention == "multi-stn" else 128)
    seen = INPUTS[input](frame_format.channels)
    channels = int(seen.out_channels)  # type: ignore[arg-type]
    return VideoClassifier(
        input=seen,
        encoder=(
            _picture_encoder(trunk, attention, frame_format.channels, _GAINS[input], num_features, mode or "affine")
            if trunk in PICTURE_TRUNKS
            else _glimpse_encoder(trunk, channels, num_features, num_glimpses or NUM_GLIMPSES)
            if attention == "multi-stn"
            else _frame_encoder(trunk, attention, channels, num_features, mode or "affine")
        ),
        temporal=TEMPORAL[temporal](num_features, NUM_UNITS),
        head=_head(labels),
        labels=labels,
        frame_format=frame_format,
    )


def check_together(trunk: str, attention: str) -> None:
    """Raise UsageError if a trunk cannot have an attention.

    >>> check_together("small", "multi-stn")
    """
    if (trunk, attention) not in COMBINATIONS:
        raise UsageError(
            f"attention {attention} needs a trunk for small crops ({' or '.join(SMALL_TRUNKS)}); {trunk} reads pictures"
            f" of {PICTURE_PX} px: choose another trunk, or stn"
        )


def check_num_glimpses(num_glimpses: int | None, attention: str | None) -> None:
    """Raise UsageError if an attention cannot have a number of glimpses; None is its default.

    >>> check_num_glimpses(3, "multi-stn")
    """
    if num_glimpses is None:
        return
    if attention != "multi-stn":
        raise UsageError(
            f"num_glimpses={num_glimpses} was given; only the attention multi-stn and the model multi-stn-lstm have it"
        )
    if not 1 <= num_glimpses <= MAX_GLIMPSES:
        raise UsageError(f"num_glimpses must lie in 1 to {MAX_GLIMPSES}; got {num_glimpses}")


def _frame_encoder(trunk: str, attention: str, channels: int, num_features: int, mode: str) -> FrameEncoder:
    # The trunk comes first: a seed gives the same weights as in earlier versions.
    convolutions = SMALL_TRUNKS[trunk](channels, deformable=attention == "dcn")
    transformer = SpatialTransformer(Localisation(channels, mode), mode=mode) if attention == "stn" else None
    return FrameEncoder(attention=transformer, trunk=convolutions, channels=channels, num_features=num_features)


def _glimpse_encoder(trunk: str, channels: int, num_features: int, num_glimpses: int) -> GlimpseEncoder:
    localisation = PeakLocalisation(searching(channels), num_glimpses=num_glimpses)
    glimpses = Glimpses(localisation, num_glimpses=num_glimpses, out_px=GLIMPSE_PX)
    return GlimpseEncoder(
        attention=glimpses, trunk=CROP_TRUNKS[trunk](channels), channels=channels, num_features=num_features
    )


def _picture_encoder(
    trunk: str, attention: str, channels: int, gains: tuple[float, ...], num_features: int, mode: str
) -> PictureEncoder:
    kind = PICTURE_TRUNKS[trunk]
    convolutions = kind.make(channels, deformable=attention == "dcn") if kind.deforms else kind.make(channels)
    closer = None
    if attention == "stn":
        closer = CloserLook(Localisation(len(gains) * channels, mode), out_px=PICTURE_PX, mode=mode)
    num_maps = len(gains) * int(convolutions.out_channels)  # type: ignore[arg-type]
    end = MapEncoder(num_maps, num_features, deformable=attention == "dcn" and not kind.deforms)
    return PictureEncoder(attention=closer, trunk=convolutions, end=end, gains=gains)


def _head(labels: Labels) -> nn.Module:
    if labels.unordered_pairs:
        return PairHead(NUM_UNITS, len(labels.things))
    return nn.Linear(NUM_UNITS, len(labels.names))


def lenet_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "small",
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
        num_features=PLAIN_FEATURES.get(OLD_NAMES.get(trunk, trunk), 128),
    )


def stn_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "small",
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
        num_features=ATTENDED_FEATURES.get(OLD_NAMES.get(trunk, trunk), 128),
        mode=mode,
    )


def dcn_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "small",
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
        num_features=ATTENDED_FEATURES.get(OLD_NAMES.get(trunk, trunk), 128),
    )


def multi_stn_lstm(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    trunk: str = "small",
    temporal: str = "lstm",
    input: str = "frames",
    num_glimpses: int = NUM_GLIMPSES,
) -> VideoClassifier:
    """Build the model with several spatial transformers, each on an object of its own, whose crops one trunk reads.

    Source: Jaderberg et al. 2015, arXiv 1506.02025, appendix A.1, which adds two digits with two transformers.
    """
    return build(
        labels=labels,
        frame_format=frame_format,
        trunk=trunk,
        attention="multi-stn",
        temporal=temporal,
        input=input,
        num_glimpses=num_glimpses,
    )
