"""The command `saccade evaluate`: evaluate a checkpoint on clips, as one row of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade import checkpoint, files, hub, weights
from saccade.checkpoint import Header
from saccade.clips import DataConfig, LocatedClips
from saccade.errors import UsageError, unknown_name
from saccade.evaluate.attention_effect import AttentionEffect
from saccade.evaluate.attention_rows import attention_rows
from saccade.evaluate.camera import CameraFigures, keep_figures, through_cameras
from saccade.evaluate.confusion import confusion_svg
from saccade.evaluate.evaluation import Evaluation, attention_effect, evaluate
from saccade.evaluate.forward import Progress, Setup
from saccade.evaluate.rows import Row, append_rows, read_rows
from saccade.foreign import shown


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint.

    Args:
        model: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        split: test or validation. Choose models by validation, and use test only once.
        batch_size: the number of clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor gains from it), float32 or bfloat16.
        out: a CSV file to which the row is added.
        attention: a CSV file to which measurements of where the model looks are added. They are made on the same clips,
            also with attention switched off and for untrained networks. The clips must have known object positions. A
            few hundred clips are enough; gradients take several times the memory of a forward pass.
        camera: also measure the accuracy with a slower camera and with lost frames, which takes six more passes. A run
            folder keeps it, and `saccade stream` tells it of a slow source.
        without_attention: also measure the accuracy with attention switched off, which takes as long again.
        confusion: an SVG file for a picture of the confusion matrix.

    Raises:
        UsageError: if a name is unknown, or if `batch_size` is below 1.
    """

    model: Path
    split: str = "test"
    batch_size: int = 8
    device: str = "auto"
    precision: str = "auto"
    out: Path | None = None
    attention: Path | None = None
    camera: bool = False
    without_attention: bool = True
    confusion: Path | None = None

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise unknown_name("split", self.split, ("validation", "test"))
        if self.confusion is not None and self.confusion.suffix.lower() != ".svg":
            raise UsageError(f"confusion is {shown(self.confusion)}; a file that ends in .svg is needed")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1; got {self.batch_size}")


@dataclass(frozen=True)
class Result:
    """The results of a checkpoint.

    Args:
        evaluation: its metrics and verdicts.
        attention: the effect of its attention.
        row: the result row of both.
        looks: result rows on where it looked, if they were asked for.
        camera: the accuracy through cameras that deliver fewer frames, if it was asked for.
        fps: the frame rate that the model expects; None if it takes frames as they come.
    """

    evaluation: Evaluation
    attention: AttentionEffect
    row: Row
    looks: list[Row] = field(default_factory=list)
    camera: list[CameraFigures] = field(default_factory=list)
    fps: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        return {
            "row": self.row,
            "interval": self.evaluation.interval._asdict(),
            "classes": [figures.as_json() for figures in self.evaluation.by_class()],
            "groups": [figures.as_json() for figures in self.evaluation.by_group()],
            "camera": [figures.as_json() for figures in self.camera],
            "evaluation": self.evaluation.as_json(),
            "attention": self.attention.as_json(),
            "looks": self.looks,
        }


def each(
    config: EvaluateConfig, data: DataConfig | None = None, *, progress: Progress | None = None
) -> Iterator[Result]:
    """Evaluate a checkpoint on each part of the data, for example each condition; see `run`.

    If a file cannot be written, as on a full disk, the result is yielded before the error is raised.
    """
    parts = (data or standard_test(config.model)).parts()
    if config.confusion is not None:
        check_one_part(parts, "--confusion")
    for part in parts:
        result = _measured(config, part, progress)
        try:
            _write(config, result, is_all=len(parts) == 1)
        finally:
            yield result


def check_one_part(parts: Sequence[DataConfig], option: str) -> None:
    """Raise UsageError if an option that writes one file is given for data of several parts."""
    if len(parts) > 1:
        raise UsageError(f"{option} writes a file for one condition, and {len(parts)} are measured; name one of them")


def standard_test(model: Path, **given: Any) -> DataConfig:
    """Return the configuration of the clips for evaluating a checkpoint: the test part of its training data.

    Args:
        model: the model, as in `EvaluateConfig`.
        given: fields of the configuration with other values than for training.

    Raises:
        UsageError: if the checkpoint does not state its training data, or if the fields do not fit.
    """
    header = checkpoint.read_header(weights.find(model))
    # A published model reads clips of one length.
    fixed = {"num_frames": header.arguments["num_frames"]} if "num_frames" in header.arguments else {}
    return header.data_config().for_test(header.facts, header.seed, **fixed | given)


def run(config: EvaluateConfig, data: DataConfig | None = None, *, progress: Progress | None = None) -> Result:
    """Evaluate a checkpoint, and write the files that `config` names.

    The row's `seed` is the seed of training, because intervals are computed over trainings.

    Args:
        config: the model and the options.
        data: the clips; by default the test part of the checkpoint's training data.
        progress: called after every batch with the number of clips done and the total number, in each of several
            passes.

    Raises:
        UsageError: if the clips do not fit the model, if a name is unknown, or if `config.attention` is given for clips
            without known object positions.
        DataError: if the checkpoint or the clips are missing or damaged.
        NonFiniteError: if logits, offsets or affine maps are NaN or infinite.
    """
    result = _measured(config, data, progress)
    _write(config, result)
    return result


def _measured(config: EvaluateConfig, data: DataConfig | None, progress: Progress | None) -> Result:
    _check_files(config)
    path = weights.find(config.model)
    model, header = checkpoint.load(path)
    clips = (data or standard_test(path)).clips(config.split)
    if config.attention is not None and not isinstance(clips, LocatedClips):
        raise UsageError("--attention needs clips with known object positions; leave it out for these clips")
    asked: dict[str, Any] = {
        "batch_size": config.batch_size,
        "device": config.device,
        "precision": config.precision,
        "progress": progress,
    }
    evaluation = evaluate(model, clips, **asked)
    effect = AttentionEffect(evaluation.looks, evaluation.accuracy, None, None, None, evaluation.num_clips)
    if config.without_attention:
        effect = attention_effect(model, clips, **asked, with_attention=evaluation)
    facts = _facts(path, header)
    row = evaluation.row(attention=effect, **facts)
    looks: list[Row] = []
    if config.attention is not None and isinstance(clips, LocatedClips):
        looks = _looks(model, clips, config, header, facts, progress)
    camera: list[CameraFigures] = []
    if config.camera:
        setup = Setup.choose(clips, None, config.batch_size, config.device, config.precision)
        camera = through_cameras(model, clips, setup, evaluation.clips, progress=progress)
    fps = None if header.frame_format is None else header.frame_format.fps
    return Result(evaluation, effect, row, looks, camera, fps)


def _write(config: EvaluateConfig, result: Result, *, is_all: bool = True) -> None:
    if result.camera and result.fps and is_all and not hub.is_address(config.model):
        with suppress(OSError):  # the folder may be read-only, and nobody named this file
            num, model = len(result.evaluation.clips), weights.find(config.model)
            keep_figures(model, result.camera, result.fps, split=config.split, num_clips=num)
    if config.out is not None:
        append_rows(config.out, [result.row])
    if config.attention is not None:
        append_rows(config.attention, result.looks)
    if config.confusion is not None:
        files.write_text(config.confusion, confusion_svg(result.evaluation))


def _check_files(config: EvaluateConfig) -> None:
    """Raise an error before the work, not after it, if a file cannot be written or is not a result file."""
    for path in (config.out, config.attention, config.confusion):
        if path is not None:
            files.check_writable(path)
    for path in (config.out, config.attention):
        if path is not None and path.exists():
            read_rows(path)


def _looks(
    model: nn.Module,
    clips: LocatedClips,
    config: EvaluateConfig,
    header: Header,
    facts: Mapping[str, Any],
    progress: Progress | None,
) -> list[Row]:
    setup = Setup.choose(clips, None, config.batch_size, config.device, "float32")
    model.requires_grad_(False)  # only gradients of pixels are needed; those of weights would take time
    told = {**clips.facts, **facts}
    return attention_rows(model, clips, setup, told, untrained=partial(_untrained, header), progress=progress)


def _untrained(header: Header, seed: int) -> nn.Module:
    """Build a network of the same shape with fresh weights, without a change of the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return header.create_model().requires_grad_(False)


def _facts(path: Path, header: Header) -> dict[str, Any]:
    """Return the columns of a row that describe the model and its training."""
    return {
        "model": header.kind,
        "seed": header.seed,
        "protocol": header.facts.get("protocol", "end_to_end"),
        "trained_on": header.facts.get("condition", header.facts.get("data")),
        # Empty for the only values in version 0.1, because files of version 0.1 lack these columns.
        "trunk": trunk if (trunk := header.arguments.get("trunk")) != "wide" else None,
        "input": seen if (seen := header.arguments.get("input")) != "frames" else None,
        "steps": header.training.get("step"),
        **header.training.get("before", {}),
        "checkpoint": str(checkpoint.locate(path)),
    }
