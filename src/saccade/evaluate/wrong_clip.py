"""What a page shows of one clip with a wrong or uncertain verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WrongClip:
    """What a page shows of one clip; `saccade.explain` makes it.

    Args:
        name: the name of the clip.
        shown: the name of its true class.
        said: the name of the class that the model predicted.
        right: whether both are the same.
        sure: whether the verdict is sure, as for `saccade predict` without options.
        exclusive: whether classes exclude each other; else these are sets of classes, and their probabilities those of
            exactly the set.
        probability: the probability of the verdict.
        target_probability: the probability of the true class.
        picture: a PNG file with frames of the clip and where the model looked in them.
        picture_size: the width and the height at which the picture is shown, in pixels.
        legend: the meaning of the marks in the picture.
        said_over_time: the probability of the predicted class at each frame, or at the last frame only.
        shown_over_time: the same for the true class.
        num_frames: the number of frames.
        did: the name and value of figures on where the model looked.
        command: a command that shows more of this clip; None if its file is not known.
    """

    name: str
    shown: str
    said: str
    right: bool
    sure: bool
    exclusive: bool
    probability: float
    target_probability: float
    picture: bytes
    picture_size: tuple[int, int]
    legend: str
    said_over_time: Sequence[float]
    shown_over_time: Sequence[float]
    num_frames: int
    did: Sequence[tuple[str, str]]
    command: str | None = None
