"""The training loop, which gets both model and data from a trainer."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from saccade import distributed, files, run_folder
from saccade.device import flushed_denormals
from saccade.errors import DataError, Interrupted, NonFiniteError
from saccade.nn import attention
from saccade.train import shares
from saccade.train.interrupts import held_back
from saccade.train.trainer import Trainer, save
from saccade.train.validation import VALIDATION_LOSS

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_S = 2.0
_TIMED_STEPS = 6
_MANY = 1_000_000

Progress = Callable[[dict[str, float]], None]


def run(
    trainer: Trainer,
    out: Path,
    progress: Progress | None = None,
    *,
    save_every_s: float = CHECKPOINT_EVERY_S,
) -> None:
    """Take the remaining steps, all of them or until validation ends them; log and save at intervals and at the end.

    Args:
        trainer: the trainer, which is advanced in place.
        out: the run folder.
        progress: a function that is called after every step with loss, accuracy, learning rate, gradient norm and clips
            per second; after some steps also with loss and accuracy on the validation clips.
        save_every_s: the seconds between checkpoints.

    Raises:
        NonFiniteError: if a loss, gradient, parameter, offset or affine map becomes NaN or infinite; the last good
            checkpoint is kept.
        DataError: if clips cannot be read any more; the state is saved.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    saved = logged = time.monotonic()
    with held_back() as interrupted, _log(out, trainer.step) as write:
        while not distributed.any_of(trainer.is_done or interrupted() or distributed.launcher_is_gone()):
            try:
                row = advance(trainer)
            except DataError:  # a clip cannot be read any more; no step has begun
                save(trainer, out)
                raise
            row |= _validated(trainer)
            if progress:
                progress(row)
            now = time.monotonic()
            if now - logged > LOG_EVERY_S or trainer.is_done or VALIDATION_LOSS in row:
                write(row)
                logged = now
            if now - saved > save_every_s:
                save(trainer, out)
                saved = now
    save(trainer, out)
    if not trainer.is_done:
        raise Interrupted(f"saved at step {trainer.step} of {trainer.num_steps} in {out}")


@contextmanager
def _log(out: Path, step: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yield a function that writes a row of the log; of several processes, the first writes."""
    if not distributed.is_first():
        yield lambda _row: None
        return
    with (out / run_folder.LOG).open("ab", buffering=0) as log, run_folder.scalars(out, step) as write_scalars:

        def write(row: dict[str, float]) -> None:
            with files.errors_named(out / run_folder.LOG):
                log.write((json.dumps(row) + "\n").encode())
            write_scalars(row)

        yield write


@flushed_denormals()
def advance(trainer: Trainer) -> dict[str, float]:
    """Take one step; return its row of the log."""
    started = time.perf_counter()
    with distributed.failing_together():
        batch = trainer.batches(trainer.step, trainer.num_steps)
    batch, share = shares.alike(batch)
    generated = time.perf_counter()
    objective = trainer.objective
    factor = objective.rate(trainer.step, trainer.num_steps)
    trainer.optimizer.set_rate(factor)
    trainer.model.train()
    lengths = () if batch.lengths is None else (batch.lengths,)
    with attention.recorded(trainer.model) as trainer.positions, _autocast(trainer):
        output = trainer.learner(batch.frames, *lengths)
    loss = objective.loss(output, batch)
    trainer.optimizer.zero_grad()
    # The processes' gradients are averaged, and shares may differ in size.
    (loss * share * distributed.size()).backward()
    norm = _norm(trainer.model, objective.max_gradient_norm).item()
    figures = {"loss": loss.item()}
    if objective.accuracy is not None:
        figures["accuracy"] = objective.accuracy(output.detach(), batch)
    figures = _checked(trainer, figures, norm, share)
    trainer.optimizer.step()
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.model)
    trainer.step += 1
    spent = time.perf_counter() - started
    trainer.elapsed_s += spent
    row = {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "loss": figures["loss"],
        "learning_rate": trainer.optimizer.param_groups[0]["base_lr"] * factor,
        "gradient_norm": norm,
        "clips_per_s": len(batch.frames) / share / spent,
        "generation_share": (generated - started) / spent,
        "elapsed_s": trainer.elapsed_s,
    }
    return row | figures


def _validated(trainer: Trainer) -> dict[str, float]:
    """Look at the validation clips if it is time to; return entries of the log row."""
    if trainer.validation is None or not trainer.validation.is_due(trainer.step, trainer.num_steps):
        return {}
    started = time.perf_counter()
    try:
        found = trainer.validation.look(trainer.product, trainer.step, trainer.device, trainer.dtype)
    except NonFiniteError as error:
        raise NonFiniteError(
            f"the verdict on validation clips is not finite after step {trainer.step}; {trainer.remedy}"
        ) from error
    trainer.elapsed_s += time.perf_counter() - started
    return found | {"elapsed_s": trainer.elapsed_s}


def steps_within(trainer: Trainer, minutes: float) -> int:
    """Time a few steps, undo them, and return the number of steps that fit into some minutes, including the timing.

    Looks at the validation clips take a share of the time.
    """
    kept = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    average, random = trainer.average, torch.get_rng_state()
    assert not trainer.optimizer.tensors(), "training has begun"
    trainer.num_steps, trainer.average = _MANY, None
    seconds = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        advance(trainer)
        seconds.append(time.perf_counter() - started)
    trainer.model.load_state_dict(kept)
    trainer.optimizer.forget()
    torch.set_rng_state(random)
    trainer.average, trainer.step, trainer.elapsed_s = average, 0, 0.0
    typical = sorted(seconds)[_TIMED_STEPS // 2]
    if (validation := trainer.validation) is not None:
        started = time.perf_counter()
        validation.verdicts(trainer.product, trainer.device, trainer.dtype)
        seconds.append(time.perf_counter() - started)
        typical += seconds[-1] / validation.least_interval
    return distributed.from_first(max(1, round((minutes * 60 - sum(seconds)) / typical)))


def _norm(model: nn.Module, longest: float | None) -> torch.Tensor:
    """Return the norm of the whole gradient, and clip the gradient if it is longer than `longest`."""
    if longest is None:
        return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return nn.utils.clip_grad_norm_(model.parameters(), longest)


def _autocast(trainer: Trainer) -> torch.autocast:
    return torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.dtype == torch.bfloat16)


def _checked(trainer: Trainer, figures: dict[str, float], norm: float, share: float) -> dict[str, float]:
    """Return the figures of the whole batch; raise NonFiniteError in all processes if a number is not finite in one."""
    found = {
        f"positions of {n}": 0.0 if bool(torch.isfinite(p).all()) else math.nan for n, p in trainer.positions.items()
    }
    whole = shares.mean(figures | found, share)
    # The gradient norm is finite only if every gradient is; weights change only by finite gradients.
    bad = [name for name, value in {**whole, "gradient norm": norm}.items() if not math.isfinite(value)]
    if bad:
        rate = trainer.optimizer.param_groups[0]["lr"]
        raise NonFiniteError(
            f"{bad[0]} is not finite at step {trainer.step}"
            f" (learning rate {rate:.2e}, gradient norm {norm:.3g}); {trainer.remedy}"
        )
    return {name: whole[name] for name in figures}
