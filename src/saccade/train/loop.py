"""The training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import checkpoint, run_folder
from saccade.data.moving_digits import ClipBatch, MovingDigits
from saccade.errors import DataError, Interrupted, NonFiniteError, UsageError
from saccade.nn import attention
from saccade.precision import choose_device, choose_precision
from saccade.train.config import SHORT_FRAMES, TrainConfig
from saccade.train.interrupts import held_back

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_S = 2.0
MAX_GRADIENT_NORM = 1.0
_TIMED_STEPS = 6

Progress = Callable[[dict[str, float]], None]


@dataclass
class Trainer:
    """What changes while training runs: the model, its optimiser and the number of steps done."""

    config: TrainConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    long: MovingDigits
    short: MovingDigits
    device: torch.device
    dtype: torch.dtype
    num_steps: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    positions: dict[str, Tensor] = field(default_factory=dict)


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


def train(config: TrainConfig, out: Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train a model end to end; return the path of its checkpoint.

    The run folder `out` gets `run.json`, `log.jsonl` and, at the start, about every minute and at the end,
    `checkpoint.safetensors`, so that a run can be resumed from its first second on.
    A run that was resumed gives the same bits as one that never stopped, on the same machine with the same number of
    threads.

    Args:
        config: everything that decides the run.
        out: the run folder.
        resume: go on from the checkpoint in `out`.
        progress: called after every step with loss, accuracy, learning rate, gradient norm and clips per second.

    Raises:
        UsageError: a run is already there, or the one to resume had another configuration.
        NonFiniteError: a loss, gradient, parameter, offset or affine map became NaN or infinite; the last good
            checkpoint stays.
        Interrupted: Ctrl-C; the state was saved.
    """
    # A run under way holds its own weights; those it began with may be gone.
    trainer = start(replace(config, start_from=None) if resume else config)
    trainer.config = config
    if resume:
        _restore(trainer, out)
    else:
        run_folder.check_free(out)
        trainer.num_steps = config.steps or _steps_in(trainer, config.minutes or 10.0)
        _create(trainer, out)
    _run(trainer, out, progress)
    if trainer.step < trainer.num_steps:
        raise Interrupted(f"saved at step {trainer.step} of {trainer.num_steps} in {out}")
    run_folder.update(out, finished=True, elapsed_s=round(trainer.elapsed_s, 1))
    return out / checkpoint.NAME


def _create(trainer: Trainer, out: Path) -> None:
    facts = {"steps": trainer.num_steps, "precision": str(trainer.dtype).removeprefix("torch.")}
    run_folder.create(out, "train", trainer.config.as_json(), device=str(trainer.device), **facts)
    _save(trainer, out)


def _run(trainer: Trainer, out: Path, progress: Progress | None) -> None:
    """Take steps to the end, or to Ctrl-C; log and save on the way and after the last."""
    saved = logged = time.monotonic()
    with (
        held_back() as interrupted,
        (out / run_folder.LOG).open("a", encoding="utf-8") as log,
        run_folder.scalars(out, trainer.step) as write_scalars,
    ):
        while trainer.step < trainer.num_steps and not interrupted():
            row = advance(trainer)
            if progress:
                progress(row)
            now = time.monotonic()
            if now - logged > LOG_EVERY_S or trainer.step == trainer.num_steps:
                log.write(json.dumps(row) + "\n")
                log.flush()
                write_scalars(row)
                logged = now
            if now - saved > CHECKPOINT_EVERY_S:
                _save(trainer, out)
                saved = now
    _save(trainer, out)


def start(config: TrainConfig) -> Trainer:
    """Build everything that a run needs, before its first step."""
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = config.create_model()
    if config.start_from is not None:
        checkpoint.load_weights(model, config.start_from)
    model = model.to(device, memory_format=torch.channels_last)
    digits = config.load_digits("train")
    long, short = (config.clips(digits, short=short).to(device) for short in (False, True))
    dtype = choose_precision(config.precision, device)
    return Trainer(config, model, _optimizer(model, config), long, short, device, dtype)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    attending = {id(p) for layer in attention.attention_layers(model).values() for p in layer.positions.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        # Biases and normalisation have one dimension and are not decayed.
        groups.setdefault((id(parameter) in attending, parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.learning_rate,
                "base_lr": config.learning_rate * (config.attention_rate if attends else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (attends, decays), parameters in groups.items()
        ],
        fused=True,
    )


def advance(trainer: Trainer) -> dict[str, float]:
    """Take one step; return what is logged about it."""
    started = time.perf_counter()
    batch = _next_batch(trainer)
    generated = time.perf_counter()
    factor = learning_rate_factor(trainer.step, trainer.num_steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    trainer.model.train()
    with attention.recorded(trainer.model) as trainer.positions, _autocast(trainer):
        logits = trainer.model(batch.frames)
    loss = loss_at_every_frame(logits, batch.labels)
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(trainer.model.parameters(), MAX_GRADIENT_NORM)
    _check_finite(trainer, loss, norm)
    trainer.optimizer.step()
    trainer.step += 1
    spent = time.perf_counter() - started
    trainer.elapsed_s += spent
    return {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "loss": loss.item(),
        "accuracy": _accuracy(logits[:, -1], batch.labels),
        "learning_rate": trainer.config.learning_rate * factor,
        "gradient_norm": norm.item(),
        "clips_per_s": len(batch.frames) / spent,
        "generation_share": (generated - started) / spent,
        "elapsed_s": trainer.elapsed_s,
    }


def _next_batch(trainer: Trainer) -> ClipBatch:
    config = trainer.config
    short = trainer.step < config.short_fraction * trainer.num_steps and config.num_frames > SHORT_FRAMES
    size = config.batch_size * config.num_frames // SHORT_FRAMES if short else config.batch_size
    # Steps count in clips of the larger batch, so that no index comes twice whatever the phase.
    first = trainer.step * max(size, config.batch_size * config.num_frames // SHORT_FRAMES)
    indices = torch.arange(first, first + size, device=trainer.device)
    return (trainer.short if short else trainer.long).batch(indices)


def _autocast(trainer: Trainer) -> torch.autocast:
    return torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.dtype == torch.bfloat16)


def loss_at_every_frame(logits: Float[Tensor, "batch time classes"], labels: Tensor) -> Float[Tensor, ""]:
    """Return the mean cross entropy over all frames; binary and per class where labels are presence vectors."""
    if labels.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.unsqueeze(1).expand_as(logits))
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))


def _accuracy(logits: Float[Tensor, "batch classes"], labels: Tensor) -> float:
    right = ((logits > 0) == (labels > 0)).all(-1) if labels.dim() == 2 else logits.argmax(-1) == labels
    return right.float().mean().item()


def _check_finite(trainer: Trainer, loss: Tensor, norm: Tensor) -> None:
    # The gradient norm is finite only if every gradient is; weights change only by finite gradients.
    found = {
        "loss": loss,
        "gradient norm": norm,
        **{f"positions of {n}": p for n, p in trainer.positions.items()},
    }
    bad = [name for name, value in found.items() if not bool(torch.isfinite(value).all())]
    if bad:
        rate = trainer.optimizer.param_groups[0]["lr"]
        raise NonFiniteError(
            f"{bad[0]} is not finite at step {trainer.step}"
            f" (learning rate {rate:.2e}, gradient norm {norm.item():.3g});"
            " the last good checkpoint stays; try a lower --learning-rate, or --precision float32"
        )


def _steps_in(trainer: Trainer, minutes: float) -> int:
    """Time a few steps on a copy's worth of state, put everything back, and return how many steps fit."""
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.num_steps = 1_000_000
    seconds = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        advance(trainer)
        seconds.append(time.perf_counter() - started)
    trainer.model.load_state_dict(weights)
    trainer.optimizer = _optimizer(trainer.model, trainer.config)
    trainer.step, trainer.elapsed_s = 0, 0.0
    typical = sorted(seconds)[_TIMED_STEPS // 2]
    return max(1, round((minutes * 60 - sum(seconds)) / typical))


def _save(trainer: Trainer, out: Path) -> None:
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} is not finite at step {trainer.step}; the last good checkpoint stays")
    state = {
        f"optimizer.{index}.{name}": value
        for index, entry in trainer.optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    state["random.cpu"] = torch.get_rng_state()
    training: dict[str, Any] = {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "elapsed_s": trainer.elapsed_s,
    }
    config = trainer.config
    data = {
        "digits": trainer.long.source,
        "condition": config.condition,
        "labels": config.labels,
        "protocol": "end_to_end",
    }
    header = checkpoint.Header(config.model, config.model_arguments(), data, training | {"config": config.as_json()})
    checkpoint.save(out / checkpoint.NAME, trainer.model, header, state)


def _restore(trainer: Trainer, out: Path) -> None:
    header = checkpoint.read_header(out)
    before, now = header.training.get("config", {}), trainer.config.as_json()
    # How long to train was settled when the run began; where the files lie may change.
    free = {"steps", "minutes", "data_dir", "device", "start_from"}
    changed = [name for name in now if name not in free and before.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise UsageError(
            f"{out} was trained with {name}={before.get(name)}, now {name}={now[name]};"
            " resume with the same, or choose another --out"
        )
    if header.data.get("digits") != trainer.long.source:
        raise UsageError(
            f"{out} was trained on the digits {header.data.get('digits')}, now they are {trainer.long.source};"
            " resume with the same --digits, or choose another --out"
        )
    tensors = checkpoint.load_weights(trainer.model, out)
    if "random.cpu" not in tensors:
        raise DataError(f"{out} holds weights only; it can be used, or started from, but not resumed")
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            entries.setdefault(int(index), {})[name] = value
    state = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})
    for parameter, entry in trainer.optimizer.state.items():
        for name, value in entry.items():
            if value.shape == parameter.shape:
                # The fused optimiser walks through memory: its state must lie there as the parameter does.
                entry[name] = torch.empty_like(parameter).copy_(value)
    torch.set_rng_state(tensors["random.cpu"])
    run_folder.rewind_log(out / run_folder.LOG, header.training["step"])
    trainer.step, trainer.num_steps = header.training["step"], header.training["num_steps"]
    trainer.elapsed_s = header.training["elapsed_s"]
