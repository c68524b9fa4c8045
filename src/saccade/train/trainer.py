"""What changes while anything is trained, and how it is kept between two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from saccade import checkpoint, foreign, run_folder
from saccade.clips import CPU, Batches, ClipBatch
from saccade.errors import DataError, NonFiniteError
from saccade.train.optimizer import Optimizers

# What a checkpoint holds beside the model: the optimiser, and the weights that learn where the model is their average.
_OPTIMIZER, _LEARNING = "optimizer.", "learning."
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Objective:
    """What a training is for.

    Args:
        loss: of what the model gives for a batch.
        accuracy: of the same, as a fraction; None for a model whose output has none on the way.
        rate: step and number of steps -> learning rate as a fraction of the highest.
        max_gradient_norm: longer gradients are shortened to it; None leaves them.
    """

    loss: Callable[[Tensor, ClipBatch], Float[Tensor, ""]]
    accuracy: Callable[[Tensor, ClipBatch], float] | None = None
    rate: Callable[[int, int], float] = lambda step, num_steps: 1.0
    max_gradient_norm: float | None = None


@dataclass
class Trainer:
    """A training on its way: the model, its optimiser, what it learns from and for, and the number of steps done.

    Args:
        model: what learns.
        optimizer: what moves its weights.
        batches: what it learns from.
        objective: what it learns for.
        header: what its checkpoints say besides where training stands.
        settings: what must be the same for a run to be resumed, by name.
        device: where it is trained.
        dtype: number format of matrix products.
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
    average: AveragedModel | None = None  # the moving average of the weights, where one is kept

    @property
    def precision(self) -> str:
        """The number format of matrix products, in a word."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def product(self) -> nn.Module:
        """The model that training is for: the one that learns, or its moving average."""
        return self.model if self.average is None else self.average.module


def moving_average(model: nn.Module, longest_decay: float) -> AveragedModel | None:
    """Return the moving average of a model that begins; None for a decay of 0.

    The first steps count more than the decay says, or the average would remember fresh weights for as long as it lasts.
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
    """Write weights, optimiser, random state and what says how to go on.

    Args:
        trainer: what is saved.
        out: the run folder.
        facts: further entries of the header's `training`.

    Raises:
        NonFiniteError: a weight is NaN or infinite; what lies there stays.
        DataError: it cannot be written.
    """
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} is not finite at step {trainer.step}; the last good checkpoint stays")
    state = {_OPTIMIZER + name: tensor for name, tensor in trainer.optimizer.tensors().items()}
    state["random.cpu"] = torch.get_rng_state()
    if trainer.average is not None:
        state |= {_LEARNING + name: tensor for name, tensor in trainer.model.state_dict().items()}
        state["average.num_averaged"] = trainer.average.n_averaged
    training = {
        **trainer.header.training,
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "elapsed_s": trainer.elapsed_s,
        "precision": trainer.precision,
        **facts,
    }
    checkpoint.save(out / checkpoint.NAME, trainer.product, replace(trainer.header, training=training), state)


def restore(trainer: Trainer, out: Path, before: Mapping[str, Any]) -> checkpoint.Header:
    """Put a trainer where the run in a folder stands; return what its checkpoint says.

    Args:
        trainer: built as that of the run was.
        out: the run folder.
        before: the settings of the run there, to be compared with those of the trainer.

    Raises:
        UsageError: that is another run.
        DataError: there is none, it is damaged, or holds weights only.
    """
    header = checkpoint.read_header(out)
    run_folder.check_same(out, before, trainer.settings)
    tensors = checkpoint.load_weights(trainer.product, out)
    if "random.cpu" not in tensors:
        raise DataError(f"{out} holds weights only; it can be used, or started from, but not resumed")
    try:
        _take_state(trainer, tensors, header.training)
    except foreign.UNREADABLE as error:
        raise DataError(f"{out} has a damaged checkpoint ({error}); take an earlier copy or train again") from error
    kept = ("step", "num_steps", "elapsed_s", "precision")
    training = {name: value for name, value in header.training.items() if name not in kept}
    trainer.header = replace(trainer.header, training=trainer.header.training | training)
    return header


def _take_state(trainer: Trainer, tensors: dict[str, Tensor], training: Mapping[str, Any]) -> None:
    if trainer.average is not None:
        trainer.model.load_state_dict(_under(_LEARNING, tensors))
        trainer.average.n_averaged.copy_(tensors["average.num_averaged"])
    trainer.optimizer.load_tensors(_under(_OPTIMIZER, tensors))
    torch.set_rng_state(tensors["random.cpu"])
    trainer.step, trainer.num_steps = training["step"], training["num_steps"]
    trainer.elapsed_s = training["elapsed_s"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
