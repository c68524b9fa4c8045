"""The training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import checkpoint, run_folder
from saccade.data.moving_digits import ClipBatch
from saccade.errors import Interrupted, NonFiniteError
from saccade.nn import attention
from saccade.train.config import SHORT_FRAMES, TrainConfig
from saccade.train.interrupts import held_back
from saccade.train.optimizer import Optimizer
from saccade.train.trainer import Trainer, new_average, restore, save, start

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_S = 2.0
MAX_GRADIENT_NORM = 1.0
_TIMED_STEPS = 6

Progress = Callable[[dict[str, float]], None]


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
    if resume:
        restore(trainer, out)
        run_folder.read(out)  # what is missing is told before the work, not after it
        run_folder.rewind_log(out / run_folder.LOG, trainer.step)
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
    # The checkpoint first: where `run.json` lies there is something to resume.
    save(trainer, out)
    facts = {"steps": trainer.num_steps, "precision": trainer.precision}
    run_folder.create(out, "train", trainer.config.as_json(), device=str(trainer.device), **facts)


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
                save(trainer, out)
                saved = now
    save(trainer, out)


def advance(trainer: Trainer) -> dict[str, float]:
    """Take one step; return what is logged about it."""
    started = time.perf_counter()
    batch = _next_batch(trainer)
    generated = time.perf_counter()
    factor = learning_rate_factor(trainer.step, trainer.num_steps)
    trainer.optimizer.set_rate(factor)
    trainer.model.train()
    with attention.recorded(trainer.model) as trainer.positions, _autocast(trainer):
        logits = trainer.model(batch.frames)
    loss = loss_at_every_frame(logits, batch.labels)
    trainer.optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(trainer.model.parameters(), MAX_GRADIENT_NORM)
    _check_finite(trainer, loss, norm)
    trainer.optimizer.step()
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.model)
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
    num_short = config.short_fraction * trainer.num_steps
    short = trainer.step < num_short and config.num_frames > SHORT_FRAMES
    size = config.batch_size * config.num_frames // SHORT_FRAMES if short else config.batch_size
    # Steps count in clips of the larger batch, so that no index comes twice whatever the phase.
    first = trainer.step * max(size, config.batch_size * config.num_frames // SHORT_FRAMES)
    indices = torch.arange(first, first + size, device=trainer.device)
    clips = trainer.short[int(trainer.step * len(trainer.short) / num_short)] if short else trainer.long
    return clips.batch(indices)


def _autocast(trainer: Trainer) -> torch.autocast:
    return torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.dtype == torch.bfloat16)


def loss_at_every_frame(logits: Float[Tensor, "batch time classes"], labels: Tensor) -> Float[Tensor, ""]:
    """Return the mean cross entropy over all frames.

    Where labels are presence vectors it is the binary one, a mean over classes, plus that of a softmax over the classes
    whose target is shared equally by those that are present. The binary one alone first learns how many digits there
    are, which raises and lowers all logits together, and stays there for hundreds of steps; the softmax does not feel
    that and learns which ones.
    """
    if labels.dim() == 2:
        present = labels.unsqueeze(1).expand_as(logits)
        which = F.cross_entropy(logits.flatten(0, 1), (present / present.sum(-1, keepdim=True)).flatten(0, 1))
        return F.binary_cross_entropy_with_logits(logits, present) + which
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
    trainer.optimizer = Optimizer(trainer.model, trainer.config)
    trainer.average = new_average(trainer.model, trainer.config)
    trainer.step, trainer.elapsed_s = 0, 0.0
    typical = sorted(seconds)[_TIMED_STEPS // 2]
    return max(1, round((minutes * 60 - sum(seconds)) / typical))
