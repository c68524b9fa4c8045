"""The command `saccade evaluate`: evaluate a checkpoint on clips, as one row of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade import checkpoint, files, weights
from saccade.checkpoint import Header
from saccade.clips import DataConfig, LocatedClips
from saccade.errors import UsageError, unknown_name
from saccade.evaluate.attention_effect import AttentionEffect
from saccade.evaluate.attention_rows import attention_rows
from saccade.evaluate.evaluation import Evaluation, attention_effect, evaluate
from saccade.evaluate.forward import Progress, Setup
from saccade.evaluate.intervals import interval
from saccade.evaluate.rows import Row, append_rows, read_rows


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint.

    Args:
        model: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        split: test or validation. Choose models by validation, and use test only once.
        batch_size: the number of clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 if the processor computes it natively), float32 or bfloat16.
        out: a CSV file to which the row is added.
        attention: a CSV file to which measurements of where the model looks are added. They are made on the same clips,
            also with attention switched off and for untrained networks. The clips must have known object positions. A
            few hundred clips are enough; gradients take several times the memory of a forward pass.

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

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise unknown_name("split", self.split, ("validation", "test"))
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1; got {self.batch_size}")


@dataclass(frozen=True)
class Result:
    """A checkpoint's evaluation, the effect of its attention, the result row of both, and rows on where it looked."""

    evaluation: Evaluation
    attention: AttentionEffect
    row: Row
    looks: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        low, high, label = interval([self.row])
        return {
            "row": self.row,
            "interval": {"low": low, "high": high, "label": label},
            "evaluation": self.evaluation.as_json(),
            "attention": self.attention.as_json(),
            "looks": self.looks,
        }


def each(
    config: EvaluateConfig, data: DataConfig | None = None, *, progress: Progress | None = None
) -> Iterator[Result]:
    """Evaluate a checkpoint on each part of the data, for example each condition; see `run`."""
    for part in (data or standard_test(config.model)).parts():
        yield run(config, part, progress=progress)


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
    """Evaluate a checkpoint; add its row to `config.out`, and rows on where it looks to `config.attention`.

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
    for path in (config.out, config.attention):
        if path is not None:
            files.check_writable(path)  # fail before the work, not after it
            if path.exists():
                read_rows(path)
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
    effect = attention_effect(model, clips, **asked, with_attention=evaluation)
    facts = _facts(path, header)
    row = evaluation.row(attention=effect, **facts)
    if config.out is not None:
        append_rows(config.out, [row])
    looks: list[Row] = []
    if config.attention is not None and isinstance(clips, LocatedClips):
        setup = Setup.choose(clips, None, config.batch_size, config.device, "float32")
        model.requires_grad_(False)  # only gradients of pixels are needed; those of weights would take time
        told = dict(clips.facts) | facts
        looks = attention_rows(model, clips, setup, told, untrained=partial(_untrained, header), progress=progress)
        append_rows(config.attention, looks)
    return Result(evaluation, effect, row, looks)


def _untrained(header: Header, seed: int) -> nn.Module:
    """Build a network of the same shape with fresh weights, without a change of the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return header.create_model().requires_grad_(False)


def _facts(path: Path, header: Header) -> dict[str, Any]:
    """Return the columns of a row that describe the model and its training."""
    return {
        "model": header.model,
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
