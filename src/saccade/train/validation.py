"""Validation during training: which step is kept, when training ends early, and what probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade import distributed
from saccade.clips import DataConfig
from saccade.data.lazy_frames import LazyFrames
from saccade.data.stored import StoredBatches, StoredClips
from saccade.errors import NonFiniteError, UsageError
from saccade.evaluate import metrics
from saccade.evaluate.forward import Setup, Verdicts, run_clips
from saccade.train import temperature

MAX_CLIPS = 500
"""More validation clips would cost time and tell little more."""

VALIDATION_LOSS, VALIDATION_ACCURACY = "validation_loss", "validation_accuracy"
"""The columns of the log."""

# A clip without gradients costs at most half of one with them, so that this keeps validation to a tenth of the time.
_SHARE_OF_FRAMES = 0.2
_MOST_LOOKS = 40
_PATIENCE, _LEAST_LOOKS = 1 / 3, 3


def itself(model: nn.Module) -> nn.Module:
    """Return the model itself, which reads frames."""
    return model


@dataclass
class Validation:
    """The validation clips of a training, and the best weights so far: those with the least cross entropy on them.

    The cross entropy is that after the best temperature, which is fitted at the end too. Otherwise a model would be
    dropped only because it is too sure, which the temperature mends.

    Source: Berta et al. 2025, "Rethinking early stopping: refine, then calibrate".

    Args:
        clips: the clips; frames, or what `reader` reads.
        batch_size: the number of clips in a forward pass.
        least_interval: the least number of steps between two looks at the clips.
        reader: a function from a model to the part of it that reads the clips.
        best_loss: the least cross entropy so far.
        best_step: the step that had it.
        num_worse: the number of looks since then.
        best: the weights of that step.
    """

    clips: StoredClips
    batch_size: int
    least_interval: int
    reader: Callable[[nn.Module], nn.Module] = itself
    best_loss: float = math.inf
    best_step: int = 0
    num_worse: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether the clips are looked at after a step: at intervals, and after the last step."""
        return step == num_steps or step % max(self.least_interval, math.ceil(num_steps / _MOST_LOOKS)) == 0

    def is_over(self, num_steps: int, step: int) -> bool:
        """Return whether a training ends early: a third of its steps brought nothing better."""
        return self.num_worse >= _LEAST_LOOKS and step - self.best_step >= _PATIENCE * num_steps

    def look(self, model: nn.Module, step: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
        """Measure a model after a step, and keep its weights if they are the best; return entries of the log row.

        Raises:
            NonFiniteError: if a logit, or the cross entropy, is NaN or infinite.
        """
        found = self.verdicts(model, device, dtype)
        labels = self.clips.labels
        loss = metrics.cross_entropy(
            found.logits / temperature.fitted(found.logits, found.targets, labels), found.targets, labels
        )
        if not math.isfinite(loss):
            raise NonFiniteError("the cross entropy of validation clips is not finite")
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.num_worse = loss, step, 0
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self.num_worse += 1
        return {
            VALIDATION_LOSS: loss,
            VALIDATION_ACCURACY: metrics.accuracy(found.logits, found.targets, labels),
        }

    def finish(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Give a model the best weights, with the temperature in its head; return what is said about it.

        The entries are those of `run.json`: the step that was kept, the number of clips, the accuracy, and the cross
        entropy before and after the temperature.
        """
        model.load_state_dict(self.best)
        found, labels = self.verdicts(model, device, dtype), self.clips.labels
        fitted = temperature.fitted(found.logits, found.targets, labels)
        temperature.fold(model.head, fitted)  # type: ignore[arg-type]
        before, after = (
            metrics.cross_entropy(logits, found.targets, labels) for logits in (found.logits, found.logits / fitted)
        )
        return {
            "kept_step": self.best_step,
            "num_clips": len(self.clips),
            "accuracy": metrics.accuracy(found.logits, found.targets, labels),
            "temperature": fitted,
            "cross_entropy_before_temperature": before,
            "cross_entropy": after,
        }

    def verdicts(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> Verdicts:
        """Return the logits of a model on all clips; each process runs it on a part of them."""
        mine = distributed.part(len(self.clips)) if len(self.clips) >= distributed.size() else range(len(self.clips))
        clips = some(self.clips, np.array(mine)) if len(mine) < len(self.clips) else self.clips
        with distributed.failing_together():
            found = run_clips(self.reader(model), clips, Setup(len(mine), self.batch_size, device, dtype))
        if len(mine) == len(self.clips):
            return found
        logits, targets = zip(*distributed.gathered((found.logits, found.targets)), strict=True)
        return Verdicts(torch.cat(logits), torch.cat(targets), None, None)

    def as_json(self) -> dict[str, Any]:
        """Return the progress, without the weights."""
        loss = self.best_loss if self.best else None
        return {"best_loss": loss, "best_step": self.best_step, "num_worse": self.num_worse}

    def take(self, described: Mapping[str, Any], best: dict[str, Tensor]) -> None:
        """Take over the progress of a training that is resumed."""
        if best:
            self.best_loss, self.best = float(described["best_loss"]), best
            self.best_step, self.num_worse = int(described["best_step"]), int(described["num_worse"])


def validation_of(data: DataConfig, batches: StoredBatches) -> Validation | None:
    """Return the validation of a training on stored clips; None if no clips were held out for it."""
    try:
        clips = data.clips("validation")
    except UsageError:
        return None
    assert isinstance(clips, StoredClips)
    if len(clips) > MAX_CLIPS:
        clips = some(clips, np.sort(np.random.default_rng(0).permutation(len(clips))[:MAX_CLIPS]))
    lengths = [len(frames) for frames in clips.frames]
    per_step = batches.size * sum(min(length, batches.num_frames) for length in lengths) / len(lengths)
    # In memory, a pass takes about what a step takes, or a single long clip.
    batch_size = max(1, batches.size * batches.num_frames // max(lengths))
    return Validation(
        clips.to(batches.clips.device), batch_size, math.ceil(sum(lengths) / (per_step * _SHARE_OF_FRAMES))
    )


def some(clips: StoredClips, chosen: NDArray[np.intp]) -> StoredClips:
    """Return the clips at some indices, in their order; frames are read when they are needed."""
    indices = chosen.tolist()

    def of_chosen(names: Any) -> list[str] | None:
        return None if names is None else [names[index] for index in indices]

    return StoredClips(
        LazyFrames(indices, clips.frames.__getitem__),
        clips.targets[indices],
        clips.labels,
        clips.facts,
        clips.device,
        names=of_chosen(clips.names),
        groups=of_chosen(clips.groups),
    )
