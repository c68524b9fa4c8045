"""End-to-end training of a video classifier."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade import checkpoint, distributed, models, run_folder
from saccade.clips import ClipBatch, DataConfig
from saccade.data.augment import Augmentation
from saccade.data.background import Background
from saccade.data.folder import Folder
from saccade.data.stored import StoredBatches
from saccade.device import choose_device, choose_precision
from saccade.errors import DataError, UsageError
from saccade.foreign import check_types
from saccade.labels import Labels
from saccade.models import verdict
from saccade.models.trunks import expected
from saccade.train import batch_size, events, fixed_maps, initial_weights, lines, loop, optimizer, shares, tables
from saccade.train.config import TrainConfig
from saccade.train.loop import Progress
from saccade.train.trainer import Objective, Trainer, keep_best, moving_average, restore, save
from saccade.train.validation import validation_of

MAX_GRADIENT_NORM = 1.0
PROTOCOL = "end_to_end"
_DEFAULT_MINUTES = 10.0
_PARTS = ("trunk", "attention", "temporal")
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
    say: initial_weights.Say | None = None,
) -> Path:
    """Train a model end to end; return the path of its checkpoint.

    The run folder `out` gets `run.json`, `log.jsonl` and `checkpoint.safetensors`, and `left_out.csv` if clips of a
    `Folder` were left out. The checkpoint is saved at the
    start, about every minute and at the end, so that a run can be resumed at any time. A resumed run gives the same
    bits as an uninterrupted one, on the same machine with the same number of threads.

    Clips in memory or in a folder are augmented. If clips were held out for validation, they are looked at during
    training: the step that is best on them is kept, training ends early if a third of its steps brought nothing better,
    and a temperature that fits them becomes part of the head. `run.json` and the checkpoint say which step it was.

    If a class means that nothing happens, the model learns for streams: clips of it are joined to others, and the
    threshold of events is chosen on a stream of validation clips. `run.json` and the checkpoint hold the figures.

    Args:
        config: everything that determines the run, except the clips.
        data: the clips to learn from, such as a `saccade.data.Folder`.
        out: the run folder.
        resume: whether to continue from the checkpoint in `out`.
        progress: a function that is called after every step with loss, accuracy, learning rate, gradient norm and clips
            per second; after some steps also with loss and accuracy on the validation clips.
        say: a function that is called with a line about the weights that the trunk got from a file, about what is not
            done with these clips, about a plan of few steps, and about the step that is kept.

    Raises:
        UsageError: if `out` already holds a run, another process writes to it, or the run to resume had another
            configuration.
        DataError: if clips cannot be read.
        NonFiniteError: if a loss, gradient, parameter, offset or affine map becomes NaN or infinite; the last good
            checkpoint is kept.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    out = Path(out)
    first = distributed.is_first()
    with run_folder.held(out) if first else nullcontext():
        say = say if say and first else (lambda _line: None)
        shares.check_same_clips(data)
        trainer = _resumed(config, data, out, progress, say) if resume else _begun(config, data, out, progress, say)
        if trainer is not None:
            facts = _run(trainer, out, progress, say)
            if first:
                run_folder.update(out, finished=True, elapsed_s=round(trainer.elapsed_s, 1), **facts)
    return out / checkpoint.NAME


def _run(trainer: Trainer, out: Path, progress: Progress | None, say: initial_weights.Say) -> dict[str, Any]:
    """Take the steps and save the result; return what is said about it in `run.json`."""
    try:
        loop.run(trainer, out, progress)
    except (DataError, OSError):
        if trainer.is_done:  # the disk is full, or the folder has gone: the figures are not lost too
            _finished(trainer, say)
        raise
    if (found := _finished(trainer, say)) is None or not distributed.is_first():
        return {}
    if (in_stream := events.choose_threshold(trainer, say)) is not None:
        found["events"] = asdict(in_stream)
    keep_best(trainer, out, found)
    return {"validation": found, "steps_done": trainer.step}


def _finished(trainer: Trainer, say: initial_weights.Say) -> dict[str, Any] | None:
    """Give a finished training its best weights and tell which they are; None if no clips were held out."""
    if trainer.validation is None:
        return None
    found = trainer.validation.finish(trainer.product, trainer.device, trainer.dtype)
    say(lines.of_kept_step(found, trainer))
    return found


def _begun(
    config: TrainConfig, data: DataConfig, out: Path, progress: Progress | None, say: initial_weights.Say
) -> Trainer:
    run_folder.check_free(out)
    trainer = start(config, data, say=say)
    minutes = math.inf if config.steps else config.minutes or _DEFAULT_MINUTES
    minutes -= fixed_maps.use_maps(trainer, progress, say, minutes=minutes)
    num_clips = _settled(config, data).clips_per_step
    shares.divide(trainer, num_clips)
    batch_size.check_memory(trainer, data, num_clips, config.seed)
    if isinstance(trainer.batches, StoredBatches) and trainer.validation is None:
        say("no clips for validation: the last step is kept, and probabilities are not calibrated")
    trainer.num_steps = config.steps or loop.steps_within(trainer, minutes)
    for line in (lines.of_few_steps(trainer), events.of_endless_memory(trainer)):
        if line is not None:
            say(line)
    # The checkpoint comes first, so that a folder with `run.json` can be resumed.
    save(trainer, out)
    if distributed.is_first():
        _describe(trainer, out)
        if isinstance(data, Folder):
            tables.write_left_out(out, data.left_out)
    return trainer


def _resumed(
    config: TrainConfig, data: DataConfig, out: Path, progress: Progress | None, say: initial_weights.Say
) -> Trainer | None:
    """Return the trainer of a run where it was interrupted; None if the run has finished."""
    header = checkpoint.read_header(out)
    if (out / run_folder.RUN).exists():
        run_folder.read(out)  # a damaged file is reported before training, not after it
    # The checkpoint holds the weights of the run; the file that it started from may no longer exist.
    trainer = start(
        replace(_settled(config, data), start_from=None), data, trunk=header.training.get("trunk", initial_weights.NEW)
    )
    before = _settings_of(header, config)
    if "kept_step" in header.training.get("validation", {}):
        run_folder.check_same(out, before, trainer.settings)
        say(f"{out} is finished")
        return None
    restore(trainer, out, before)
    # Maps of a run of an older version had no changed views.
    fixed_maps.use_maps(trainer, progress, say, num_views=trainer.header.training.get("num_views", 1))
    shares.divide(trainer, _settled(config, data).clips_per_step)
    if distributed.is_first():
        run_folder.rewind_log(out / run_folder.LOG, trainer.step)
        if not (out / run_folder.RUN).exists():  # the process was killed before it wrote this file
            _describe(trainer, out)
    return trainer


def _describe(trainer: Trainer, out: Path) -> None:
    launcher = {} if (own := distributed.launcher()) is None else {"launcher": own}
    facts = launcher | {
        "steps": trainer.num_steps,
        "precision": trainer.precision,
        "data": trainer.header.data["config"],
    }
    run_folder.create(out, "train", trainer.header.training["config"], device=str(trainer.device), **facts)


def start(
    config: TrainConfig, data: DataConfig, *, trunk: str | None = None, say: initial_weights.Say | None = None
) -> Trainer:
    """Build the trainer of a run before its first step.

    Args:
        config: everything that determines the run, except the clips.
        data: the clips to learn from.
        trunk: where the trunk of a run that is resumed had its weights from, as the run's header says; None for a new
            run.
        say: as for `train`.
    """
    config = _settled(config, data)
    device = choose_device(config.device)
    header = _header(config, data)
    torch.manual_seed(config.seed)
    model = header.create_model()
    if trunk is None:
        trunk = initial_weights.take(model, config, header, say or (lambda _line: None))
    header.training["trunk"] = trunk
    initial_weights.keep(model, config, trunk)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = data.batches(config.clips_per_step, config.seed).to(device)
    validation = None
    if isinstance(batches, StoredBatches):
        batch_size.check_num_clips(batches.size, len(batches.clips))
        validation = validation_of(data, batches)
        background = Background.of(batches.clips.targets, data.labels)
        augmentation = Augmentation(max_angle_deg=config.max_angle_deg) if config.augment else None
        batches = replace(batches, augmentation=augmentation, background=background)
    else:  # generated clips come once
        if config.max_angle_deg != Augmentation.max_angle_deg:
            raise UsageError(
                "max_angle_deg turns stored clips; generated ones, such as moving digits, turn by themselves"
            )
        config = replace(config, augment=False)
        header.training["config"] = config.as_json()
    dtype = choose_precision(config.precision, device)
    trainer = Trainer(
        model,
        optimizer.end_to_end(model, config),
        batches,
        objective(data.labels),
        header,
        device=device,
        dtype=dtype,
        average=moving_average(model, config.ema),
        validation=validation,
    )
    trainer.settings = _settings_of(_at_step(trainer, config.steps), config)
    return trainer


def objective(labels: Labels) -> Objective:
    """Return the objective of end-to-end training: the loss at every valid frame, the accuracy at the last one."""

    def loss(logits: Tensor, batch: ClipBatch) -> Tensor:
        return labels.loss(logits, batch.targets if batch.frame_targets is None else batch.frame_targets, batch.valid)

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


def named(config: TrainConfig) -> TrainConfig:
    """Replace a checkpoint in the place of a model's name by its model and parts.

    Raises:
        DataError: if the checkpoint cannot be read.
    """
    if config.model not in models.MODELS and Path(config.model).exists():
        header = checkpoint.read_header(Path(config.model))
        arguments = {
            name: header.arguments[name] for name in (*_PARTS, "num_glimpses", "input") if name in header.arguments
        }
        try:
            check_types(arguments, TrainConfig)
        except TypeError as error:
            raise DataError(f"{config.model} has a damaged header ({error}); take an earlier checkpoint") from error
        config = replace(config, model=header.model, **arguments)
    return config


def _settled(config: TrainConfig, data: DataConfig) -> TrainConfig:
    """Fill in the options that the clips or another checkpoint determine."""
    config = named(config)
    return replace(config, input=config.input or data.default_input, batch_size=config.clips_per_step)


def _header(config: TrainConfig, data: DataConfig) -> checkpoint.Header:
    models.arguments_of(config.model)  # an unknown name is reported before anything is read
    return checkpoint.Header(
        config.model,
        initial_weights.arguments_of(config),
        data.labels,
        expected(config.trunk, data.frame_format),
        {"config": data.as_json(), "facts": {**data.facts, "protocol": PROTOCOL}},
        {"config": config.as_json(), "data": data.identity(), "before": {}},
    )


def _at_step(trainer: Trainer, num_steps: int | None) -> checkpoint.Header:
    training = trainer.header.training | {"precision": trainer.precision, "num_steps": num_steps}
    return replace(trainer.header, training=training)


def _settings_of(header: checkpoint.Header, asked: TrainConfig) -> dict[str, Any]:
    """Return the settings that must be the same to resume a run."""
    # A run of an older version lacks the newer options; it ran as if they had their defaults, and was not augmented.
    config = TrainConfig(augment=False).as_json() | header.training.get("config", {})
    settings = dict(header.training.get("data", {}))  # first: other clips are a plainer reason than other options
    settings |= {name: value for name, value in config.items() if name not in _FREE}
    settings["precision"] = header.training.get("precision")
    if asked.steps is not None:
        settings["steps"] = header.training.get("num_steps")
    return settings
