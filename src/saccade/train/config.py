"""Everything that decides an end-to-end training run, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade import files, models
from saccade.data import digits as digit_sources
from saccade.data import labels as label_schemes
from saccade.data.mixture import Mixture
from saccade.data.motion import CONDITIONS, Motion
from saccade.data.moving_digits import MovingDigits
from saccade.errors import UsageError
from saccade.models.published import CNNS

# The order of the phases is fixed: short clips teach digits quickly, long ones teach what to remember.
SHORT_FRAMES = 4


@dataclass(frozen=True)
class TrainConfig:
    """One end-to-end training run: one loss through encoder, attention and recurrent network, all weights from scratch.

    Clips are generated as training goes, so no clip is seen twice. Every frame's prediction is supervised. The learning
    rate rises over the first tenth of the steps and falls as a half cosine to nothing: a function of the step alone.

    Where the number of digits is a range, the short clips begin with the smallest number, without clutter and noise,
    and come to the whole range in equal stages: what a digit looks like is learned from digits alone.

    Args:
        model: lenet-lstm, stn-lstm or dcn-lstm.
        trunk: light or wide: the convolutions that all three models share.
        condition: normal, rotation, scaling, rotation_scaling or elastic. Of several, each clip is of one, drawn at
            random; one named twice comes twice as often.
        digits: uci, mnist, strokes, auto, a folder with four IDX files, or several joined by +.
        data_dir: where MNIST lies; else the user cache is looked at.
        labels: pair, ordered or digits.
        steps: number of optimiser steps.
        minutes: instead of steps: fix their number so that training takes this long here, after a short timing. With
            neither, training takes ten minutes.
        batch_size: clips of `num_frames` frames in a step. Few teach more in minutes (8), many in an hour (32).
        num_frames: frames of a training clip.
        frames_per_setting: frames between two draws of angle and scale; fewer than in test, where frames alike teach
            little.
        short_fraction: part of the steps that use clips of 4 frames, as many frames a step in all.
        angle: largest rotation in degrees, to either side.
        num_digits: digits in a clip, or the smallest and the largest number; 2 unless the labels are digits.
        clutter: largest number of pieces of digits that move about beside the digits.
        noise: largest standard deviation of each pixel's noise in grey levels.
        learning_rate: the highest one of AdamW.
        muon_rate: the highest one of Muon, which moves the encoder's weights in steps of the same size in every
            direction; 0 leaves them to AdamW.
        attention_rate: learning rate of the layers that say where to look, as a multiple of `learning_rate`.
        weight_decay: decoupled weight decay of AdamW.
        ema: decay of an exponential moving average of the weights, such as 0.999, which the checkpoint then holds as
            the model; 0 keeps none.
        seed: of the weights and the clips.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor computes it natively), float32 or bfloat16.
        start_from: a checkpoint whose weights training starts from instead of fresh ones.
    """

    model: str = "lenet-lstm"
    trunk: str = "light"
    condition: tuple[str, ...] = ("rotation_scaling",)
    digits: str = "auto"
    data_dir: Path | None = None
    labels: str = "pair"
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    num_frames: int = 16
    frames_per_setting: int = 2
    short_fraction: float = 0.5
    angle: float = 90.0
    num_digits: int | tuple[int, int] = 2
    clutter: int = 0
    noise: float = 0.0
    learning_rate: float = 3e-3
    muon_rate: float = 0.02
    attention_rate: float = 0.1
    weight_decay: float = 0.01
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    start_from: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.condition, str):
            object.__setattr__(self, "condition", (self.condition,))
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; one of them fixes the length of training")
        for name in ("batch_size", "num_frames", "frames_per_setting", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be above 0; got {getattr(self, name)}")
        for name in ("muon_rate", "attention_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or above; got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed must lie in 0 to {(1 << 63) - 1}; got {self.seed}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1; got {self.steps}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"minutes must be above 0; got {self.minutes}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must lie in 0 to 1, below 1; got {self.ema}")
        if not self.condition:
            raise UsageError(f"no condition was given; name at least one of {', '.join(CONDITIONS)}")
        if not 0 <= self.short_fraction <= 1:
            raise UsageError(f"short_fraction must lie in 0 to 1; got {self.short_fraction}")
        if self.model in CNNS:
            raise UsageError(
                f"{self.model} learns in the three stages of the paper: saccade reproduce --preset published;"
                " end to end, take lenet-lstm, stn-lstm or dcn-lstm"
            )
        self.motions()
        label_schemes.create(self.labels).check_num_digits(self.num_digits)

    def motions(self, *, short: bool = False) -> tuple[Motion, ...]:
        """Return how the digits of a training clip move, condition by condition."""
        frames = min(SHORT_FRAMES, self.num_frames) if short else self.num_frames
        per_setting = 1 if short else self.frames_per_setting
        shared: dict[str, Any] = {"max_angle_deg": self.angle, "clutter": self.clutter, "noise": self.noise}
        return tuple(Motion(condition, frames, per_setting, **shared) for condition in self.condition)

    def model_arguments(self) -> dict[str, Any]:
        """Return the arguments that `models.create` gets."""
        num_classes = label_schemes.create(self.labels).num_classes
        return {"num_classes": num_classes, "trunk": self.trunk, "digit_pairs": self.labels == "pair"}

    def create_model(self) -> Any:
        """Build the model with fresh weights."""
        return models.create(self.model, **self.model_arguments())

    def load_digits(self, split: str) -> digit_sources.Digits:
        """Load the digit images of a split."""
        return digit_sources.load(self.digits, split, data_dir=self.data_dir)

    def clips(self, digits: digit_sources.Digits) -> Mixture:
        """Return the training clips of full length."""
        return self._mixture(digits, self.motions(), self.num_digits)

    def short_clips(self, digits: digit_sources.Digits) -> tuple[Mixture, ...]:
        """Return the short training clips, stage by stage; a batch holds as many frames in more clips."""
        motions = self.motions(short=True)
        fewest, most = label_schemes.create(self.labels).check_num_digits(self.num_digits)
        stages = []
        for largest in range(fewest, most + 1):
            share = (largest - fewest) / (most - fewest) if most > fewest else 1.0
            clutter, noise = round(share * self.clutter), share * self.noise
            staged = [replace(motion, clutter=clutter, noise=noise) for motion in motions]
            stages.append(self._mixture(digits, staged, (fewest, largest)))
        return tuple(stages)

    def _mixture(
        self, digits: digit_sources.Digits, motions: Sequence[Motion], num_digits: int | tuple[int, int]
    ) -> Mixture:
        arguments: dict[str, Any] = {"labels": self.labels, "num_digits": num_digits, "seed": self.seed}
        return Mixture([MovingDigits(digits, motion, **arguments) for motion in motions])

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)
