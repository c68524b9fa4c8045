"""Training a classifier of clips end to end."""

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
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import verdict
from saccade.train import loop, optimizer
from saccade.train.config import TrainConfig
from saccade.train.loop import Progress
from saccade.train.trainer import Objective, Trainer, moving_average, restore, save

MAX_GRADIENT_NORM = 1.0
PROTOCOL = "end_to_end"
_DEFAULT_MINUTES = 10.0
# How long to train and from which weights was settled when a run began; where it runs may change.
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

    The run folder `out` gets `run.json`, `log.jsonl` and, at the start, about every minute and at the end,
    `checkpoint.safetensors`, so that a run can be resumed from its first second on.
    A run that was resumed gives the same bits as one that never stopped, on the same machine with the same number of
    threads.

    Args:
        config: everything that decides the run besides the clips.
        data: what it learns from, such as a `saccade.data.Folder`.
        out: the run folder.
        resume: continue from the checkpoint in `out`.
        progress: called after every step with loss, accuracy, learning rate, gradient norm and clips per second.

    Raises:
        UsageError: a run is already there, or another process writes to it; the run to resume had another
            configuration.
        DataError: clips that cannot be read.
        NonFiniteError: a loss, gradient, parameter, offset or affine map became NaN or infinite; the last good
            checkpoint stays.
        Interrupted: Ctrl-C; the state was saved.
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
    # The checkpoint first: where `run.json` lies there is something to resume.
    save(trainer, out)
    _describe(trainer, out)
    return trainer


def _resumed(config: TrainConfig, data: DataConfig, out: Path) -> Trainer:
    header = checkpoint.read_header(out)
    if (out / run_folder.RUN).exists():
        run_folder.read(out)  # what is missing is told before the work, not after it
    # A run under way holds its own weights; those it began with may be gone.
    trainer = start(replace(config, start_from=None), data)
    restore(trainer, out, _settings_of(header, config))
    run_folder.rewind_log(out / run_folder.LOG, trainer.step)
    if not (out / run_folder.RUN).exists():  # the process was killed before it came to that
        _describe(trainer, out)
    return trainer


def _describe(trainer: Trainer, out: Path) -> None:
    facts = {"steps": trainer.num_steps, "precision": trainer.precision, "data": trainer.header.data["config"]}
    run_folder.create(out, "train", trainer.header.training["config"], device=str(trainer.device), **facts)


def start(config: TrainConfig, data: DataConfig) -> Trainer:
    """Build everything that a run needs, before its first step."""
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
    """Return what end-to-end training is for: the loss at every frame that counts, and the verdict at the last."""

    def loss(logits: Tensor, batch: ClipBatch) -> Tensor:
        return labels.loss(logits, batch.targets, batch.valid)

    def accuracy(logits: Tensor, batch: ClipBatch) -> float:
        return labels.right(verdict(logits, batch.lengths), batch.targets).float().mean().item()

    return Objective(loss, accuracy, learning_rate_factor, MAX_GRADIENT_NORM)


def learning_rate_factor(step: int, num_steps: int) -> float:
    """Return the learning rate of a step as a fraction of the highest: a rise over a tenth of the steps, a half cosine
    down.

    >>> [round(learning_rate_factor(step, 100), 2) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    rise = max(1, num_steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))


def _settled(config: TrainConfig, data: DataConfig) -> TrainConfig:
    """Fill in what the clips or another checkpoint decide."""
    if config.model not in models.MODELS and Path(config.model).exists():
        header = checkpoint.read_header(Path(config.model))
        arguments = {name: header.arguments[name] for name in ("trunk", "input") if name in header.arguments}
        config = replace(config, model=header.model, **arguments)
    return replace(config, input=config.input or data.default_input)


def _header(config: TrainConfig, data: DataConfig) -> checkpoint.Header:
    models.arguments_of(config.model)  # an unknown name is told before anything is read
    return checkpoint.Header(
        config.model,
        {"trunk": config.trunk, "input": config.input},
        data.labels,
        data.frame_format,
        {"config": data.as_json(), "facts": {**data.facts, "protocol": PROTOCOL}},
        {"config": config.as_json(), "data": data.identity(), "before": {}},
    )


def _take_weights(model: torch.nn.Module, header: checkpoint.Header, path: Path) -> dict[str, Any]:
    """Copy weights of the same kind of model; return what they learned from, as columns of a result row."""
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
    """Raise UsageError where weights have learned from clips that are now to be tested on."""
    now, before = header.data["config"], other.data.get("config", {})
    same_place = now.get("root") is not None and now.get("root") == before.get("root")
    if same_place and now.get("held_out") != before.get("held_out"):
        raise UsageError(
            f"{path} was tested on other clips of {now['root']}, and may have learned from those held out now; train"
            " on with the split of then, as `saccade train --start-from` does, or from fresh weights"
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
    """Return what must be the same for a run to be resumed."""
    # A run of an older version lacks the options that came since; it ran as their defaults do.
    config = TrainConfig().as_json() | header.training.get("config", {})
    settings = {name: value for name, value in config.items() if name not in _FREE}
    settings |= header.training.get("data", {})
    settings["precision"] = header.training.get("precision")
    if asked.steps is not None:
        settings["steps"] = header.training.get("num_steps")
    return settings
