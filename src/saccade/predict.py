"""The verb `saccade predict`: the class of clips that lie in files, and from which frame on the model says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import Positional

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.data import labels as label_schemes
from saccade.data import video
from saccade.data.labels import LabelScheme
from saccade.errors import DataError, UsageError
from saccade.models import VideoClassifier
from saccade.precision import choose_device

# Digit models learn from 64x64 frames. From 28 px on they see anything, and up to 128 px a frame is taken to be drawn
# at the scale that the model knows.
TRAINED_PX = 64
MIN_PX, MAX_KEPT_PX, MAX_PX = 28, 128, 256
_FRAMES_PER_ROUND = 256
_NUM_TOP = 5


@dataclass(frozen=True)
class PredictConfig:
    """Name the class of clips.

    Args:
        clips: video files, GIFs, `.npz` files (array `frames`), or folders of such.
        model: a checkpoint, or the folder of a run.
        max_frames: read only so many frames of each clip.
        device: auto, cpu or cuda.
    """

    clips: Positional[tuple[Path, ...]]
    model: Path
    max_frames: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.clips:
            raise UsageError("no clip was given; name a video, GIF or .npz file, or a folder of such")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"max_frames must be at least 1; got {self.max_frames}")


@dataclass(frozen=True)
class Prediction:
    """What a model says of a clip.

    *Conventions:* frames count from 0.

    Args:
        clip: the file.
        verdict: the class, by the last frame; for the label scheme `digits` the set, such as `0-3-7`, or `none`.
        probability: of the verdict; of a set, that of exactly this set, digits taken as independent.
        top: the five most probable classes with their probabilities.
        decided_at: first frame from which on the verdict stays the same; None for a model that speaks only at the end.
        num_frames: frames that the model saw.
        frame_size: (height, width) of the frames that the model saw.
        fps: frames per second, where the file tells.
        warning: one line if the file is damaged and the model saw only a part.
    """

    clip: Path
    verdict: str
    probability: float
    top: tuple[tuple[str, float], ...]
    decided_at: int | None
    num_frames: int
    frame_size: tuple[int, int]
    fps: float | None = None
    warning: str | None = None


def predict(config: PredictConfig) -> list[Prediction]:
    """Run a checkpoint on clips.

    Raises:
        UsageError: an unknown device.
        DataError: a clip or the checkpoint cannot be read, or they do not fit each other.
    """
    return list(each(config))


def each(config: PredictConfig, *, unreadable: Callable[[DataError], None] | None = None) -> Iterator[Prediction]:
    """Run a checkpoint on clips, one after the other.

    Args:
        config: which clips, which model.
        unreadable: called for a clip that cannot be read, and the next one follows; None lets the error end it all.

    Raises:
        UsageError: an unknown device.
        DataError: the checkpoint cannot be read; without `unreadable` also where a clip cannot.
    """
    paths = [path for given in config.clips for path in find_clips(given)]
    device = choose_device(config.device)
    model, header = checkpoint.load(config.model, device)
    scheme = label_scheme(header, config.model)
    for path in paths:
        try:
            size, num_channels = input_format(model, header, size_of(path))
            clip = video.read_clip(path, size=size, num_channels=num_channels, max_frames=config.max_frames)
            logits = _logits_that_fit(model, clip.frames.to(device), path)
        except DataError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        yield prediction_of(path, clip, logits, scheme)


def find_clips(path: Path) -> list[Path]:
    """Return the file itself, or the clips in a folder and the folders below, in order of their names.

    Raises:
        DataError: a folder without clips.
    """
    if not path.is_dir():
        return [path]
    inside = [p for p in path.rglob("*") if p.suffix.lower() in video.SUFFIXES and p.is_file()]
    clips = sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts))
    if not clips:
        raise DataError(f"{path} holds no clip; files that end in {', '.join(sorted(video.SUFFIXES))} are looked for")
    return clips


def fitting_size(size: tuple[int, int], *, any_size: bool = True) -> tuple[int, int]:
    """Return the size at which a digit model sees a frame.

    *Conventions:* (height, width) in pixels. A model that takes any size sees frames from 28 to 128 px as they are;
    others are resized, keeping their proportions, until the shorter side is 64 px and the longer at most 256. A
    published model sees 64x64, squeezed if need be.

    >>> [fitting_size(size) for size in ((64, 96), (240, 320), (18, 32))]
    [(64, 96), (64, 85), (64, 114)]
    >>> fitting_size((240, 320), any_size=False)
    (64, 64)
    """
    if not any_size:
        return TRAINED_PX, TRAINED_PX
    if min(size) >= MIN_PX and max(size) <= MAX_KEPT_PX:
        return size
    zoom = TRAINED_PX / min(size)
    height, width = (min(round(edge * zoom), MAX_PX) for edge in size)
    return height, width


def render(predictions: Sequence[Prediction]) -> Table:
    """Lay predictions out as a table, a row per clip; damaged files are told of below it."""
    warnings = [escape(p.warning) for p in predictions if p.warning]
    table = Table(caption="\n".join(warnings) or None, caption_justify="left")
    table.add_column("clip", overflow="fold")
    table.add_column("verdict", style="bold", no_wrap=True)
    for name in ("probability", "decided at frame"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"top {_NUM_TOP}")
    for p in predictions:
        top = "  ".join(f"{name} {100 * probability:.1f}" for name, probability in p.top)
        table.add_row(escape(str(p.clip)), p.verdict, f"{100 * p.probability:.1f} %", _moment(p), top)
    return table


def _moment(prediction: Prediction) -> str:
    if prediction.decided_at is None:
        return "the end"
    seconds = f" ({prediction.decided_at / prediction.fps:.1f} s)" if prediction.fps else ""
    return f"{prediction.decided_at} of {prediction.num_frames}{seconds}"


def label_scheme(header: Header, path: Path) -> LabelScheme:
    """Return what a checkpoint's classes are called.

    Raises:
        DataError: the checkpoint does not say.
    """
    if "labels" not in header.data:
        raise DataError(
            f"{path} does not say what its classes are; a video classifier made by `saccade train` is needed"
        )
    return label_schemes.create(header.data["labels"])


def input_format(model: nn.Module, header: Header, file_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the size, (height, width), and the number of channels at which a model sees frames of a file's size."""
    size = fitting_size(file_size, any_size=isinstance(model, VideoClassifier))
    return size, int(header.arguments.get("channels", 1))


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of a clip's frames."""
    height, width = video.read_clip(path, max_frames=1).frames.shape[-2:]
    return height, width


def _logits_that_fit(
    model: nn.Module, frames: UInt8[Tensor, "time channels height width"], path: Path
) -> Float[Tensor, "time classes"]:
    try:
        return _logits(model, frames).cpu()
    except ValueError as error:
        raise DataError(f"{path} does not fit the model: {error}") from error


@torch.inference_mode()
def _logits(model: nn.Module, frames: UInt8[Tensor, "time channels height width"]) -> Float[Tensor, "time classes"]:
    clip = frames.unsqueeze(0)
    if not isinstance(model, VideoClassifier):
        logits: Tensor = model(clip)
        return logits[0]
    # In parts, so that an hour of video needs the memory of a few seconds.
    parts, state = [], None
    for part in clip.split(_FRAMES_PER_ROUND, dim=1):
        logits, state = model.step(part, state)
        parts.append(logits[0])
    return torch.cat(parts)


def prediction_of(
    path: Path, clip: video.Clip, logits: Float[Tensor, "time classes"], scheme: LabelScheme
) -> Prediction:
    """Put what a model said of a clip into words.

    Args:
        path: the file.
        clip: what the model saw of it.
        logits: what it said, a row a frame or one row at the end.
        scheme: what the classes are called.

    Raises:
        DataError: the logits are not those of the scheme's classes.
    """
    if logits.shape[-1] != scheme.num_classes:
        raise DataError(f"the model has {logits.shape[-1]} classes, its labels {scheme.name!r} {scheme.num_classes}")
    chosen, last = _chosen(logits, scheme), probabilities(logits[-1], scheme)
    verdict, probability = verdicts(logits[-1:], scheme)[0]
    best = last.topk(min(_NUM_TOP, len(last)))
    top = tuple((scheme.names[index], value) for value, index in zip(*(part.tolist() for part in best), strict=True))
    num_frames, (height, width) = len(clip.frames), clip.frames.shape[-2:]
    decided_at = _first_of_last_run((chosen == chosen[-1]).all(-1)) if len(logits) == num_frames else None
    return Prediction(path, verdict, probability, top, decided_at, num_frames, (height, width), clip.fps, clip.warning)


def probabilities(logits: Float[Tensor, "*time classes"], scheme: LabelScheme) -> Float[Tensor, "*time classes"]:
    """Turn logits into the probability of each class; those of the scheme `digits` do not sum to 1."""
    return logits.sigmoid() if scheme.multi_label else logits.softmax(-1)


def verdicts(logits: Float[Tensor, "time classes"], scheme: LabelScheme) -> list[tuple[str, float]]:
    """Name the verdict at each frame, with its probability.

    It is a class, or for the scheme `digits` a set such as `0-3-7`, or `none`, with the probability of exactly this
    set, digits taken as independent.

    >>> logits = torch.tensor([[9.0, -9, -9, 9, -9, -9, -9, 1, -9, -9], [-9.0] * 10])
    >>> [(name, round(p, 2)) for name, p in verdicts(logits, label_schemes.create("digits"))]
    [('0-3-7', 0.73), ('none', 1.0)]
    """
    chosen, said = _chosen(logits, scheme), probabilities(logits, scheme)
    probability = torch.where(chosen, said, 1 - said).prod(-1) if scheme.multi_label else said.amax(-1)
    names = ("-".join(name for name, there in zip(scheme.names, row, strict=True) if there) for row in chosen.tolist())
    return [(name or "none", p) for name, p in zip(names, probability.tolist(), strict=True)]


def _chosen(logits: Float[Tensor, "time classes"], scheme: LabelScheme) -> Bool[Tensor, "time classes"]:
    if scheme.multi_label:
        return logits.sigmoid() > 0.5
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).bool()


def _first_of_last_run(same: Bool[Tensor, "time"]) -> int:
    others = (~same).nonzero()
    return int(others[-1]) + 1 if len(others) else 0
