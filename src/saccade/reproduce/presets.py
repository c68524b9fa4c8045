"""The presets and the configuration of a reproduction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade import files
from saccade.data.digits import DigitSourceConfig
from saccade.device import PRECISIONS
from saccade.errors import UsageError, unknown_name
from saccade.models import MATCHED
from saccade.published import INSTANCES

CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling")
MIXTURE, CONDITION = "mixture", "condition"
# A mixture has more clips of the hardest conditions, since they also teach what the easier ones need.
SHARES_OF_MIXTURE = {"rotation_scaling": 3, "elastic": 3}


@dataclass(frozen=True)
class Preset:
    """The size of a reproduction.

    Args:
        protocol: `end_to_end` or `published`.
        num_clips: the number of test clips per cell.
        batch_size: the number of clips of 16 frames per training step; small batches learn more in minutes, large
            ones in hours.
        trained_on: the training data of a model: the `mixture` of all conditions, or one `condition` (as published).
        num_seeds: the number of repetitions.
        steps: the number of training steps of each model; None if `minutes` decides.
        minutes: the time for training and testing one seed; None if `steps` decides.
    """

    protocol: str
    num_clips: int
    batch_size: int = 16
    trained_on: tuple[str, ...] = (CONDITION,)
    num_seeds: int = 1
    steps: int | None = None
    minutes: float | None = None


PRESETS = {
    "quick": Preset("end_to_end", num_clips=200, batch_size=8, trained_on=(MIXTURE,), minutes=6.0),
    "full": Preset(
        "end_to_end", num_clips=2000, batch_size=32, trained_on=(MIXTURE, CONDITION), num_seeds=3, steps=4000
    ),
    "published": Preset("published", num_clips=100),
}


# The options that only one of the two protocols accepts.
_ONLY = {
    "end_to_end": ("trained_on", "steps", "minutes", "num_clips", "precision", "jobs"),
    "published": ("instances", "order", "stage1_minutes", "retrainings"),
}


@dataclass(frozen=True)
class Training:
    """One model that is trained once, and the conditions that it is then tested in."""

    model: str
    trained_on: tuple[str, ...]
    tested_in: tuple[str, ...]
    seed: int

    @property
    def way(self) -> str:
        """The kind of training data: `mixture` or `condition`."""
        return MIXTURE if len(self.tested_in) > 1 else CONDITION

    @property
    def kind(self) -> str:
        """The name of its training data: `mixture`, or the condition."""
        return MIXTURE if self.way == MIXTURE else self.trained_on[0]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.model}-{self.kind}-seed{self.seed}"


@dataclass(frozen=True)
class ReproduceConfig:
    """The configuration of a reproduction.

    Args:
        preset: `quick` (six minutes, matched models end to end), `published` (the three stages as
            published), or `full` (end to end, several seeds; meant for a GPU).
        out: the run folder; by default runs/reproduce-PRESET. Finished cells in it are kept.
        source: the source of the digits.
        models: the models to train.
        conditions: the conditions to test.
        elastic: add the fifth condition of the poster.
        trained_on: the training data of a model: the `mixture` of all conditions, so that one model is tested in all of
            them, or one `condition` (as published), the one that it is tested in; by default that of the preset. Not
            for `published`.
        steps: the number of training steps of each model; by default that of the preset. Not for `published`.
        minutes: the time for training and testing one seed, instead of steps: every model gets as many steps as fit; by
            default that of the preset. Not for `published`.
        seeds: the number of seeds; by default that of the preset.
        num_clips: the number of test clips per cell; by default that of the preset. Not for `published`, which has one
            clip per class.
        instances: only for `published`: what test clips share with the training clips: nothing (`disjoint`), the digit
            images (`shared`) or everything (`training_clips`, the default, which gives the published figures).
        order: only for `published`: `visible` or `hidden` order of the pair (`hidden` by default, as published).
        stage1_minutes: only for `published`: the time limit of the CNN's training; None trains the published five
            epochs.
        retrainings: only for `published`: the number of LSTMs to average over; 300 by default.
        jobs: the number of models that train at once, each in its own process; by default the number of cores, but at
            least three, or one on a GPU. Not for `published`.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor gains from it), float32 or bfloat16. Not for `published`.

    Raises:
        UsageError: if a name is unknown, a number is not above zero, or an option does not apply to the preset.
    """

    preset: str = "quick"
    out: Path | None = None
    source: DigitSourceConfig = field(default_factory=DigitSourceConfig)
    models: tuple[str, ...] = MATCHED
    conditions: tuple[str, ...] = CONDITIONS
    elastic: bool = False
    trained_on: tuple[str, ...] | None = None
    steps: int | None = None
    minutes: float | None = None
    seeds: int | None = None
    num_clips: int | None = None
    instances: str | None = None
    order: str | None = None
    stage1_minutes: float | None = None
    retrainings: int | None = None
    jobs: int | None = None
    device: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        self._check_names()
        for protocol, options in _ONLY.items():
            for name in options:
                if getattr(self, name) is not None and PRESETS[self.preset].protocol != protocol:
                    raise UsageError(f"{name} does not apply to the preset {self.preset}; leave it out")
        if self.steps is not None and self.minutes is not None:
            raise UsageError("both --steps and --minutes were given; give only one of them")
        for name in ("steps", "minutes", "seeds", "num_clips", "stage1_minutes", "retrainings", "jobs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be above 0; got {value}")

    def _check_names(self) -> None:
        choices: dict[str, tuple[tuple[str | None, ...], tuple[str, ...]]] = {
            "model": (self.models, MATCHED),
            "condition": (self.conditions, (*CONDITIONS, "elastic")),
            "choice of instances": ((self.instances,), INSTANCES),
            "order": ((self.order,), ("visible", "hidden")),
            "kind of training": (self.trained_on or (None,), (MIXTURE, CONDITION)),
            "precision": ((self.precision,), PRECISIONS),
        }
        for kind, (asked, known) in choices.items():
            for name in asked:
                if name is not None and name not in known:
                    raise unknown_name(kind, name, known)
            if not asked:
                raise UsageError(f"no {kind} was given; name at least one of {', '.join(known)}")

    def trainings(self) -> list[Training]:
        """Return the trainings of the reproduction, seed by seed."""
        conditions = self.all_conditions
        mixture = tuple(name for name in conditions for _ in range(SHARES_OF_MIXTURE.get(name, 1)))
        found = []
        for seed in range(self.num_seeds):
            for way in self.ways:
                for model in self.models:
                    if way == MIXTURE and len(conditions) > 1:
                        found.append(Training(model, mixture, conditions, seed))
                    else:
                        found += [Training(model, (name,), (name,), seed) for name in conditions]
        return list(dict.fromkeys(found))

    @property
    def ways(self) -> tuple[str, ...]:
        """The training data of the models: as configured, or that of the preset."""
        return self.trained_on or PRESETS[self.preset].trained_on

    @property
    def num_seeds(self) -> int:
        """The number of repetitions."""
        return self.seeds or PRESETS[self.preset].num_seeds

    @property
    def length(self) -> tuple[int | None, float | None]:
        """The steps of a cell and the minutes of a seed; if either is configured, the preset decides neither."""
        if self.steps or self.minutes:
            return self.steps, self.minutes
        return PRESETS[self.preset].steps, PRESETS[self.preset].minutes

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return files.json_fields(self)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"reproduce-{self.preset}"

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """The conditions, with the fifth if it is configured."""
        return tuple(dict.fromkeys((*self.conditions, *(("elastic",) if self.elastic else ()))))
