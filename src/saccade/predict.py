"""The command `saccade predict`: the class of each clip, and the first frame from which the verdict stays the same."""

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
from saccade.errors import DataError, NonFiniteError, UsageError
from saccade.foreign import shown
from saccade.labels import Labels
from saccade.models import VideoClassifier

_FRAMES_PER_ROUND = 256
_NUM_TOP = 5


@dataclass(frozen=True)
class PredictConfig:
    """Classify clips.

    Args:
        clips: video files, GIFs, `.npz` files (array `frames`), or folders of such files.
        model: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        max_frames: the maximum number of frames to read from each clip.
        device: auto, cpu or cuda.
    """

    clips: Positional[tuple[Path, ...]]
    model: Path
    max_frames: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.clips:
            raise UsageError("no clip was given; name a video, GIF or .npz file, or a folder of such files")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"max_frames must be at least 1; got {self.max_frames}")


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for a clip.

    *Conventions:* frames are numbered from 0.

    Args:
        clip: the file.
        verdict: the class at the last frame. If classes do not exclude each other, their set, for example `0-3-7`.
        probability: the probability of exactly this verdict. Classes that do not exclude each other are treated as
            independent.
        top: the most probable classes with their probabilities, at most five.
        decided_at: the first frame from which the verdict stays the same; None for a model that predicts at the end
            only.
        num_frames: the number of frames that the model received.
        frame_size: (height, width) of the frames that the model received.
        fps: frames per second; None if the file does not state it.
        warning: one line if the file is damaged and the model received only a part of the clip.
        decided_at_s: the display time of frame `decided_at`, in seconds after the first frame; None if it is unknown.
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
    decided_at_s: float | None = None


def predict(config: PredictConfig) -> list[Prediction]:
    """Classify clips with a checkpoint.

    Raises:
        UsageError: if the device is unknown.
        DataError: if a clip or the checkpoint cannot be read, or if they do not fit each other.
    """
    return list(each(config))


def each(config: PredictConfig, *, unreadable: Callable[[DataError], None] | None = None) -> Iterator[Prediction]:
    """Classify clips with a checkpoint, one after the other.

    Args:
        config: the clips, the model and the options.
        unreadable: called with the error for each clip that cannot be classified, which is then skipped. If None, the
            error is raised.

    Raises:
        UsageError: if the device is unknown.
        DataError: if the checkpoint cannot be read, or, without `unreadable`, if a clip cannot be classified.
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
    """Return predictions as a table with one row per clip, and warnings about damaged files below it."""
    # Names of files and classes come from outside; `Text` never reads them as markup.
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
    seconds = "" if prediction.decided_at_s is None else f" ({prediction.decided_at_s:.1f} s)"
    return f"{prediction.decided_at} of {prediction.num_frames}{seconds}"


def classes_of(header: Header, path: Path) -> Labels:
    """Return a checkpoint's classes.

    Raises:
        DataError: if the checkpoint does not state its classes.
    """
    if header.labels is None:
        raise DataError(
            f"{path} does not say what its classes are; a video classifier made by `saccade train` is needed"
        )
    return header.labels


def format_of(model: nn.Module) -> FrameFormat:
    """Return the frame format of a model; grey frames of any size if the model does not state one."""
    found = getattr(model, "frame_format", None)
    return found if isinstance(found, FrameFormat) else FrameFormat()


def read_for(
    frame_format: FrameFormat, path: Path, *, max_frames: int | None = None, size: Size | None = None
) -> video.Clip:
    """Read a clip in the frame format of a model.

    Args:
        frame_format: the frame format of the model.
        path: the file.
        max_frames: the maximum number of frames to read.
        size: (height, width) of the frames in the file, if it is already known.

    Raises:
        DataError: as for `video.read_clip`.
    """
    if frame_format.channels not in (1, 3):
        raise DataError(f"the model takes frames with {frame_format.channels} channels; files have 1 (grey) or 3 (RGB)")
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
    """Return the prediction for a clip, given the logits of a model.

    Args:
        path: the file.
        clip: the clip as the model received it.
        logits: the logits of the model, one row for each frame or one row for the last frame.
        labels: the classes of the model.

    Raises:
        DataError: if the number of logits differs from the number of classes.
        NonFiniteError: if a logit is NaN or infinite.
    """
    if logits.shape[-1] != len(labels.names):
        raise DataError(
            f"the model has {logits.shape[-1]} classes, its labels name {len(labels.names)}; use another checkpoint"
        )
    if not bool(torch.isfinite(logits).all()):
        raise NonFiniteError(f"the model gives NaN or infinity for {path}; use another checkpoint")
    chosen, last = labels.chosen(logits), labels.probabilities(logits[-1])
    (verdict,) = labels.verdicts(logits[-1:])
    best = last.topk(min(_NUM_TOP, len(last)))
    top = tuple((labels.names[index], value) for value, index in zip(*(part.tolist() for part in best), strict=True))
    num_frames, (height, width) = len(clip.frames), clip.frames.shape[-2:]
    decided_at = _first_of_last_run((chosen == chosen[-1]).all(-1)) if len(logits) == num_frames else None
    decided_at_s = clip.seconds[decided_at] if decided_at is not None and clip.seconds is not None else None
    return Prediction(
        *(path, verdict.name, verdict.probability, top, decided_at, num_frames, (height, width)),
        *(clip.fps, clip.warning, decided_at_s),
    )


def _first_of_last_run(same: Bool[Tensor, "time"]) -> int:
    others = (~same).nonzero()
    return int(others[-1]) + 1 if len(others) else 0
