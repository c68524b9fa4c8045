"""End-to-end training of a video classifier."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade import checkpoint, models, run_folder, weights
from saccade.clips import ClipBatch, DataConfig
from saccade.device import choose_device, choose_precision
from saccade.errors import DataError, UsageError
from saccade.foreign import check_types
from saccade.labels import Labels
from saccade.models import verdict
from saccade.train import loop, optimizer
from saccade.train.config import TrainConfig
from saccade.train.loop import Progress
from saccade.train.trainer import Objective, Trainer, moving_average, restore, save

MAX_GRADIENT_NORM = 1.0
PROTOCOL = "end_to_end"
_DEFAULT_MINUTES = 10.0
# The settings that may change when a run is resumed: its length and initial weights are already fixed, and it may run
# on another device.
_FREE = ("steps", "minutes", "device", "start_from", "precision")


def train(
    config: TrainConfig,
    data: DataConfig,
    out: Path | str,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a model end to end; return the path of its checkpoint.

    The run folder `out` gets `run.json`, `log.jsonl` and `checkpoint.safetensors`. The checkpoint is saved at the
    start, about every minute and at the end, so that a run can be resumed at any time. A resumed run gives the same
    bits as an uninterrupted one, on the same machine with the same number of threads.

    Args:
        config: everything that determines the run, except the clips.
        data: the clips to learn from, such as a `saccade.data.Folder`.
        out: the run folder.
        resume: whether to continue from the checkpoint in `out`.
        progress: a function that is called after every step with loss, accuracy, learning rate, gradient norm and clips
            per second.

    Raises:
        UsageError: if `out` already holds a run, another process writes to it, or the run to resume had another
            configuration.
        DataError: if clips cannot be read.
        NonFiniteError: if a loss, gradient, parameter, offset or affine map becomes NaN or infinite; the last good
            checkpoint is kept.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    out = Path(out)
    with run_folder.held(out):
        trainer = _resumed(config, data, out) if resume else _begun(config, data, out)
        loop.run(trainer, out, progress)
        run_folder.update(out, finished=True, elapsed_s=round(trainer.elapsed_s, 1))
    return out / checkpoint.NAME


def _begun(config: TrainConfig, data: DataConfig, out: Path) -> Trainer:
    run_folder.check_free(out)
    trainer = start(config, data)
    trainer.num_steps = config.steps or loop.steps_within(trainer, config.minutes or _DEFAULT_MINUTES)
    # The checkpoint comes first, so that a folder with `run.json` can be resumed.
    save(trainer, out)
    _describe(trainer, out)
    return trainer


def _resumed(config: TrainConfig, data: DataConfig, out: Path) -> Trainer:
    header = checkpoint.read_header(out)
    if (out / run_folder.RUN).exists():
        run_folder.read(out)  # a damaged file is reported before training, not after it
    # The checkpoint holds the weights of the run; the file that it started from may no longer exist.
    trainer = start(replace(config, start_from=None), data)
    restore(trainer, out, _settings_of(header, config))
    run_folder.rewind_log(out / run_folder.LOG, trainer.step)
    if not (out / run_folder.RUN).exists():  # the process was killed before it wrote this file
        _describe(trainer, out)
    return trainer


def _describe(trainer: Trainer, out: Path) -> None:
    facts = {"steps": trainer.num_steps, "precision": trainer.precision, "data": trainer.header.data["config"]}
    run_folder.create(out, "train", trainer.header.training["config"], device=str(trainer.device), **facts)


def start(config: TrainConfig, data: DataConfig) -> Trainer:
    """Build the trainer of a run before its first step."""
    config = _settled(config, data)
    device = choose_device(config.device)
    header = _header(config, data)
    torch.manual_seed(config.seed)
    model = header.create_model()
    if config.start_from is not None:
        header.training["before"] = _take_weights(model, header, config.start_from)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = choose_precision(config.precision, device)
    trainer = Trainer(
        model,
        optimizer.end_to_end(model, config),
        data.batches(config.batch_size, config.seed).to(device),
        objective(data.labels),
        header,
        device=device,
        dtype=dtype,
        average=moving_average(model, config.ema),
    )
    trainer.settings = _settings_of(_at_step(trainer, config.steps), config)
    return trainer


def objective(labels: Labels) -> Objective:
    """Return the objective of end-to-end training: the loss at every valid frame, the accuracy at the last one."""

    def loss(logits: Tensor, batch: ClipBatch) -> Tensor:
        return labels.loss(logits, batch.targets, batch.valid)

    def accuracy(logits: Tensor, batch: ClipBatch) -> float:
        return labels.right(verdict(logits, batch.lengths), batch.targets).float().mean().item()

    return Objective(loss, accuracy, learning_rate_factor, MAX_GRADIENT_NORM)


def learning_rate_factor(step: int, num_steps: int) -> float:
    """Return the learning rate of a step as a fraction of the highest.

    It rises over the first tenth of the steps, then falls as a half cosine.

    >>> [round(learning_rate_factor(step, 100), 2) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    rise = max(1, num_steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))


def _settled(config: TrainConfig, data: DataConfig) -> TrainConfig:
    """Fill in the options that the clips or another checkpoint determine."""
    if config.model not in models.MODELS and Path(config.model).exists():
        header = checkpoint.read_header(Path(config.model))
        arguments = {name: header.arguments[name] for name in ("trunk", "input") if name in header.arguments}
        try:
            check_types(arguments, TrainConfig)
        except TypeError as error:
            raise DataError(f"{config.model} has a damaged header ({error}); take an earlier checkpoint") from error
        config = replace(config, model=header.model, **arguments)
    return replace(config, input=config.input or data.default_input)


def _header(config: TrainConfig, data: DataConfig) -> checkpoint.Header:
    models.arguments_of(config.model)  # an unknown name is reported before anything is read
    return checkpoint.Header(
        config.model,
        {"trunk": config.trunk, "input": config.input},
        data.labels,
        data.frame_format,
        {"config": data.as_json(), "facts": {**data.facts, "protocol": PROTOCOL}},
        {"config": config.as_json(), "data": data.identity(), "before": {}},
    )


def _take_weights(model: torch.nn.Module, header: checkpoint.Header, path: Path) -> dict[str, Any]:
    """Load the weights of a model of the same kind; return their earlier training, as columns of a result row."""
    path = weights.find(path)
    other = checkpoint.read_header(path)
    _check_same_test(header, other, path)
    wanted, came = (_kind(header), _kind(other))
    if wanted != came:
        raise UsageError(f"{path} holds {came}; {wanted} is wanted: change --model, --trunk, --input or the labels")
    checkpoint.load_weights(model, path)
    earlier = other.training.get("before", {})
    conditions = [earlier.get("before_condition"), other.facts.get("condition", other.facts.get("data"))]
    return {
        "before_condition": ", ".join(dict.fromkeys(name for name in conditions if name)),
        "before_steps": other.training.get("step", 0) + earlier.get("before_steps", 0),
    }


def _check_same_test(header: checkpoint.Header, other: checkpoint.Header, path: Path) -> None:
    """Raise UsageError if weights may have learned from clips that are now held out for tests."""
    now, before = header.data["config"], other.data.get("config", {})
    same_place = now.get("root") is not None and now.get("root") == before.get("root")
    if same_place and now.get("held_out") != before.get("held_out"):
        raise UsageError(
            f"{path} was trained with another split of {now['root']} and may have learned from clips held out now; use"
            " the earlier split, as `saccade train --start-from` does, or train from scratch"
        )


def _kind(header: checkpoint.Header) -> str:
    labels = header.labels or Labels.numbered(1)
    named = ", ".join(labels.names[:3]) + (" ..." if len(labels.names) > 3 else "")
    trunk, seen = header.arguments.get("trunk"), header.arguments.get("input", "frames")
    return f"a {header.model} ({trunk} trunk, input {seen}) for {len(labels.names)} classes ({named})"


def _at_step(trainer: Trainer, num_steps: int | None) -> checkpoint.Header:
    training = trainer.header.training | {"precision": trainer.precision, "num_steps": num_steps}
    return replace(trainer.header, training=training)


def _settings_of(header: checkpoint.Header, asked: TrainConfig) -> dict[str, Any]:
    """Return the settings that must be the same to resume a run."""
    # A run of an older version lacks the newer options; it ran as if they had their defaults.
    config = TrainConfig().as_json() | header.training.get("config", {})
    settings = {name: value for name, value in config.items() if name not in _FREE}
    settings |= header.training.get("data", {})
    settings["precision"] = header.training.get("precision")
    if asked.steps is not None:
        settings["steps"] = header.training.get("num_steps")
    return settings
