"""The results of models on a clip: everything that a report shows, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade import checkpoint, predict, weights
from saccade.attention import Attended, Look, look, measure
from saccade.checkpoint import Header
from saccade.clips import Size
from saccade.data import video
from saccade.device import choose_device
from saccade.errors import DataError, UsageError
from saccade.explain.config import ExplainConfig
from saccade.explain.truth import Truth, names_digits, truth_of
from saccade.labels import Labels, Verdict
from saccade.predict import Prediction
from saccade.visualize import colour_of

# For the second and later checkpoints of one kind of model.
_FURTHER_COLOURS = ("#aa3377", "#66ccee", "#ccbb44")


@dataclass(frozen=True)
class Column:
    """The results of one model on the clip.

    *Conventions:* positions are in pixels of `clip.frames`, the input frames of this model.

    Args:
        name: the name of the model, with its folder if several models are of one kind.
        colour: the colour of the model, as `#rrggbb`.
        path: the checkpoint.
        header: the header of the checkpoint.
        labels: the classes of the model.
        clip: the clip as the model receives it.
        look: where the model looked.
        prediction: the prediction of the model.
        boxes_px: (top, left, bottom, right) around each object; None if the objects are not known.
        attended: how much of the attention fell on the objects, by kind of attention; empty if they are not known.
        min_confidence: the minimum confidence of a verdict; see `Labels.sure`.
    """

    name: str
    colour: str
    path: Path
    header: Header
    labels: Labels
    clip: video.Clip
    look: Look
    prediction: Prediction
    boxes_px: Float[Tensor, "time things 4"] | None
    attended: Mapping[str, Attended]
    min_confidence: float = predict.MIN_CONFIDENCE

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the model's input frames."""
        return self.prediction.frame_size

    @property
    def probabilities(self) -> Float[Tensor, "time classes"]:
        """The probability of each class at each frame, or one row for a model that predicts at the end only."""
        return self.labels.probabilities(self.look.logits)

    @property
    def sure(self) -> list[bool]:
        """Whether the verdict at each frame is sure, as in `saccade predict`."""
        found: list[bool] = self.labels.sure(self.look.logits, self.min_confidence).tolist()
        return found

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict at each frame, or one verdict for a model that predicts at the end only."""
        return self.labels.verdicts(self.look.logits)


@dataclass(frozen=True)
class Explanation:
    """The results of several models on one clip.

    Args:
        clip: the file.
        file_size: (height, width) of the frames in the file.
        num_frames: the number of frames that were read, the same for all models.
        cut: whether the clip continues after these frames.
        columns: one column for each model.
        truth: the digits in the clip and their poses; None if they are not known.
    """

    clip: Path
    file_size: tuple[int, int]
    num_frames: int
    cut: bool
    columns: tuple[Column, ...]
    truth: Truth | None

    @property
    def knows_digits(self) -> bool:
        """Whether the classes of all models are digits."""
        return all(names_digits(column.labels) for column in self.columns)

    @property
    def fps(self) -> float | None:
        """Frames per second; None if the file does not state it."""
        return self.columns[0].clip.fps

    @property
    def warnings(self) -> list[str]:
        """The warnings about damage in the file, without duplicates."""
        return list(dict.fromkeys(c.clip.warning for c in self.columns if c.clip.warning))


def explain_clip(config: ExplainConfig) -> Explanation:
    """Run every model on the clip, and collect where it looked and what it predicted.

    Raises:
        UsageError: if the device is unknown, or if the models were trained at different frame rates.
        DataError: if the clip or a checkpoint cannot be read, or if they do not fit each other.
    """
    device = choose_device(config.device)
    paths = [weights.find(path) for path in config.models]
    loaded = [checkpoint.load(path, device) for path in paths]
    names = checkpoint.distinct_names([header.kind for _, header in loaded], paths)
    file_size = video.describe(config.clip).size
    truth = truth_of(config.clip)
    read: dict[tuple[Size, int, float | None], video.Clip] = {}
    columns = []
    for (model, header), path, name, colour in zip(loaded, paths, names, _colours(loaded), strict=True):
        frame_format = predict.format_of(model)
        wanted = frame_format.fit(file_size), frame_format.channels, frame_format.fps
        if wanted not in read:
            # One frame more than needed shows whether the clip continues.
            read[wanted] = predict.read_for(frame_format, config.clip, max_frames=config.max_frames + 1, size=file_size)
        clip = replace(read[wanted], frames=read[wanted].frames[: config.max_frames])
        labels = predict.classes_of(header, path)
        # Only the page draws receptive fields.
        seen = _look_that_fits(model, clip, config.clip, device, receptive_field=config.chosen_format == "html")
        least = labels.threshold(config.min_confidence)
        prediction = predict.prediction_of(config.clip, clip, seen.logits, labels, min_confidence=least)
        known = truth if truth is not None and names_digits(labels) else None
        boxes, attended = _beside_truth(model, clip, known, file_size, device)
        columns.append(Column(name, colour, path, header, labels, clip, seen, prediction, boxes, attended, least))
    _check_same_moments([column.clip for column in columns])
    num_frames = len(columns[0].clip.frames)
    cut = any(len(clip.frames) > num_frames for clip in read.values())
    shown = truth if any(names_digits(column.labels) for column in columns) else None
    return Explanation(config.clip, file_size, num_frames, cut, tuple(columns), shown)


def _check_same_moments(clips: Sequence[video.Clip]) -> None:
    """Raise UsageError if models receive the clip at different rates: their frames would be from different times."""
    rates = {clip.fps for clip in clips if clip.fps}
    # Rates in files are rounded.
    if len({len(clip.frames) for clip in clips}) > 1 or (rates and max(rates) > 1.01 * min(rates)):
        raise UsageError(
            f"the models were trained at different rates ({' and '.join(map(str, sorted(rates)))} frames/s), so their"
            " frames cannot be shown side by side; explain the clip with one model at a time"
        )


def _look_that_fits(
    model: nn.Module, clip: video.Clip, path: Path, device: torch.device, *, receptive_field: bool
) -> Look:
    try:
        return look(model, clip.frames.to(device), saliency=True, receptive_field=receptive_field)[0]
    except ValueError as error:
        raise DataError(f"{path} does not fit the model: {error}") from error


def _beside_truth(
    model: nn.Module, clip: video.Clip, truth: Truth | None, file_size: tuple[int, int], device: torch.device
) -> tuple[Float[Tensor, "time things 4"] | None, Mapping[str, Attended]]:
    num_frames, _, height, width = clip.frames.shape
    if truth is None or truth.poses.box_px.shape[1] < num_frames:
        return None, {}
    poses = truth.poses_in(num_frames, file_size, (height, width))
    on_device = poses.map(lambda values: values.to(device))
    # A single clip has no other clip to compare with: the clip's own boxes fill that argument, its figures are unused.
    attended, _ = measure(model, clip.frames.unsqueeze(0).to(device), on_device, on_device.box_px)
    return poses.box_px[0], attended


def _colours(loaded: list[tuple[nn.Module, Header]]) -> list[str]:
    further, colours = list(_FURTHER_COLOURS), []
    for _, header in loaded:
        colour = colour_of(header.kind)
        colours.append(further.pop(0) if colour in colours and further else colour)
    return colours
