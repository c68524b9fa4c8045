"""The configuration of an end-to-end training run: everything that determines it, except the clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from saccade import files, models
from saccade.errors import UsageError


@dataclass(frozen=True)
class TrainConfig:
    """One end-to-end training run: one loss trains encoder, attention and temporal part together, from scratch.

    The prediction at every frame is supervised. The learning rate rises over the first tenth of the steps, then falls
    to zero as a half cosine; it depends on the step alone.

    Args:
        model: lenet-lstm, stn-lstm or dcn-lstm; or a checkpoint, whose model, trunk and input are then used.
        trunk: the convolutions that all three models share: light or wide.
        input: the input of the encoder: frames, differences (from the previous frame) or both; by default the choice
            that suits the clips.
        steps: the number of optimiser steps.
        minutes: the training time, instead of steps: a short timing sets the number of steps that fit. With neither,
            training takes ten minutes.
        batch_size: the number of clips per step; small batches (8) learn more in minutes, large ones (32) in an hour.
        learning_rate: the highest learning rate of AdamW.
        muon_rate: the highest learning rate of Muon, which updates the encoder's weights by steps of the same size in
            every direction; with 0, AdamW updates them.
        attention_rate: the learning rate of the attention parameters, as a multiple of `learning_rate`.
        weight_decay: the decoupled weight decay.
        ema: the decay of an exponential moving average of the weights, such as 0.999; the checkpoint then holds the
            average as the model. 0 for no average.
        seed: the seed of the weights and of the batches.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor computes it natively), float32 or bfloat16.
        start_from: a checkpoint to take the initial weights from; by default they are random.

    Raises:
        UsageError: if a name is unknown, or a number is out of range.
    """

    model: str = "lenet-lstm"
    trunk: str = "light"
    input: str | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    learning_rate: float = 3e-3
    muon_rate: float = 0.02
    # For scripts only: the command line has as many options as a person can read.
    attention_rate: Annotated[float, tyro.conf.Suppress, tyro.conf.Fixed] = 0.1
    weight_decay: float = 0.01
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    start_from: Path | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; give only one of them")
        for name in ("batch_size", "learning_rate"):
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
            raise UsageError(f"ema must be at least 0 and below 1; got {self.ema}")
        if self.model in models.MODELS and self.model not in models.MATCHED:
            raise UsageError(
                f"{self.model} is trained in the three stages of the paper (saccade reproduce --preset published);"
                f" for end-to-end training, choose {', '.join(models.MATCHED)}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return files.json_fields(self)
