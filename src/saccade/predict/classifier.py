"""A model that classifies files, each in constant memory."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat, Size
from saccade.data import video
from saccade.errors import DataError, NonFiniteError
from saccade.labels import Labels
from saccade.models import VideoClassifier
from saccade.models.folding import folded
from saccade.nn.temporal import State
from saccade.predict.prediction import Failure, Prediction, Summary, prediction_of


class Classifier:
    """A checkpoint's model, ready to classify files.

    Args:
        path: the checkpoint.
        device: the device to compute on.
        max_frames: the maximum number of frames to read from each clip.
        min_confidence: the minimum confidence of a verdict, see `Labels.sure`; None for that in the checkpoint.
        over_time: whether to report the verdicts over time.

    Raises:
        DataError: if the checkpoint cannot be read, or does not state its classes.
    """

    def __init__(
        self, path: Path, device: torch.device, *, max_frames: int | None, min_confidence: float | None, over_time: bool
    ) -> None:
        model, header = checkpoint.load(path, device)
        self.model = folded(model) if isinstance(model, VideoClassifier) else model
        self.labels, self.frame_format = classes_of(header, path), format_of(self.model)
        self._device, self._max_frames = device, max_frames
        self._min_confidence, self._over_time = self.labels.threshold(min_confidence), over_time

    def __call__(self, path: Path) -> Prediction | Failure:
        """Return the prediction for a file, or why there is none."""
        try:
            return self._followed(path) if isinstance(self.model, VideoClassifier) else self._at_once(path)
        except (DataError, NonFiniteError) as error:
            return Failure(path, error)

    def _followed(self, path: Path) -> Prediction:
        """Classify a clip in parts, so that hours of video need the memory of a second."""
        summary = Summary(path, self.labels, self._min_confidence)
        state: State | None = None
        num_frames, size = 0, (0, 0)
        wanted = self.frame_format
        with video.frames(
            path, size=wanted.fit, num_channels=_channels(wanted), max_frames=self._max_frames, fps=wanted.fps
        ) as parts:
            for part in parts:
                logits, state = self._step(part, state, path)
                summary.add(logits, parts.part_seconds)
                num_frames, size = num_frames + len(part), (part.shape[-2], part.shape[-1])
        return summary.prediction(parts, num_frames, size, self._over_time)

    def _at_once(self, path: Path) -> Prediction:
        clip = read_for(self.frame_format, path, max_frames=self._max_frames)
        with torch.inference_mode():
            try:
                logits = self.model(clip.frames.unsqueeze(0).to(self._device))[0].cpu()
            except ValueError as error:
                raise _does_not_fit(path, error) from error
        return prediction_of(
            path, clip, logits, self.labels, min_confidence=self._min_confidence, over_time=self._over_time
        )

    @torch.inference_mode()
    def _step(
        self, part: UInt8[Tensor, "time channels height width"], state: State | None, path: Path
    ) -> tuple[Float[Tensor, "time classes"], State]:
        assert isinstance(self.model, VideoClassifier)
        try:
            logits, state = self.model.step(part.unsqueeze(0).to(self._device), state)
        except ValueError as error:
            raise _does_not_fit(path, error) from error
        return logits[0].cpu(), state


def _does_not_fit(path: Path, error: ValueError) -> DataError:
    return DataError(f"{path} does not fit the model: {error}")


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
    return video.read_clip(
        path,
        size=frame_format.fit if size is None else frame_format.fit(size),
        num_channels=_channels(frame_format),
        max_frames=max_frames,
        fps=frame_format.fps,
    )


def _channels(frame_format: FrameFormat) -> int:
    if frame_format.channels not in (1, 3):
        raise DataError(f"the model takes frames with {frame_format.channels} channels; files have 1 (grey) or 3 (RGB)")
    return frame_format.channels
