"""What a training says about its plan and its result, in a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.data.stored import StoredBatches
from saccade.train.trainer import Trainer

FEW_PASSES = 3
"""A plan that shows each clip less often than this is told: the model will hardly have begun to learn."""


def of_few_steps(trainer: Trainer) -> str | None:
    """Return a line if the planned steps see the training clips less than a few times; None otherwise."""
    batches = trainer.batches
    if not isinstance(batches, StoredBatches):  # generated clips come once
        return None
    drawn, num = trainer.num_steps * batches.size, len(batches.clips)
    if drawn >= FEW_PASSES * num:
        return None
    steps = "1 step" if trainer.num_steps == 1 else f"{trainer.num_steps} steps"
    return (
        f"warning: {steps} of {batches.size} clips are {drawn} draws from {num} training clips; learning takes many of"
        " each: give more --minutes or --steps, or choose a smaller model"
    )


def of_kept_step(found: Mapping[str, Any], trainer: Trainer) -> str:
    """Return a line about the step that is kept, and about an early end.

    Args:
        found: the result of `Validation.finish`.
        trainer: the finished training.
    """
    early = (
        f"ended early, after step {trainer.step} of {trainer.num_steps}: " if trainer.step < trainer.num_steps else ""
    )
    return (
        f"{early}step {found['kept_step']} is kept, the best on {found['num_clips']} validation clips"
        f" (accuracy {100 * found['accuracy']:.0f} %, cross entropy {found['cross_entropy']:.2f})"
    )
