"""The configuration of an end-to-end training run: everything that determines it, except the clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from saccade import files, models
from saccade.data.augment import Augmentation
from saccade.device import choose_device, choose_precision
from saccade.errors import UsageError, unknown_name
from saccade.models.matched import check_num_glimpses, check_together
from saccade.models.trunks import OLD_NAMES, PICTURE_TRUNKS, default_temporal
from saccade.nn.temporal import TEMPORAL

T = TypeVar("T")
# The command line has as many options as a person can read; the others are for scripts.
ForScripts = Annotated[T, tyro.conf.Suppress, tyro.conf.Fixed]

AUTO = "auto"
"""The name of no model in particular."""


@dataclass(frozen=True)
class TrainConfig:
    """One end-to-end training run: one loss trains encoder, attention and temporal part together, from scratch.

    The prediction at every frame is supervised. The learning rate rises over the first tenth of the steps, then falls
    to zero as a half cosine; it depends on the step alone.

    Args:
        model: lenet-lstm, stn-lstm, dcn-lstm or multi-stn-lstm; or a checkpoint, whose model and parts are then used.
            By default the classifier of the parts that trunk, attention and temporal name; without parts lenet-lstm. On
            the command line --data without options of the model fits lite0-memory instead, if saccade[pretrained] is
            installed.
        trunk: the convolutions: small, wide, resnet18 or efficientnet-lite0. The last two read colour pictures; what
            they have learned on pictures is kept, and only the parts behind them learn.
        attention: none, stn (one affine map per frame), multi-stn (several, with the trunk small or wide) or dcn
            (deformable layers); without a model.
        temporal: lstm, gru, mean or transformer; without a model. By default mean for the trunks resnet18 and
            efficientnet-lite0, lstm for the others.
        finetune: let a pretrained trunk learn too, with rates that fall from layer to layer towards the pixels.
        num_glimpses: the number of maps per frame of multi-stn; by default two.
        input: the input of the encoder: frames, differences (from the previous frame) or both; by default the choice
            that suits the clips.
        steps: the number of optimiser steps.
        minutes: the training time, instead of steps: a short timing sets the number of steps that fit. With neither,
            a training by steps takes ten minutes.
        batch_size: the number of clips per step; small batches (8) learn more in minutes, large ones (32) in an hour.
            By default 16, or 2 if each step needs gradients through the trunk of a picture.
        learning_rate: the highest learning rate of AdamW.
        muon_rate: the highest learning rate of Muon, which updates the encoder's weights by steps of the same size in
            every direction; with 0, AdamW updates them.
        attention_rate: the learning rate of the attention parameters, as a multiple of `learning_rate`.
        weight_decay: the decoupled weight decay.
        ema: the decay of an exponential moving average of the weights, such as 0.999; the checkpoint then holds the
            average as the model. 0 for no average.
        augment: whether own clips are changed at random, each time in another way. By default they are; a trunk that
            does not learn sees a few changed views of each clip, or none where attention reads its maps. --no-augment
            leaves clips as they are. Moving digits are never changed.
        max_angle_deg: the largest rotation of clips that are changed at random, 0 to 180 degrees. With 180 the model
            learns clips in every direction, as of a camera that may be held in any way; with the default, which is
            small, up and left can be classes.
        seed: the seed of the weights and of the batches.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor gains from it), float32 or bfloat16.
        start_from: a checkpoint to take the initial weights from; or a file of weights for the trunk alone (.pth, .pt,
            .safetensors), with the names of torchvision's resnet18 or of efficientnet-lite0; or hf://USER/NAME for
            either on the Hugging Face Hub. By default weights are random, except those of efficientnet-lite0, which
            come with saccade[pretrained].

    Raises:
        UsageError: if a name is unknown, a number is out of range, or the device is not available.
    """

    model: str = AUTO
    trunk: str = "small"
    attention: str | None = None
    temporal: str | None = None
    finetune: bool = False
    num_glimpses: ForScripts[int | None] = None
    input: ForScripts[str | None] = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    learning_rate: float = 3e-3
    muon_rate: ForScripts[float] = 0.02
    attention_rate: ForScripts[float] = 0.1
    weight_decay: ForScripts[float] = 0.01
    ema: ForScripts[float] = 0.0
    augment: bool = True
    max_angle_deg: float = Augmentation.max_angle_deg
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    start_from: Path | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; give only one of them")
        self._settle_model()
        self._check_names()
        if self.model == models.BUILT:
            check_together(self.trunk, self.attention or "none")
        check_num_glimpses(self.num_glimpses, "multi-stn" if self.model == "multi-stn-lstm" else self.attention)
        for name in ("batch_size", "learning_rate"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be above 0; got {value}")
        for name in ("muon_rate", "attention_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be 0 or above; got {getattr(self, name)}")
        if not 0 <= self.max_angle_deg <= 180:
            raise UsageError(f"max_angle_deg must lie in 0 to 180; got {self.max_angle_deg}")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed must lie in 0 to {(1 << 63) - 1}; got {self.seed}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps must be at least 1; got {self.steps}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"minutes must be above 0; got {self.minutes}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be at least 0 and below 1; got {self.ema}")

    @property
    def clips_per_step(self) -> int:
        """The number of clips in a batch: few if each step needs gradients through a trunk for pictures."""
        if self.batch_size is not None or self.trunk not in PICTURE_TRUNKS:
            return self.batch_size or 16
        attends = self.attention == "stn" or (self.attention == "dcn" and PICTURE_TRUNKS[self.trunk].deforms)
        from_scratch = self.start_from is None and self.trunk == "resnet18"
        return 2 if attends or from_scratch or self.finetune else 16

    def _check_names(self) -> None:
        if self.model not in (AUTO, *models.MODELS) and not Path(self.model).exists():
            raise unknown_name("model", self.model, models.names())
        parts = {
            "trunk": models.TRUNKS,
            "attention": models.ATTENTIONS,
            "temporal": TEMPORAL,
            "input": models.INPUTS,
        }
        for name, known in parts.items():
            if (value := getattr(self, name)) is not None and value not in known:
                raise unknown_name("temporal part" if name == "temporal" else name, value, known)
        choose_precision(self.precision, choose_device(self.device))

    def _settle_model(self) -> None:
        """Name the model if it was not named; refuse parts beside a model that has its own."""
        settled = {"trunk": OLD_NAMES.get(self.trunk, self.trunk)}
        parts = {name: getattr(self, name) for name in ("attention", "temporal") if getattr(self, name) is not None}
        if self.model == AUTO:
            built = bool(parts) or settled["trunk"] in PICTURE_TRUNKS
            settled["model"] = models.BUILT if built else models.MATCHED[0]
        elif self.model != models.BUILT and (
            named := [*parts, *(["trunk"] if settled["trunk"] in PICTURE_TRUNKS else [])]
        ):
            raise UsageError(
                f"--model {self.model} names a whole model, with its own {named[0]}; leave out --{named[0]}, or leave"
                f" out --model and name trunk, attention and temporal part"
            )
        if settled.get("model", self.model) == models.BUILT:
            settled |= {"attention": "none", "temporal": default_temporal(settled["trunk"])} | parts
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        if self.model in models.MODELS and self.model not in (*models.END_TO_END, models.BUILT):
            how = (
                "trained in the three stages of the paper (saccade reproduce --preset published)"
                if self.model.endswith("-published")
                else "fitted at once (saccade train --data DIR, without other options)"
            )
            raise UsageError(
                f"{self.model} is {how}; for end-to-end training, choose {', '.join(models.END_TO_END)}, or name trunk,"
                " attention and temporal part"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return files.json_fields(self)
