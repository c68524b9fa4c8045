"""The state of a training run, and how it is saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from saccade import checkpoint, distributed, foreign, run_folder
from saccade.clips import CPU, Batches, ClipBatch
from saccade.errors import DataError, NonFiniteError
from saccade.train.optimizer import Optimizers
from saccade.train.validation import Validation

# Prefixes of tensors in a checkpoint: the state of the optimiser, the trained weights if the model is an average, and
# the best weights so far if there is a validation.
_OPTIMIZER, _LEARNING, _BEST = "optimizer.", "learning.", "best."
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Objective:
    """The objective of a training run.

    Args:
        loss: the function from the output of the model and the batch to the loss.
        accuracy: the function from the same to the accuracy as a fraction; None if none is computed during training.
        rate: the function from step and number of steps to the learning rate as a fraction of the highest.
        max_gradient_norm: the norm to which longer gradients are clipped; None for no clipping.
    """

    loss: Callable[[Tensor, ClipBatch], Float[Tensor, ""]]
    accuracy: Callable[[Tensor, ClipBatch], float] | None = None
    rate: Callable[[int, int], float] = lambda step, num_steps: 1.0
    max_gradient_norm: float | None = None


@dataclass
class Trainer:
    """A training run in progress: the model, its optimiser, batches and objective, and the number of steps done.

    Args:
        model: the model that is trained.
        optimizer: the optimiser of its weights.
        batches: the batches that it learns from.
        objective: the objective of training.
        header: the header of its checkpoints, except for the progress of training.
        settings: the settings that must be the same to resume the run, by name.
        device: the device of training.
        dtype: the dtype of matrix products.
    """

    model: nn.Module
    optimizer: Optimizers
    batches: Batches
    objective: Objective
    header: checkpoint.Header
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    num_steps: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    positions: dict[str, Tensor] = field(default_factory=dict)
    average: AveragedModel | None = None  # the moving average of the weights, if one is kept
    reader: nn.Module | None = None  # the part of the model that reads the batches, if they hold maps
    validation: Validation | None = None
    parallel: nn.Module | None = None  # around what learns, if several processes average their gradients

    @property
    def learner(self) -> nn.Module:
        """The module that a step calls."""
        return self.parallel or self.reader or self.model

    @property
    def precision(self) -> str:
        """The name of the dtype of matrix products."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def product(self) -> nn.Module:
        """The result of training: the moving average of the model if one is kept, else the model."""
        return self.model if self.average is None else self.average.module

    @property
    def remedy(self) -> str:
        """What helps if numbers are not finite; the precision is part of it if it is not the highest."""
        lower = "the last good checkpoint is kept; try a lower --learning-rate"
        return lower if self.dtype == torch.float32 else f"{lower}, or --precision float32"

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or enough of them to know that more bring nothing better."""
        ended = self.validation is not None and self.validation.is_over(self.num_steps, self.step)
        return ended or self.step >= self.num_steps


def moving_average(model: nn.Module, longest_decay: float) -> AveragedModel | None:
    """Return a moving average that starts at a model's weights; None for a decay of 0.

    The decay is smaller in the first steps; otherwise the average would keep a share of the initial weights for long.
    """
    if not longest_decay:
        return None

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, num_averaged: Tensor | int) -> None:
        seen = int(num_averaged)
        decay = min(longest_decay, (1 + seen) / (10 + seen))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def save(trainer: Trainer, out: Path, **facts: Any) -> None:
    """Save the weights, optimiser, random state and progress of a training run; of several processes, the first does.

    Args:
        trainer: the trainer to save.
        out: the run folder.
        facts: further entries of the header's `training`.

    Raises:
        NonFiniteError: if a weight is NaN or infinite; an existing checkpoint is kept.
        DataError: if the checkpoint cannot be written.
    """
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} is not finite at step {trainer.step}; {trainer.remedy}")
    if not distributed.is_first():
        return
    state = {_OPTIMIZER + name: tensor for name, tensor in trainer.optimizer.tensors().items()}
    state["random.cpu"] = torch.get_rng_state()
    if trainer.average is not None:
        state |= {_LEARNING + name: tensor for name, tensor in trainer.model.state_dict().items()}
        state["average.num_averaged"] = trainer.average.n_averaged
    if trainer.validation is not None:
        state |= {_BEST + name: tensor for name, tensor in trainer.validation.best.items()}
        facts["validation"] = trainer.validation.as_json()
    training = {
        **trainer.header.training,
        **_progress(trainer),
        **facts,
    }
    checkpoint.save(out / checkpoint.NAME, trainer.product, replace(trainer.header, training=training), state)


def _progress(trainer: Trainer) -> dict[str, Any]:
    return {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "elapsed_s": trainer.elapsed_s,
        "precision": trainer.precision,
    }


def keep_best(trainer: Trainer, out: Path, found: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a finished run by the weights that were best in validation, with their temperature.

    Args:
        trainer: the finished training, with these weights.
        out: the run folder.
        found: the result of `Validation.finish`, which becomes the entry `validation` of the header.
    """
    if not distributed.is_first():
        return
    training = {**trainer.header.training, **_progress(trainer), "step": found["kept_step"], "validation": dict(found)}
    checkpoint.save(out / checkpoint.NAME, trainer.product, replace(trainer.header, training=training))


def restore(trainer: Trainer, out: Path, before: Mapping[str, Any]) -> checkpoint.Header:
    """Restore a trainer to the state of the run in a folder; return the header of its checkpoint.

    Args:
        trainer: a trainer that was built like that of the run.
        out: the run folder.
        before: the settings of the run in the folder, which are compared with those of the trainer.

    Raises:
        UsageError: if the folder holds another run.
        DataError: if there is no checkpoint, it is damaged, or it holds weights only.
    """
    header = checkpoint.read_header(out)
    run_folder.check_same(out, before, trainer.settings)
    tensors = checkpoint.load_weights(trainer.product, out)
    if "random.cpu" not in tensors:
        raise DataError(f"{out} holds weights only and cannot be resumed; give it to --model or --start-from")
    try:
        _take_state(trainer, tensors, header.training)
    except foreign.UNREADABLE as error:
        raise DataError(f"{out} has a damaged checkpoint ({error}); take an earlier copy or train again") from error
    kept = ("step", "num_steps", "elapsed_s", "precision", "validation")
    training = {name: value for name, value in header.training.items() if name not in kept}
    trainer.header = replace(trainer.header, training=trainer.header.training | training)
    return header


def _take_state(trainer: Trainer, tensors: dict[str, Tensor], training: Mapping[str, Any]) -> None:
    if trainer.average is not None:
        trainer.model.load_state_dict(_under(_LEARNING, tensors))
        trainer.average.n_averaged.copy_(tensors["average.num_averaged"])
    if trainer.validation is not None:
        best = {name: tensor.to(trainer.device) for name, tensor in _under(_BEST, tensors).items()}
        trainer.validation.take(training.get("validation", {}), best)
    trainer.optimizer.load_tensors(_under(_OPTIMIZER, tensors))
    torch.set_rng_state(tensors["random.cpu"])
    trainer.step, trainer.num_steps = training["step"], training["num_steps"]
    trainer.elapsed_s = training["elapsed_s"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
