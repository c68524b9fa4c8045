"""Batches that cannot be: more clips than make sense, or than fit into memory."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from saccade import distributed
from saccade.clips import ClipBatch, DataConfig
from saccade.data.stored import StoredBatches
from saccade.errors import UsageError
from saccade.processors import memory_bytes
from saccade.train.trainer import Trainer

ALWAYS_ALLOWED = 64
"""A batch of this many clips is tried with any clips."""

MOST_PER_CLIP = 4
"""The same clip more often than this in a batch costs time and teaches nothing."""


def check_num_clips(size: int, num_clips: int) -> None:
    """Raise UsageError if a batch would hold each of some training clips many times.

    >>> check_num_clips(1000, 18)
    Traceback (most recent call last):
    saccade.errors.UsageError: --batch-size 1000 is many times the 18 clips to learn from; choose at most 72
    """
    most = max(ALWAYS_ALLOWED, MOST_PER_CLIP * num_clips)
    if size > most:
        raise UsageError(
            f"--batch-size {size} is many times the {num_clips} clips to learn from; choose at most {most}"
        )


def check_memory(trainer: Trainer, data: DataConfig, size: int, seed: int) -> None:
    """Raise UsageError if the frames of a batch, and what its gradients need, do not fit into memory.

    One clip is measured. On a GPU only the frames count, which are made in memory; the GPU tells by itself what it
    lacks.

    Args:
        trainer: the training before its first step.
        data: the clips that it learns from.
        size: the number of clips in a batch.
        seed: the seed of the batches.
    """
    if size <= ALWAYS_ALLOWED:
        return
    batches = trainer.batches
    if isinstance(batches, StoredBatches):
        one = replace(batches, size=1, part=(0, 1))(0, 1)
    else:
        one = data.batches(1, seed).to(trainer.device)(0, 1)
    needed = (
        math.ceil(size / distributed.size())
        * distributed.num_here()
        * (one.frames.nbytes + (_kept_bytes(trainer, one) if trainer.device.type == "cpu" else 0))
    )
    if needed > (there := memory_bytes()):
        raise UsageError(
            f"--batch-size {size} needs about {_shown(needed)} of memory, this machine has {_shown(there)}; choose at"
            f" most {max(1, int(size * there / needed))}"
        )


def _kept_bytes(trainer: Trainer, batch: ClipBatch) -> int:
    """Return how many bytes a forward pass keeps for the gradients, without the weights."""
    model = trainer.reader or trainer.model
    found: dict[int, int] = {}

    def kept(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    was_training = model.training
    model.eval()  # its statistics stay as they are
    lengths = () if batch.lengths is None else (batch.lengths,)
    with (
        saved_tensors_hooks(kept, lambda tensor: tensor),
        torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.dtype == torch.bfloat16),
    ):
        output = model(batch.frames, *lengths)  # it holds what was kept
    model.train(was_training)
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    del output
    return sum(num for place, num in found.items() if place not in weights)


def _shown(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes < 1e12 else f"{num_bytes / 1e12:.1f} TB"
