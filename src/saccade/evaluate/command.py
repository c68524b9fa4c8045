"""The verb `saccade evaluate`: a checkpoint on clips, as one row of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade import checkpoint, files, models
from saccade.checkpoint import Header
from saccade.data import digits as digit_sources
from saccade.data.motion import CONDITIONS, Motion
from saccade.data.moving_digits import MovingDigits
from saccade.errors import UsageError, unknown_name
from saccade.evaluate.attention_effect import AttentionEffect
from saccade.evaluate.attention_rows import attention_rows
from saccade.evaluate.evaluation import Evaluation, attention_effect, evaluate
from saccade.evaluate.forward import Progress, Setup
from saccade.evaluate.intervals import interval
from saccade.evaluate.rows import Row, append_rows, read_rows

_PUBLISHED_FRAMES = 50


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a checkpoint on moving digits.

    Args:
        model: a checkpoint, or the folder of a run.
        condition: normal, rotation, scaling, rotation_scaling or elastic, or several, each measured by itself; those of
            training if not given.
        digits: uci, mnist, strokes, auto, a folder with four IDX files, or several joined by +; as in training if not
            given.
        data_dir: where MNIST lies; as in training if not given.
        labels: pair, ordered or digits; as in training if not given.
        order: for ordered labels, whether the first digit starts to the left (visible) or anywhere (hidden); as in
            training if not given.
        instances: disjoint: digits never seen; shared: the digit images of the training clips on new trajectories.
        split: test or validation; choose by validation, look at test once.
        num_clips: how many clips.
        num_frames: frames of a clip; 50 if not given, or what the model is built for.
        num_digits: digits in a clip, or the smallest and the largest number; 2 unless the labels are digits.
        angle: largest rotation in degrees, to either side.
        clutter: largest number of pieces of digits that move about beside the digits.
        noise: largest standard deviation of each pixel's noise in grey levels.
        seed: of the clips; 0 if not given, or that of training for shared instances.
        batch_size: clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor computes it natively), float32 or bfloat16.
        out: a CSV file that the row is added to.
        attention: a CSV file; where the model looks is measured on the same clips and added to it, beside the same with
            its attention switched off and beside untrained networks. A few hundred clips are enough; gradients take
            several times the memory of a forward pass.
    """

    model: Path
    condition: tuple[str, ...] = ()
    digits: str | None = None
    data_dir: Path | None = None
    labels: str | None = None
    order: str | None = None
    instances: str = "disjoint"
    split: str = "test"
    num_clips: int = 2000
    num_frames: int | None = None
    num_digits: int | tuple[int, int] = 2
    angle: float = 90.0
    clutter: int = 0
    noise: float = 0.0
    seed: int | None = None
    batch_size: int = 8
    device: str = "auto"
    precision: str = "auto"
    out: Path | None = None
    attention: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.condition, str):
            object.__setattr__(self, "condition", (self.condition,))
        for name in self.condition:
            if name not in CONDITIONS:
                raise unknown_name("condition", name, CONDITIONS)
        for kind, known in (("instances", ("disjoint", "shared")), ("split", ("validation", "test"))):
            if getattr(self, kind) not in known:
                raise unknown_name(kind, getattr(self, kind), known)
        for name in ("num_clips", "batch_size", "num_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1; got {value}")


@dataclass(frozen=True)
class Result:
    """A checkpoint's evaluation, what its attention did, the row that says both, and rows on where it looked."""

    evaluation: Evaluation
    attention: AttentionEffect
    row: Row
    looks: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        low, high, label = interval([self.row])
        return {
            "row": self.row,
            "interval": {"low": low, "high": high, "label": label},
            "evaluation": self.evaluation.as_json(),
            "attention": self.attention.as_json(),
            "looks": self.looks,
        }


def each(config: EvaluateConfig, *, progress: Progress | None = None) -> Iterator[Result]:
    """Measure a checkpoint under each condition that was asked for, or that it was trained on; see `run`."""
    asked = config.condition or conditions_of(checkpoint.read_header(config.model))
    for condition in dict.fromkeys(asked):
        yield run(replace(config, condition=(condition,)), progress=progress)


def conditions_of(header: Header) -> tuple[str, ...]:
    """Return the conditions that a checkpoint was trained on; one that a mixture holds twice comes twice."""
    return tuple(_trained(header)["condition"].split("+"))


def run(config: EvaluateConfig, *, progress: Progress | None = None) -> Result:
    """Measure a checkpoint under one condition; add its row to `config.out`, and where it looks to `config.attention`.

    The row's `seed` is the seed of training, since intervals are over trainings; `clips_seed` is that of the clips.

    Args:
        config: what is measured on what.
        progress: called after every batch with the number of clips done and of all, in each of several passes.

    Raises:
        UsageError: labels, clips or frames that the model is not made for; an unknown name.
        DataError: no such checkpoint, or a damaged one; digit files that are missing or damaged.
        NonFiniteError: logits, offsets or affine maps are NaN or infinite.
    """
    for path in (config.out, config.attention):
        if path is not None:
            files.check_writable(path)  # what cannot be is told before the work, not after it
            if path.exists():
                read_rows(path)
    model, header = checkpoint.load(config.model)
    clips = clips_for(config, header)
    asked: dict[str, Any] = {
        "batch_size": config.batch_size,
        "device": config.device,
        "precision": config.precision,
        "progress": progress,
    }
    evaluation = evaluate(model, clips, **asked)
    effect = attention_effect(model, clips, **asked, with_attention=evaluation)
    facts = _facts(config, header, clips)
    row = evaluation.row(attention=effect, **facts)
    if config.out is not None:
        append_rows(config.out, [row])
    looks: list[Row] = []
    if config.attention is not None:
        setup = Setup.choose(clips, None, config.batch_size, config.device, "float32")
        facts |= {name: row[name] for name in ("condition", "digits", "labels")}
        fresh = partial(_untrained, header)
        model.requires_grad_(False)  # gradients go to pixels; those of weights would take time for nothing
        looks = attention_rows(model, clips, setup, facts, untrained=fresh, progress=progress)
        append_rows(config.attention, looks)
    return Result(evaluation, effect, row, looks)


def clips_for(config: EvaluateConfig, header: Header) -> MovingDigits:
    """Return the clips that a configuration asks for; what it leaves open is as in the checkpoint's training.

    Raises:
        UsageError: clips or frames that the model is not made for; an unknown name.
        DataError: digit files that are missing or damaged.
    """
    trained = _trained(header)
    conditions = dict.fromkeys(config.condition or conditions_of(header))
    if len(conditions) > 1:
        raise UsageError(
            f"{len(conditions)} conditions are measured one at a time; name one of {', '.join(conditions)}"
        )
    num_frames = config.num_frames or header.arguments.get("num_frames") or _PUBLISHED_FRAMES
    built_for = header.arguments.get("num_frames", num_frames)
    if num_frames != built_for:
        raise UsageError(f"{header.model} reads clips of exactly {built_for} frames; got num_frames {num_frames}")
    if (channels := header.arguments.get("channels", 1)) != 1:
        raise UsageError(f"moving digits are grey; this {header.model} has {channels} channels: give a model with 1")
    shared = config.instances == "shared"
    data_dir = config.data_dir or (Path(trained["data_dir"]) if trained.get("data_dir") else None)
    digits = digit_sources.load(
        config.digits or trained["digits"], "train" if shared else config.split, data_dir=data_dir
    )
    if shared and digits.source != header.data.get("digits", digits.source):
        raise UsageError(
            f"shared instances are those of training, from {header.data['digits']}; got {digits.source}:"
            " leave --digits out, or take --instances disjoint"
        )
    return MovingDigits(
        digits,
        Motion(
            next(iter(conditions)),
            num_frames,
            max_angle_deg=config.angle,
            clutter=config.clutter,
            noise=config.noise,
        ),
        split=config.split,
        labels=config.labels or trained["labels"],
        order=config.order or trained["order"],
        num_digits=config.num_digits,
        num_clips=config.num_clips,
        seed=config.seed if config.seed is not None else (trained.get("seed", 0) if shared else 0),
    )


def _untrained(header: Header, seed: int) -> nn.Module:
    """Build a network of the same shape with fresh weights, and leave the common random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.create(header.model, **header.arguments).requires_grad_(False)


def _trained(header: Header) -> dict[str, Any]:
    """Return what the model was trained on, the standard task where the checkpoint does not say."""
    standard = {"condition": "rotation_scaling", "digits": "auto", "labels": "pair", "order": "visible"}
    asked = header.training.get("config", {})
    trained = standard | header.data | {name: asked[name] for name in ("data_dir", "seed") if name in asked}
    # The header names the source; where that was a folder, only the configuration has its path.
    if asked.get("digits") not in (None, "auto", "mnist", "uci"):
        trained["digits"] = asked["digits"]
    return trained


def _facts(config: EvaluateConfig, header: Header, clips: MovingDigits) -> dict[str, Any]:
    fewest, _ = clips.num_digits_range
    return {
        "model": header.model,
        "protocol": header.data.get("protocol", "end_to_end"),
        "instances": config.instances,
        "seed": _trained(header).get("seed", clips.seed),
        "order": (config.order or _trained(header)["order"]) if clips.labels.name == "ordered" else None,
        "split": config.split,
        "trained_on": header.data.get("condition"),
        # Empty for the trunk of version 0.1, as in the files of that version.
        "trunk": trunk if (trunk := header.arguments.get("trunk")) != "wide" else None,
        "steps": header.training.get("step"),
        **header.training.get("before", {}),
        "num_frames": clips.motion.num_frames,
        "num_digits": clips.num_digits if fewest == clips.num_digits else f"{fewest} to {clips.num_digits}",
        "max_angle_deg": clips.motion.max_angle_deg,
        "clutter": clips.motion.clutter or None,
        "noise": clips.motion.noise or None,
        "clips_seed": clips.seed,
        "checkpoint": str(checkpoint.locate(config.model)),
    }
