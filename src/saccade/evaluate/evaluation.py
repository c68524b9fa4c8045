"""Evaluate a model on clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from saccade.data.moving_digits import MovingDigits
from saccade.errors import UsageError
from saccade.evaluate import metrics
from saccade.evaluate.attention_effect import AttentionEffect, AttentionWatch, LayerAttention
from saccade.evaluate.forward import Progress, Setup, Verdicts, run_clips
from saccade.evaluate.rows import Row
from saccade.nn import attention


@dataclass(frozen=True)
class Evaluation:
    """What a model's verdicts on some clips are worth; all numbers as JSON has them.

    Args:
        labels: the label scheme.
        condition: how the digits moved.
        digits: the digit source.
        num_clips: how many clips.
        accuracy: fraction of clips that were named right; for the scheme `digits`, whose exact set was.
        cross_entropy: in nats; for `digits` the mean of the binary ones.
        top5_accuracy: fraction of clips whose class is among the five likeliest; None for `digits`.
        calibration_error: see `metrics.calibration_error`.
        digit_recall: for each digit 0 to 9; see `metrics.digit_recall`.
        confusion_matrix: see `metrics.confusion_matrix`.
        accuracy_by_frame: the accuracy if the verdict were that of each frame; None for a model that is not causal.
        verdicts: the class of each clip, or the presence of each digit for `digits`.
        looks: where each attention layer looked, by its module name.
    """

    labels: str
    condition: str
    digits: str
    num_clips: int
    accuracy: float
    cross_entropy: float
    top5_accuracy: float | None
    calibration_error: float
    digit_recall: list[float | None]
    confusion_matrix: list[Any]
    accuracy_by_frame: list[float] | None
    verdicts: list[Any]
    looks: dict[str, LayerAttention]

    def row(self, *, attention: AttentionEffect | None = None, **facts: Any) -> Row:
        """Return the row of a result file.

        Args:
            attention: what the attention did, if it was measured.
            facts: what was evaluated: at least `model`, `protocol`, `instances` and `seed`; `condition`, `digits` and
                `labels` are those of the clips unless they are given.

        Raises:
            UsageError: one of these is missing.
        """
        facts = {"condition": self.condition, "digits": self.digits, "labels": self.labels} | facts
        identity = ("model", "protocol", "condition", "digits", "instances", "labels", "seed")
        if missing := [name for name in identity if facts.get(name) is None]:
            raise UsageError(f"a result row lacks {', '.join(missing)}; give what was evaluated")
        measured = {name: getattr(self, name) for name in ("accuracy", "cross_entropy", "num_clips")}
        measured |= {"top5_accuracy": self.top5_accuracy, "calibration_error": self.calibration_error}
        recall = {f"recall_{digit}": value for digit, value in enumerate(self.digit_recall)}
        further = {name: value for name, value in facts.items() if name not in identity}
        looked = attention.columns() if attention else {}
        return {name: facts[name] for name in identity} | measured | looked | recall | further

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return asdict(self)


def evaluate(
    model: nn.Module,
    clips: MovingDigits,
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
    >>> from saccade.data import digits
    >>> from saccade.data.motion import Motion
    >>> clips = MovingDigits(digits.load("uci", "test"), Motion("normal", num_frames=2), num_clips=4)
    >>> evaluate(models.create("lenet-lstm", num_classes=55), clips).num_clips
    4
    """
    setup = Setup.choose(clips, num_clips, batch_size, device, precision)
    watch = AttentionWatch(model)
    with attention.recorded(model) as seen:

        def take_in() -> None:
            watch.add(seen)
            seen.clear()  # offsets can be larger than the clips: let them go before the next batch

        found = run_clips(model, clips, setup, after_batch=take_in, progress=progress)
    logits, labels, scheme = found.logits, found.labels, clips.labels
    return Evaluation(
        labels=scheme.name,
        condition=clips.motion.condition,
        digits=clips.source,
        num_clips=setup.num_clips,
        accuracy=metrics.accuracy(logits, labels, scheme),
        cross_entropy=metrics.cross_entropy(logits, labels, scheme),
        top5_accuracy=None if scheme.multi_label else metrics.top_accuracy(logits, labels),
        calibration_error=metrics.calibration_error(logits, labels, scheme),
        digit_recall=metrics.digit_recall(logits, labels, scheme),
        confusion_matrix=metrics.confusion_matrix(logits, labels, scheme).tolist(),
        accuracy_by_frame=found.accuracy_by_frame,
        verdicts=metrics.decide(logits, scheme).tolist(),
        looks=watch.layers(),
    )


def attention_effect(
    model: nn.Module,
    clips: MovingDigits,
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


def _compare(before: Evaluation, after: Verdicts, clips: MovingDigits) -> AttentionEffect:
    verdicts = metrics.decide(after.logits, clips.labels).tolist()
    return AttentionEffect(
        layers=before.looks,
        accuracy=before.accuracy,
        accuracy_without=metrics.accuracy(after.logits, after.labels, clips.labels),
        cross_entropy_without=metrics.cross_entropy(after.logits, after.labels, clips.labels),
        num_changed=sum(one != other for one, other in zip(before.verdicts, verdicts, strict=True)),
        num_clips=before.num_clips,
    )


def _check_same_clips(before: Evaluation, clips: MovingDigits, setup: Setup) -> None:
    was = (before.num_clips, before.labels, before.condition, before.digits)
    now = (setup.num_clips, clips.labels.name, clips.motion.condition, clips.source)
    for name, one, other in zip(("num_clips", "labels", "condition", "digits"), was, now, strict=True):
        if one != other:
            raise UsageError(
                f"with_attention was measured with {name}={one}, now it is {other}: give one of the same clips"
            )
