"""The verb `saccade predict`: the class of clips that lie in files, and from which frame on the model says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from tyro.conf import Positional

from saccade import checkpoint, weights
from saccade.checkpoint import Header
from saccade.clips import FrameFormat, Size
from saccade.data import video
from saccade.data.folder import find_clips
from saccade.device import choose_device
from saccade.errors import DataError, UsageError
from saccade.foreign import shown
from saccade.labels import Labels
from saccade.models import VideoClassifier

_FRAMES_PER_ROUND = 256
_NUM_TOP = 5


@dataclass(frozen=True)
class PredictConfig:
    """Name the class of clips.

    Args:
        clips: video files, GIFs, `.npz` files (array `frames`), or folders of such.
        model: a checkpoint, the folder of a run, or the name of a model whose weights come with the package.
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
        verdict: the class, by the last frame; where classes do not exclude each other the set, such as `0-3-7`.
        probability: of exactly this verdict; classes that do not exclude each other are taken as independent.
        top: the most probable classes with their probabilities, at most five.
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
    paths = [path for given in config.clips for path in find_clips(Path(given))]
    device = choose_device(config.device)
    checkpoint_path = weights.find(config.model)
    model, header = checkpoint.load(checkpoint_path, device)
    labels = classes_of(header, checkpoint_path)
    frame_format = format_of(model)
    for path in paths:
        try:
            clip = read_for(frame_format, path, max_frames=config.max_frames)
            logits = _logits_that_fit(model, clip.frames.to(device), path)
        except DataError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        yield prediction_of(path, clip, logits, labels)


def render(predictions: Sequence[Prediction]) -> Table:
    """Lay predictions out as a table, a row per clip; damaged files are told of below it."""
    # Names of files and classes are others' words: as `Text` nothing in them is markup.
    warnings = [shown(p.warning) for p in predictions if p.warning]
    table = Table(caption=Text("\n".join(warnings)) if warnings else None, caption_justify="left")
    table.add_column("clip", overflow="fold")
    table.add_column("verdict", style="bold", no_wrap=True)
    for name in ("probability", "decided at frame"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"top {max((len(p.top) for p in predictions), default=_NUM_TOP)}")
    for p in predictions:
        top = "  ".join(f"{shown(name)} {100 * probability:.1f}" for name, probability in p.top)
        clip, verdict = Text(shown(p.clip)), Text(shown(p.verdict))
        table.add_row(clip, verdict, f"{100 * p.probability:.1f} %", _moment(p), Text(top))
    return table


def _moment(prediction: Prediction) -> str:
    if prediction.decided_at is None:
        return "the end"
    seconds = f" ({prediction.decided_at / prediction.fps:.1f} s)" if prediction.fps else ""
    return f"{prediction.decided_at} of {prediction.num_frames}{seconds}"


def classes_of(header: Header, path: Path) -> Labels:
    """Return a checkpoint's classes.

    Raises:
        DataError: the checkpoint does not say.
    """
    if header.labels is None:
        raise DataError(
            f"{path} does not say what its classes are; a video classifier made by `saccade train` is needed"
        )
    return header.labels


def format_of(model: nn.Module) -> FrameFormat:
    """Return what a model wants of a frame; grey frames of any size where it does not say."""
    found = getattr(model, "frame_format", None)
    return found if isinstance(found, FrameFormat) else FrameFormat()


def read_for(
    frame_format: FrameFormat, path: Path, *, max_frames: int | None = None, size: Size | None = None
) -> video.Clip:
    """Read a clip as a model wants it.

    Args:
        frame_format: of the model.
        path: the file.
        max_frames: read only so many frames.
        size: (height, width) of the file's frames, where that is known already.

    Raises:
        DataError: as `video.read_clip`.
    """
    return video.read_clip(
        path,
        size=frame_format.fit(size or video.describe(path).size),
        num_channels=frame_format.channels,
        max_frames=max_frames,
        fps=frame_format.fps,
    )


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


def prediction_of(path: Path, clip: video.Clip, logits: Float[Tensor, "time classes"], labels: Labels) -> Prediction:
    """Put what a model said of a clip into words.

    Args:
        path: the file.
        clip: what the model saw of it.
        logits: what it said, a row a frame or one row at the end.
        labels: its classes.

    Raises:
        DataError: the logits are not those of the classes.
    """
    if logits.shape[-1] != len(labels.names):
        raise DataError(f"the model has {logits.shape[-1]} classes, its labels name {len(labels.names)}")
    chosen, last = labels.chosen(logits), labels.probabilities(logits[-1])
    (verdict,) = labels.verdicts(logits[-1:])
    best = last.topk(min(_NUM_TOP, len(last)))
    top = tuple((labels.names[index], value) for value, index in zip(*(part.tolist() for part in best), strict=True))
    num_frames, (height, width) = len(clip.frames), clip.frames.shape[-2:]
    decided_at = _first_of_last_run((chosen == chosen[-1]).all(-1)) if len(logits) == num_frames else None
    return Prediction(
        path, verdict.name, verdict.probability, top, decided_at, num_frames, (height, width), clip.fps, clip.warning
    )


def _first_of_last_run(same: Bool[Tensor, "time"]) -> int:
    others = (~same).nonzero()
    return int(others[-1]) + 1 if len(others) else 0
