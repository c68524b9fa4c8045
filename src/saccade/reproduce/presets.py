"""What each preset runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import files
from saccade.errors import UsageError, unknown_name
from saccade.train.published import INSTANCES

MODELS = ("lenet-lstm", "stn-lstm", "dcn-lstm")
CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling")


@dataclass(frozen=True)
class Preset:
    """The size of a reproduction.

    Args:
        protocol: `end_to_end` or `published`.
        num_clips: test clips a cell.
        num_seeds: repetitions.
        steps: training steps of each cell, from scratch; None where minutes decide.
        minutes: training time of all models and conditions of one seed together; None where steps decide.
        warm_up: part of a model's minutes spent on weights that all its conditions start from.
    """

    protocol: str
    num_clips: int
    num_seeds: int = 1
    steps: int | None = None
    minutes: float | None = None
    warm_up: float = 0.0


PRESETS = {
    "quick": Preset("end_to_end", num_clips=200, minutes=7.2, warm_up=0.6),
    "full": Preset("end_to_end", num_clips=2000, num_seeds=3, steps=4000),
    "published": Preset("published", num_clips=100),
}
SHARES = {"lenet-lstm": 0.25, "stn-lstm": 0.32, "dcn-lstm": 0.43}
"""Part of the minutes that each model gets: a step with attention costs more."""


# What only one of the two protocols can be asked for.
_ONLY = {
    "end_to_end": ("steps", "minutes", "num_clips"),
    "published": ("instances", "order", "stage1_minutes", "retrainings"),
}


@dataclass(frozen=True)
class ReproduceConfig:
    """One reproduction.

    Args:
        preset: `quick` (ten minutes on two cores, matched models end to end), `published` (the three stages as
            published), or `full` (end to end, several seeds; meant for a GPU).
        out: the run folder; by default runs/reproduce-PRESET. What is finished there is not done again.
        digits: uci, mnist, auto or a folder with four IDX files.
        data_dir: where MNIST lies; else the user cache is looked at.
        models: which kinds.
        conditions: which conditions.
        elastic: add the fifth condition of the poster.
        steps: training steps of each cell; by default the preset's. Not for `published`.
        minutes: training time of one seed in all, instead of steps; by default the preset's. Not for `published`.
        seeds: number of seeds; by default the preset's.
        num_clips: test clips a cell; by default the preset's. Not for `published`, which has one a class.
        instances: only for `published`: what test clips share with those of training: nothing (`disjoint`), the digit
            images (`shared`), or all, as they are the `training_clips` (the default: what gives the published figures).
        order: only for `published`: `visible` or `hidden` order of the pair (the default, as published).
        stage1_minutes: only for `published`: cut the CNN's training short; None trains the published five epochs.
        retrainings: only for `published`: how many LSTMs the mean is over; 300 by default.
        device: auto, cpu or cuda.

    Raises:
        UsageError: an unknown name, a number that is not above zero, an option that the preset has no use for.
    """

    preset: str = "quick"
    out: Path | None = None
    digits: str = "auto"
    data_dir: Path | None = None
    models: tuple[str, ...] = MODELS
    conditions: tuple[str, ...] = CONDITIONS
    elastic: bool = False
    steps: int | None = None
    minutes: float | None = None
    seeds: int | None = None
    num_clips: int | None = None
    instances: str | None = None
    order: str | None = None
    stage1_minutes: float | None = None
    retrainings: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        self._check_names()
        for protocol, options in _ONLY.items():
            for name in options:
                if getattr(self, name) is not None and PRESETS[self.preset].protocol != protocol:
                    raise UsageError(f"{name} has no use for the preset {self.preset}; leave it out")
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; one of them fixes the length of training")
        for name in ("steps", "minutes", "seeds", "num_clips", "stage1_minutes", "retrainings"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be above 0; got {value}")

    def _check_names(self) -> None:
        choices: dict[str, tuple[tuple[str | None, ...], tuple[str, ...]]] = {
            "model": (self.models, MODELS),
            "condition": (self.conditions, (*CONDITIONS, "elastic")),
            "choice of instances": ((self.instances,), INSTANCES),
            "order": ((self.order,), ("visible", "hidden")),
        }
        for kind, (asked, known) in choices.items():
            for name in asked:
                if name is not None and name not in known:
                    raise unknown_name(kind, name, known)
            if not asked:
                raise UsageError(f"no {kind} was asked for; name at least one of {', '.join(known)}")

    @property
    def length(self) -> tuple[int | None, float | None]:
        """Steps of a cell, or minutes of a seed; what the call says stands in place of all that the preset says."""
        if self.steps or self.minutes:
            return self.steps, self.minutes
        return PRESETS[self.preset].steps, PRESETS[self.preset].minutes

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"reproduce-{self.preset}"

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """The conditions with the fifth where it was asked for."""
        return (*self.conditions, "elastic") if self.elastic and "elastic" not in self.conditions else self.conditions
