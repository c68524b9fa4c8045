"""Everything that decides an end-to-end training run besides the clips, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import files, models
from saccade.errors import UsageError


@dataclass(frozen=True)
class TrainConfig:
    """One end-to-end training run: one loss through encoder, attention and temporal part, all weights from scratch.

    Every frame's prediction is supervised. The learning rate rises over the first tenth of the steps and falls as a
    half cosine to nothing: a function of the step alone.

    Args:
        model: lenet-lstm, stn-lstm or dcn-lstm; or a checkpoint, whose kind, trunk and input are then taken.
        trunk: light or wide: the convolutions that all three models share.
        input: what of the frames the encoder sees: frames, differences (what changed since the frame before) or both;
            by default what suits the clips.
        steps: number of optimiser steps.
        minutes: instead of steps: fix their number so that training takes this long here, after a short timing. With
            neither, training takes ten minutes.
        batch_size: clips in a step. Few teach more in minutes (8), many in an hour (32).
        learning_rate: the highest one of AdamW.
        muon_rate: the highest one of Muon, which moves the encoder's weights in steps of the same size in every
            direction; 0 leaves them to AdamW.
        attention_rate: learning rate of the layers that say where to look, as a multiple of `learning_rate`.
        weight_decay: decoupled weight decay of AdamW.
        ema: decay of an exponential moving average of the weights, such as 0.999, which the checkpoint then holds as
            the model; 0 keeps none.
        seed: of the weights, and of what is drawn for batches.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor computes it natively), float32 or bfloat16.
        start_from: a checkpoint whose weights training starts from instead of fresh ones.

    Raises:
        UsageError: an unknown name, or a number outside its range.
    """

    model: str = "lenet-lstm"
    trunk: str = "light"
    input: str | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
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
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; one of them fixes the length of training")
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
            raise UsageError(f"ema must lie in 0 to 1, below 1; got {self.ema}")
        if self.model in models.MODELS and self.model not in models.MATCHED:
            raise UsageError(
                f"{self.model} learns in the three stages of the paper: saccade reproduce --preset published;"
                f" end to end, take {', '.join(models.MATCHED)}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)
