"""The prediction of a model for a clip, put together while the clip is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from saccade.clips import Size
from saccade.data import video
from saccade.errors import DataError, NonFiniteError, SaccadeError
from saccade.labels import Labels, Verdict

# A longer clip is reported once a second, so that the report of two hours stays small.
MAX_REPORTED_FRAMES = 100
_FRAMES_PER_SECOND_IF_UNKNOWN = 25
_NUM_TOP = 5
_DIGITS = 4


@dataclass(frozen=True)
class OverTime:
    """The verdicts of a model at moments of a clip; each considers all frames up to its moment.

    *Conventions:* frames are numbered from 0.

    Args:
        frames: the frame of each moment.
        seconds: the display time of each moment, in seconds after the first frame; None if it is unknown.
        verdicts: the verdict at each moment.
        sure: whether it is sure; see `Labels.sure`.
        probabilities: the probability of each class at each moment.
    """

    frames: tuple[int, ...]
    seconds: tuple[float, ...] | None
    verdicts: tuple[Verdict, ...]
    sure: tuple[bool, ...]
    probabilities: Float32[NDArray[np.float32], "moments classes"] = field(compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types, with probabilities rounded to four digits."""
        return {
            "frames": list(self.frames),
            "seconds": None if self.seconds is None else [round(moment_s, _DIGITS) for moment_s in self.seconds],
            "verdicts": [verdict.name for verdict in self.verdicts],
            "sure": list(self.sure),
            "probability": [round(verdict.probability, _DIGITS) for verdict in self.verdicts],
            "probabilities": [[round(p, _DIGITS) for p in row] for row in self.probabilities.tolist()],
        }


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for a clip.

    *Conventions:* frames are numbered from 0; `render` shows them to people, who count from 1.

    Args:
        clip: the file.
        verdict: the class at the last frame. If classes do not exclude each other, their set, for example `0-3-7`.
        probability: the probability of exactly this verdict. Classes that do not exclude each other are treated as
            independent.
        top: the most probable classes with their probabilities, at most five.
        decided_at: the first frame from which the verdict stays the same and sure to the end; None if it is not sure
            at the end, and for a model that predicts at the end only.
        num_frames: the number of frames that the model received.
        frame_size: (height, width) of the frames that the model received.
        fps: frames per second; None if the file does not state it.
        warning: one line if the file is damaged and the model received only a part of the clip.
        decided_at_s: the display time of frame `decided_at`, in seconds after the first frame; None if it is unknown.
        sure: whether the verdict is sure; see `Labels.sure`.
        probabilities: the probability of each class, in the order of the model's classes.
        over_time: the verdicts over time, if they were asked for.
        classes: the classes of the verdict: one, or any number if classes do not exclude each other.
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
    sure: bool = True
    probabilities: dict[str, float] = field(default_factory=dict)
    over_time: OverTime | None = None
    classes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types; without verdicts over time, that field is missing."""
        fields = {name: value for name, value in vars(self).items() if name != "over_time"}
        fields |= {"clip": str(self.clip), "top": [list(one) for one in self.top], "frame_size": list(self.frame_size)}
        fields["classes"] = list(self.classes)
        return fields | ({} if self.over_time is None else {"over_time": self.over_time.as_json()})


@dataclass(frozen=True)
class Failure:
    """A clip that cannot be classified, with the reason."""

    clip: Path
    error: SaccadeError


class Summary:
    """What is kept of a model's logits while a clip is read; of a long clip, one moment a second.

    Args:
        path: the file, for messages.
        labels: the classes of the model.
        min_confidence: the minimum confidence of a verdict; see `Labels.sure`.
    """

    def __init__(self, path: Path, labels: Labels, min_confidence: float) -> None:
        self._path, self._labels, self._min_confidence = path, labels, min_confidence
        self._num_frames = 0
        self._before: Bool[Tensor, "classes_and_sure"] | None = None
        self._last: Float[Tensor, "classes"] = torch.empty(0)
        self._decided: tuple[int, float | None] = (0, None)
        # The first frames, and the last frame of each second: (frame, time in seconds, logits).
        self._first: list[_Moment] = []
        self._by_second: list[_Moment] = []
        self._second: tuple[bool, int] | None = None

    def add(self, logits: Float[Tensor, "time classes"], seconds: Sequence[float] | None) -> None:
        """Add the logits of the next frames.

        Args:
            logits: one row for each frame.
            seconds: the display time of each frame, in seconds after the first; None if it is unknown.

        Raises:
            DataError: if the number of logits differs from the number of classes.
            NonFiniteError: if a logit is NaN or infinite.
        """
        if logits.shape[-1] != len(self._labels.names):
            raise DataError(
                f"the model has {logits.shape[-1]} classes, its labels name {len(self._labels.names)};"
                " use another checkpoint"
            )
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteError(f"the model gives NaN or infinity for {self._path}; use another checkpoint")
        self._follow_verdict(logits, seconds)
        self._follow_time(logits.float(), seconds)
        self._num_frames += len(logits)
        self._last = logits[-1].clone()

    def prediction(
        self, clip: video.Clip | video.Frames, num_frames: int, frame_size: Size, over_time: bool
    ) -> Prediction:
        """Return the prediction, when all logits have been added.

        Args:
            clip: the source of rate and damage.
            num_frames: the number of frames that the model received.
            frame_size: (height, width) of these frames.
            over_time: whether to report the verdicts over time.
        """
        (verdict,) = self._labels.verdicts(self._last.unsqueeze(0))
        said = self._labels.probabilities(self._last)
        best = said.topk(min(_NUM_TOP, len(said))).indices.tolist()
        names, values = self._labels.names, said.tolist()
        sure = bool(self._labels.sure(self._last.unsqueeze(0), self._min_confidence))
        frame, moment_s = self._decided if sure and self._num_frames == num_frames else (None, None)
        return Prediction(
            *(self._path, verdict.name, verdict.probability),
            top=tuple((names[index], values[index]) for index in best),
            decided_at=frame,
            num_frames=num_frames,
            frame_size=frame_size,
            fps=clip.fps,
            warning=clip.warning,
            decided_at_s=moment_s,
            sure=sure,
            probabilities=dict(zip(names, values, strict=True)),
            over_time=self._over_time(num_frames) if over_time else None,
            classes=tuple(names[index] for index in verdict.classes),
        )

    def _follow_verdict(self, logits: Float[Tensor, "time classes"], seconds: Sequence[float] | None) -> None:
        """Note the last frame at which the verdict changed, or became sure or unsure."""
        sure = self._labels.sure(logits, self._min_confidence)
        now = torch.cat((self._labels.chosen(logits), sure.unsqueeze(1)), 1)
        before = now[:1] if self._before is None else self._before.unsqueeze(0)
        changed = (now != torch.cat((before, now[:-1]))).any(-1)
        if self._before is None:
            changed[0] = True
        if bool(changed.any()):
            row = int(changed.nonzero()[-1])
            self._decided = self._num_frames + row, None if seconds is None else seconds[row]
        self._before = now[-1].clone()

    def _follow_time(self, logits: Float[Tensor, "time classes"], seconds: Sequence[float] | None) -> None:
        for row, values in enumerate(logits.cpu().numpy()):
            frame, moment_s = self._num_frames + row, None if seconds is None else seconds[row]
            moment = frame, moment_s, values.copy()
            if frame < MAX_REPORTED_FRAMES:
                self._first.append(moment)
            second = moment_s is not None, int(frame // _FRAMES_PER_SECOND_IF_UNKNOWN if moment_s is None else moment_s)
            if second == self._second:
                self._by_second[-1] = moment
            else:
                self._by_second.append(moment)
            self._second = second

    def _over_time(self, num_frames: int) -> OverTime:
        if self._num_frames < num_frames:  # a model that predicts at the end only
            moments: list[_Moment] = [(num_frames - 1, None, self._last.float().numpy())]
        else:
            moments = self._first if num_frames <= MAX_REPORTED_FRAMES else self._by_second
        times = [moment_s for _, moment_s, _ in moments if moment_s is not None]
        logits = torch.from_numpy(np.stack([values for _, _, values in moments]))
        return OverTime(
            frames=tuple(frame for frame, _, _ in moments),
            seconds=tuple(times) if len(times) == len(moments) else None,
            verdicts=tuple(self._labels.verdicts(logits)),
            sure=tuple(self._labels.sure(logits, self._min_confidence).tolist()),
            probabilities=self._labels.probabilities(logits).numpy(),
        )


_Moment = tuple[int, float | None, NDArray[np.float32]]


def prediction_of(
    path: Path,
    clip: video.Clip,
    logits: Float[Tensor, "time classes"],
    labels: Labels,
    *,
    min_confidence: float | None = None,
    over_time: bool = False,
) -> Prediction:
    """Return the prediction for a clip, given the logits of a model.

    Args:
        path: the file.
        clip: the clip as the model received it.
        logits: the logits of the model, one row for each frame or one row for the last frame.
        labels: the classes of the model.
        min_confidence: the minimum confidence of a verdict, see `Labels.sure`; None for that of the classes.
        over_time: whether to report the verdicts over time.

    Raises:
        DataError: if the number of logits differs from the number of classes.
        NonFiniteError: if a logit is NaN or infinite.
    """
    num_frames, (height, width) = len(clip.frames), clip.frames.shape[-2:]
    summary = Summary(path, labels, labels.threshold(min_confidence))
    summary.add(logits, clip.seconds if len(logits) == num_frames else None)
    return summary.prediction(clip, num_frames, (height, width), over_time)
