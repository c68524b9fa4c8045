"""Everything that decides a folder of generated clips, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from saccade import files
from saccade.data import digits as digit_sources
from saccade.data import labels as label_schemes
from saccade.data.motion import Motion
from saccade.data.moving_digits import MovingDigits
from saccade.data.video import MAX_GIF_FPS, write_gif, write_mp4
from saccade.errors import UsageError, unknown_name


def _write_npz(path: Path, frames: Tensor, fps: float) -> None:
    with files.whole(path) as temporary:
        np.savez_compressed(temporary, frames=frames.numpy())


FORMATS: dict[str, Callable[[Path, Tensor, float], None]] = {"mp4": write_mp4, "npz": _write_npz, "gif": write_gif}


@dataclass(frozen=True)
class GenerateConfig:
    """A folder of clips of moving digits: a folder per class, labels, poses, a contact sheet.

    Args:
        out: the folder; the same call again goes on with the clips that are missing.
        condition: normal, rotation, scaling, rotation_scaling or elastic.
        num_clips: how many clips; every class is equally frequent.
        format: mp4 (2 of 255 grey levels off at most, as measured), gif (exact) or npz (exact; array `frames`).
        digits: uci, mnist, strokes, auto, a folder with four IDX files, or several joined by +.
        data_dir: where MNIST lies; else the user cache is looked at.
        split: train, validation or test; clips of different splits never meet.
        instances: disjoint: digit images of the split; shared: those of the training split on new trajectories.
        labels: pair, ordered or digits.
        order: for ordered labels, whether the first digit starts to the left (visible) or anywhere (hidden).
        num_digits: digits in a clip, or the smallest and the largest number; 2 unless the labels are digits.
        clutter: largest number of pieces of digits that move about beside the digits.
        noise: largest standard deviation of each pixel's noise in grey levels.
        num_frames: frames of a clip.
        frames_per_setting: frames between two draws of angle and scale.
        continuous: let angle and scale glide from setting to setting.
        canvas: height and width of a frame in pixels.
        digit_size: height and width of a digit in pixels at scale 1.
        angle: largest rotation in degrees, to either side.
        scale: smallest and largest scale of the whole canvas.
        seed: of the clips.
        fps: frames per second that a player shows.

    Raises:
        UsageError: unknown names, zero clips, ranges that are empty or do not fit into the canvas.
    """

    out: Path
    condition: str = "rotation_scaling"
    num_clips: int = 1000
    format: str = "mp4"
    digits: str = "auto"
    data_dir: Path | None = None
    split: str = "train"
    instances: str = "disjoint"
    labels: str = "pair"
    order: str = "visible"
    num_digits: int | tuple[int, int] = 2
    clutter: int = 0
    noise: float = 0.0
    num_frames: int = 50
    frames_per_setting: int = 5
    continuous: bool = False
    canvas: int = 64
    digit_size: int = 28
    angle: float = 90.0
    scale: tuple[float, float] = (0.5, 1.0)
    seed: int = 0
    fps: float = 10.0

    def __post_init__(self) -> None:
        for kind, known in (
            ("format", tuple(FORMATS)),
            ("instances", ("disjoint", "shared")),
            ("split", digit_sources.SPLITS),
        ):
            if getattr(self, kind) not in known:
                raise unknown_name(kind, getattr(self, kind), known)
        if self.num_clips < 1:
            raise UsageError(f"num_clips must be at least 1; got {self.num_clips}")
        fastest = MAX_GIF_FPS if self.format == "gif" else 1000
        if not 0.1 <= self.fps <= fastest:
            raise UsageError(f"fps must lie in 0.1 to {fastest} for {self.format}; got {self.fps}")
        self.motion()
        label_schemes.create(self.labels).check_num_digits(self.num_digits)

    def motion(self) -> Motion:
        """Return how the digits move."""
        return Motion(
            self.condition,
            self.num_frames,
            self.frames_per_setting,
            self.continuous,
            self.canvas,
            self.digit_size,
            self.angle,
            scale_range=self.scale,
            clutter=self.clutter,
            noise=self.noise,
        )

    def load_digits(self) -> digit_sources.Digits:
        """Load the digit images that the clips show."""
        split = "train" if self.instances == "shared" else self.split
        return digit_sources.load(self.digits, split, data_dir=self.data_dir)

    def clips(self, digits: digit_sources.Digits) -> MovingDigits:
        """Return the clips."""
        return MovingDigits(
            digits,
            self.motion(),
            split=self.split,
            labels=self.labels,
            order=self.order,
            num_digits=self.num_digits,
            num_clips=self.num_clips,
            seed=self.seed,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)
