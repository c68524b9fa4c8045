"""A model that follows a stream: frames in, predictions out, one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from saccade import checkpoint, weights
from saccade.attention import Look, look
from saccade.data.pixels import Converter
from saccade.data.times import Resampler
from saccade.device import choose_device
from saccade.errors import DataError, NonFiniteError
from saccade.labels import Labels
from saccade.models import VideoClassifier
from saccade.models.folding import folded
from saccade.models.packing import pack
from saccade.nn.temporal import State
from saccade.stream.threads import enough_threads

LONGEST_GAP_S = 2.0
"""After a longer time without a frame, a stream begins anew."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a stream, from all frames since its beginning.

    Args:
        verdict: the class, or the joined names of classes that do not exclude each other.
        probability: the probability of exactly this verdict.
        sure: whether it is sure; see `Labels.sure`.
        probabilities: the probability of each class, in the order of the model's classes.
        num_frames: the number of frames that the model has received since the beginning of the stream.
    """

    verdict: str
    probability: float
    sure: bool
    probabilities: tuple[float, ...]
    num_frames: int


class Classifier:
    """Follow a stream with a trained model.

    Frames come with their time stamps, at any rate; the model receives them at the rate that it learned at. A frame
    that comes between two of its periods changes nothing, and one that lasts for several is shown to it repeatedly. If
    the model is slower than the rate that it learned at, give the newest frame only to `step`, which takes it once.

    Args:
        run: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        device: auto, cpu or cuda.
        min_confidence: the minimum confidence of a verdict; None for that in the checkpoint.

    Attributes:
        labels: the classes.
        frame_format: the frames that the model expects.

    Raises:
        DataError: if the checkpoint cannot be read, does not state its classes, or needs whole clips.

    >>> from saccade.stream import Classifier
    >>> classifier = Classifier("lenet-lstm")
    >>> camera = [np.zeros((48, 64), np.uint8)] * 3
    >>> [classifier.push(frame, number / 25).num_frames for number, frame in enumerate(camera)]
    [1, 2, 3]
    """

    def __init__(self, run: Path | str, *, device: str = "auto", min_confidence: float | None = None) -> None:
        path = weights.find(Path(run))
        self._device = choose_device(device)
        model, header = checkpoint.load(path, self._device)
        if header.labels is None:
            raise DataError(f"{path} does not say what its classes are; a model of `saccade train` is needed")
        if not isinstance(model, VideoClassifier):
            raise DataError(f"{path} holds a {header.model}, which needs whole clips; give a model of `saccade train`")
        self.model, self.kind, self.path = folded(model), header.kind, path
        pack(self.model)
        self.labels: Labels = header.labels
        self.frame_format = model.frame_format
        self.min_confidence = self.labels.min_confidence if min_confidence is None else min_confidence
        self.reset()

    def reset(self) -> None:
        """Begin anew: the next frame is the first one of a stream."""
        self._state: State | None = None
        self._last: Prediction | None = None
        self._last_s: float | None = None
        self._num_frames = 0
        fps = self.frame_format.fps
        self._resampler = Resampler[av.VideoFrame](fps) if fps else None
        self._convert = Converter(self.frame_format.fit, self.frame_format.channels)

    def push(self, frame: NDArray[np.uint8], timestamp_s: float) -> Prediction:
        """Return the prediction after the next frame.

        After a gap of more than `LONGEST_GAP_S`, and where time goes back, the stream begins anew.

        Args:
            frame: a frame of any size, (height, width, 3) in RGB or (height, width) in grey.
            timestamp_s: when it was taken, in seconds after any moment.

        Raises:
            ValueError: if the frame has another shape or type or no pixels, or the time stamp is no finite number.
            NonFiniteError: if the model gives NaN or infinity.
        """
        kind = {2: "gray", 3: "rgb24"}.get(frame.ndim)
        is_colour = frame.ndim == 3 and frame.shape[2] == 3
        if kind is None or frame.dtype != np.uint8 or not frame.size or not (is_colour or frame.ndim == 2):
            raise ValueError(
                f"a frame has shape {frame.shape} and type {frame.dtype}; (height, width, 3) in RGB or (height, width)"
                " in grey, uint8, is needed"
            )
        if not math.isfinite(timestamp_s):
            raise ValueError(f"a frame has the time stamp {timestamp_s}; a number of seconds is needed")
        if self._last_s is not None and not 0 <= timestamp_s - self._last_s <= LONGEST_GAP_S:
            self.reset()
        self._last_s = timestamp_s
        shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=kind)
        for due in [shown] if self._resampler is None else self._resampler.push(shown, timestamp_s):
            self.step(torch.from_numpy(self._convert(due)))
        assert self._last is not None  # the first frame is due
        return self._last

    @torch.inference_mode()
    def step(self, frame: UInt8[Tensor, "channels height width"]) -> Prediction:
        """Return the prediction after the next frame, which has the size, the channels and the rate of the model.

        Raises:
            ValueError: if the frame does not fit the model, or not the frames before it.
            NonFiniteError: if the model gives NaN or infinity.
        """
        logits, self._state = self.model.step(frame[None, None].to(self._device), self._state)
        return self._read(logits[0])

    @torch.inference_mode()
    def look(self, frame: UInt8[Tensor, "channels height width"]) -> tuple[Prediction, Look]:
        """Return the prediction after the next frame, as `step` does, and where the model looked in that frame.

        Calls of `step` and of `look` may follow each other in any order.

        Raises:
            ValueError, NonFiniteError: as `step`.
        """
        looked, self._state = look(self.model, frame[None].to(self._device), self._state)
        return self._read(looked.logits), looked

    @contextmanager
    def enough_threads(self, frame: UInt8[Tensor, "channels height width"]) -> Iterator[int]:
        """Compute frames like this one with as few threads as keep the pace inside the block; yield their number.

        What was seen before does not change.
        """

        @torch.inference_mode()
        def step() -> None:
            self.model.step(frame[None, None].to(self._device), None)

        with enough_threads(step, self.frame_format.fps) as num_threads:
            yield num_threads

    def _read(self, logits: Float[Tensor, "1 classes"]) -> Prediction:
        logits = logits.float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteError(f"the model in {self.path} gives NaN or infinity; use another checkpoint")
        (verdict,) = self.labels.verdicts(logits)
        self._num_frames += 1
        self._last = Prediction(
            verdict=verdict.name,
            probability=verdict.probability,
            sure=bool(self.labels.sure(logits, self.min_confidence)),
            probabilities=tuple(self.labels.probabilities(logits[0]).tolist()),
            num_frames=self._num_frames,
        )
        return self._last
