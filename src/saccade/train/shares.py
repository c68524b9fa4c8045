"""A process's share of a training batch, and what it counts."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from saccade import distributed
from saccade.clips import ClipBatch, DataConfig, ShardableBatches
from saccade.errors import UsageError
from saccade.labels import IGNORED
from saccade.nn.reduced_batch_norm import ReducedBatchNorm2d
from saccade.train.trainer import Trainer


def divide(trainer: Trainer, batch_size: int) -> None:
    """Give this process its share of each batch, and let the processes average their gradients; nothing if it is alone.

    The shares differ by one clip at most. Batch normalisation takes the statistics of the whole batch.

    Args:
        trainer: the training before its first step, or resumed; it is changed in place.
        batch_size: the number of clips in a whole batch.

    Raises:
        UsageError: if the batches cannot be divided, or a process would have no clip.
    """
    if (num := distributed.size()) == 1:
        return
    if not isinstance(trainer.batches, ShardableBatches):
        raise UsageError("these batches cannot be divided among processes; train in one process, without torchrun")
    if batch_size < num:
        raise UsageError(
            f"a batch of {batch_size} clips cannot be divided among {num} processes; give at least --batch-size {num}"
        )
    trainer.batches = trainer.batches.shard(distributed.rank(), num)
    ReducedBatchNorm2d.convert(trainer.model)
    # Statistics are the same in all processes, so that none needs those of another.
    trainer.parallel = DistributedDataParallel(trainer.learner, forward_sync_buffers=False)


def check_same_clips(data: DataConfig) -> None:
    """Raise UsageError if the processes read different clips: each would take its share of another collection."""
    if distributed.size() == 1:
        return
    told = {json.dumps(identity, sort_keys=True) for identity in distributed.gathered(data.identity())}
    if len(told) > 1:
        raise UsageError("the processes read different clips; give all of them the same files, and start again")


def alike(batch: ClipBatch) -> tuple[ClipBatch, float]:
    """Pad the clips of a share as they are padded in the whole batch; return also the share of the clips.

    Normalisation sees padded frames too, so that their number must not depend on how the batch is divided.
    """
    if distributed.size() == 1:
        return batch, 1.0
    num, longest = batch.frames.shape[:2]
    told = distributed.rows([num, longest, batch.lengths is not None])
    wanted, share = int(told[:, 1].max()), num / float(told[:, 0].sum())
    if wanted == longest and not bool(told[:, 2].any()):
        return batch, share
    lengths = batch.lengths
    if lengths is None:
        lengths = torch.full((num,), longest, device=batch.frames.device)
    classes = batch.frame_targets
    if classes is not None:
        classes = F.pad(classes, (0, wanted - longest), value=IGNORED)
    frames = F.pad(batch.frames, (*(0, 0) * (batch.frames.dim() - 2), 0, wanted - longest))
    return replace(batch, frames=frames, lengths=lengths, frame_targets=classes), share


def mean(figures: dict[str, float], share: float) -> dict[str, float]:
    """Return the means of some figures over the whole batch; all processes pass the same names."""
    if distributed.size() == 1:
        return figures
    sums = distributed.rows([share * value for value in figures.values()]).sum(0).tolist()
    return dict(zip(figures, sums, strict=True))
