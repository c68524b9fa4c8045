"""Evaluate a model on clips, with and without its attention."""

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
from saccade.evaluate.breakdown import ClassFigures, GroupFigures, by_class, by_group, groups_of
from saccade.evaluate.cells import Interval
from saccade.evaluate.clip_verdicts import ClipVerdict, clip_verdicts
from saccade.evaluate.forward import Progress, Setup, Verdicts, run_clips
from saccade.evaluate.rows import RECALL, Row
from saccade.intervals import accuracy_interval
from saccade.labels import Labels
from saccade.nn import attention


@dataclass(frozen=True)
class Evaluation:
    """The metrics and verdicts of a model on some clips; all values are JSON values.

    Args:
        labels: the classes.
        facts: the columns of a result row that describe the clips.
        num_clips: the number of clips.
        accuracy: the fraction of clips whose verdict is right. If classes do not exclude each other, the verdict must
            be the exact set.
        cross_entropy: the cross entropy in nats. If classes do not exclude each other, the mean of the binary ones.
        top5_accuracy: the fraction of clips whose class is among the five most probable; None for five classes or
            fewer, and if classes do not exclude each other.
        calibration_error: see `metrics.calibration_error`.
        recall: the recall of each item of `Labels.things`; see `metrics.recall`.
        confusion_matrix: see `metrics.confusion_matrix`.
        accuracy_by_frame: the accuracy of the verdict at each frame, over the clips that have this frame; None for a
            model that is not causal.
        accuracy_of_mean_logits: the accuracy if a clip's verdict is the mean of its logits over frames; None for a
            model that is not causal.
        clips: the verdict of each clip.
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
    accuracy_of_mean_logits: float | None
    clips: list[ClipVerdict]
    looks: dict[str, LayerAttention]

    @property
    def verdicts(self) -> list[Any]:
        """The predicted class of each clip, or the predicted presence of each class."""
        return [clip.verdict for clip in self.clips]

    @property
    def interval(self) -> Interval:
        """The 95 % interval for the accuracy on other clips: over groups where there are several, else over clips."""
        return Interval(*accuracy_interval([clip.right for clip in self.clips], groups_of(self.clips)))

    def by_class(self) -> list[ClassFigures]:
        """Return recall and precision of each item of `Labels.things`, with intervals."""
        return by_class(self.labels, self.clips)

    def by_group(self) -> list[GroupFigures]:
        """Return the accuracy on each group, the lowest first; nothing if clips have no groups."""
        return by_group(self.clips)

    def row(self, *, attention: AttentionEffect | None = None, **facts: Any) -> Row:
        """Return the row for a result file.

        Args:
            attention: the effect of attention, if it was measured.
            facts: columns that describe the model, at least `model` and `seed`; the facts of the clips are added.

        Raises:
            UsageError: if `model`, `data` or `seed` is missing.
        """
        facts = self.facts | facts
        identity = ("model", "data", "seed")
        if missing := [name for name in identity if facts.get(name) is None]:
            raise UsageError(f"a result row lacks {', '.join(missing)}; pass it as a keyword argument")
        measured = {name: getattr(self, name) for name in ("accuracy", "cross_entropy", "num_clips")}
        measured |= {"accuracy_of_mean_logits": self.accuracy_of_mean_logits}
        measured |= {"top5_accuracy": self.top5_accuracy, "calibration_error": self.calibration_error}
        recall = {f"{RECALL}{name}": value for name, value in self.recall.items()}
        further = {name: value for name, value in facts.items() if name not in identity}
        looked = attention.columns() if attention else {}
        return {name: facts[name] for name in identity} | further | measured | looked | recall

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
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
    """Evaluate a model on the first clips of a dataset; a clip's verdict is that of its last frame.

    The model is moved to `device` and stays there; its training mode is restored. Results do not depend on the batch
    size, except for the rounding of sums.

    Args:
        model: a model from clips (batch, time, channels, height, width) to logits (batch, time, classes).
        clips: the clips.
        num_clips: the number of clips, from clip 0 on; None takes all clips.
        batch_size: the number of clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto (bfloat16 where the processor gains from it), float32 or bfloat16.
        progress: called after every batch with the number of clips done and the total number.

    Raises:
        UsageError: if there are no clips, or if the model's classes are not those of the clips.
        NonFiniteError: if logits, offsets or affine maps are NaN or infinite.

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
            seen.clear()  # offsets can be larger than the clips: free them before the next batch

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
        accuracy_of_mean_logits=found.accuracy_of_mean_logits,
        clips=clip_verdicts(clips, found),
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
    """Measure the effect of a model's attention layers: where they look, and the results without attention.

    Args:
        model: a model, as for `evaluate`.
        clips: the clips.
        num_clips: the number of clips, from clip 0 on; None takes the number in `with_attention`, or all clips.
        batch_size: the number of clips in a forward pass; fewer need less memory.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        progress: called after every batch with the number of clips done and the total number, in each pass.
        with_attention: an existing evaluation of the same model on the same clips, which saves a pass.

    Raises:
        UsageError: as for `evaluate`, or if `with_attention` is of other clips.
        NonFiniteError: as for `evaluate`.
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
    verdicts = clips.labels.decide(after.logits).long().tolist()
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
                f"with_attention was measured with {name}={one}, now it is {other}; pass one of the same clips"
            )
