"""Evaluate a model on clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saccade import files
from saccade.clips import Clips
from saccade.errors import UsageError
from saccade.evaluate import metrics
from saccade.evaluate.attention_effect import AttentionEffect, AttentionWatch, LayerAttention
from saccade.evaluate.forward import Progress, Setup, Verdicts, run_clips
from saccade.evaluate.rows import RECALL, Row
from saccade.labels import Labels
from saccade.nn import attention


@dataclass(frozen=True)
class Evaluation:
    """What a model's verdicts on some clips are worth; all numbers as JSON has them.

    Args:
        labels: the classes.
        facts: what the clips are, as columns of a result row.
        num_clips: how many clips.
        accuracy: fraction of clips that were named right; where classes do not exclude each other, whose exact set was.
        cross_entropy: in nats; where classes do not exclude each other the mean of the binary ones.
        top5_accuracy: fraction of clips whose class is among the five likeliest; None for five classes or fewer, and
            where they do not exclude each other.
        calibration_error: see `metrics.calibration_error`.
        recall: for each thing that can be seen; see `metrics.recall`.
        confusion_matrix: see `metrics.confusion_matrix`.
        accuracy_by_frame: the accuracy if the verdict were that of each frame, of the clips that last so long; None for
            a model that is not causal.
        verdicts: the class of each clip, or the presence of each class.
        looks: where each attention layer looked, by its module name.
    """

    labels: Labels
    facts: dict[str, Any]
    num_clips: int
    accuracy: float
    cross_entropy: float
    top5_accuracy: float | None
    calibration_error: float
    recall: dict[str, float | None]
    confusion_matrix: list[Any]
    accuracy_by_frame: list[float] | None
    verdicts: list[Any]
    looks: dict[str, LayerAttention]

    def row(self, *, attention: AttentionEffect | None = None, **facts: Any) -> Row:
        """Return the row of a result file.

        Args:
            attention: what the attention did, if it was measured.
            facts: what was evaluated: at least `model` and `seed`; those of the clips stand there too.

        Raises:
            UsageError: one of these is missing.
        """
        facts = self.facts | facts
        identity = ("model", "data", "seed")
        if missing := [name for name in identity if facts.get(name) is None]:
            raise UsageError(f"a result row lacks {', '.join(missing)}; give what was evaluated")
        measured = {name: getattr(self, name) for name in ("accuracy", "cross_entropy", "num_clips")}
        measured |= {"top5_accuracy": self.top5_accuracy, "calibration_error": self.calibration_error}
        recall = {f"{RECALL}{name}": value for name, value in self.recall.items()}
        further = {name: value for name, value in facts.items() if name not in identity}
        looked = attention.columns() if attention else {}
        return {name: facts[name] for name in identity} | further | measured | looked | recall

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return files.json_fields(self)


def evaluate(
    model: nn.Module,
    clips: Clips,
    *,
    num_clips: int | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on the first clips of a dataset; a clip's verdict is that of its last frame.

    The model is moved to `device` and stays there; whether it is in training mode is left as it was. Figures do not
    depend on the batch size beyond the rounding of sums.

    Args:
        model: clips (batch, time, channels, height, width) to logits (batch, time, classes).
        clips: what it is measured on.
        num_clips: clips 0 to `num_clips - 1`; None takes all.
        batch_size: clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor computes it natively), float32 or bfloat16.
        progress: called after every batch with the number of clips done and of all.

    Raises:
        UsageError: no clips; a model with another number of classes than the labels.
        NonFiniteError: logits, offsets or affine maps are NaN or infinite.

    >>> from saccade import models
    >>> from saccade.data.digits import DigitsConfig
    >>> clips = DigitsConfig("uci", num_frames=2, num_clips=4).clips("test")
    >>> evaluate(models.create("lenet-lstm"), clips).num_clips
    4
    """
    setup = Setup.choose(clips, num_clips, batch_size, device, precision)
    watch = AttentionWatch(model)
    with attention.recorded(model) as seen:

        def take_in() -> None:
            watch.add(seen)
            seen.clear()  # offsets can be larger than the clips: let them go before the next batch

        found = run_clips(model, clips, setup, after_batch=take_in, progress=progress)
    logits, targets, labels = found.logits, found.targets, clips.labels
    many = labels.exclusive and len(labels.names) > 5
    return Evaluation(
        labels=labels,
        facts=dict(clips.facts),
        num_clips=setup.num_clips,
        accuracy=metrics.accuracy(logits, targets, labels),
        cross_entropy=metrics.cross_entropy(logits, targets, labels),
        top5_accuracy=metrics.top_accuracy(logits, targets) if many else None,
        calibration_error=metrics.calibration_error(logits, targets, labels),
        recall=metrics.recall(logits, targets, labels),
        confusion_matrix=metrics.confusion_matrix(logits, targets, labels).tolist(),
        accuracy_by_frame=found.accuracy_by_frame,
        verdicts=labels.decide(logits).tolist(),
        looks=watch.layers(),
    )


def attention_effect(
    model: nn.Module,
    clips: Clips,
    *,
    num_clips: int | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    progress: Progress | None = None,
    with_attention: Evaluation | None = None,
) -> AttentionEffect:
    """Measure what the attention layers of a model do: where they look, and what the model is worth without them.

    Args:
        model: as for `evaluate`, and so on.
        clips: what it is measured on.
        num_clips: clips 0 to `num_clips - 1`; None takes as many as `with_attention`, or all.
        batch_size: clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        progress: called after every batch with the number of clips done and of all, in each pass.
        with_attention: the evaluation of the same model on the same clips, where there is one already: it saves a pass.

    Raises:
        UsageError: as `evaluate`; `with_attention` is of other clips.
    """
    if num_clips is None and with_attention is not None:
        num_clips = with_attention.num_clips
    setup = Setup.choose(clips, num_clips, batch_size, device, precision)
    before = with_attention or evaluate(
        model,
        clips,
        num_clips=num_clips,
        batch_size=batch_size,
        device=device,
        precision=precision,
        progress=progress,
    )
    _check_same_clips(before, clips, setup)
    if not before.looks:
        return AttentionEffect({}, before.accuracy, None, None, 0, before.num_clips)
    with attention.switched_off(model):
        after = run_clips(model, clips, setup, progress=progress)
    return _compare(before, after, clips)


def _compare(before: Evaluation, after: Verdicts, clips: Clips) -> AttentionEffect:
    verdicts = clips.labels.decide(after.logits).tolist()
    return AttentionEffect(
        layers=before.looks,
        accuracy=before.accuracy,
        accuracy_without=metrics.accuracy(after.logits, after.targets, clips.labels),
        cross_entropy_without=metrics.cross_entropy(after.logits, after.targets, clips.labels),
        num_changed=sum(one != other for one, other in zip(before.verdicts, verdicts, strict=True)),
        num_clips=before.num_clips,
    )


def _check_same_clips(before: Evaluation, clips: Clips, setup: Setup) -> None:
    was = {"num_clips": before.num_clips} | before.facts
    for name, other in ({"num_clips": setup.num_clips} | dict(clips.facts)).items():
        if (one := was.get(name)) != other:
            raise UsageError(
                f"with_attention was measured with {name}={one}, now it is {other}: give one of the same clips"
            )
