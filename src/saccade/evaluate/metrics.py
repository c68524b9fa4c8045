"""Metrics of a model's verdicts, computed from the logits and the targets of clips.

*Conventions:* logits are (clips, classes). Targets are those of `Labels`: class indices, or presence vectors if classes
do not exclude each other.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from saccade.labels import Labels, Targets

NUM_BINS = 15


def accuracy(logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels) -> float:
    """Return the fraction of clips whose verdict is right."""
    return labels.right(logits, targets).double().mean().item()


def cross_entropy(logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels) -> float:
    """Return the mean cross entropy in nats, or the mean binary one if classes do not exclude each other."""
    if labels.exclusive:
        return F.cross_entropy(logits.double(), targets).item()
    return F.binary_cross_entropy_with_logits(logits.double(), targets.double()).item()


def top_accuracy(logits: Float[Tensor, "clips classes"], targets: Int64[Tensor, "clips"], num: int = 5) -> float:
    """Return the fraction of clips whose class is among the `num` classes with the largest logits."""
    largest = logits.topk(min(num, logits.shape[-1]), -1).indices
    return (largest == targets.unsqueeze(-1)).any(-1).double().mean().item()


def recall(logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels) -> dict[str, float | None]:
    """Return the recall of each thing: of the clips that show it, the fraction whose verdict has it at least as often.

    Things are those of `Labels.things`: the classes, or the parts of the classes. A clip of "33" shows two threes; the
    verdict "35" has only one, and counts as one miss, not as half of one. A thing that no clip shows has the recall
    None.
    """
    shown, found = held(targets, labels), held(labels.decide(logits), labels)
    clips_with = (shown > 0).sum(0).tolist()
    hits = ((shown > 0) & (found >= shown)).sum(0).tolist()
    return {name: hit / num if num else None for name, hit, num in zip(labels.things, hits, clips_with, strict=True)}


def held(verdicts: Tensor, labels: Labels) -> Int64[Tensor, "clips things"]:
    """Count how often each thing occurs in verdicts or targets; 0 or 1 if classes do not exclude each other."""
    if not labels.exclusive:
        return (verdicts > 0).long()
    if labels.parts is None:
        return F.one_hot(verdicts, len(labels.names))
    counts = [[parts.count(thing) for thing in labels.things] for parts in labels.parts]
    return torch.tensor(counts, device=verdicts.device)[verdicts]


def confusion_matrix(
    logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels
) -> Int64[Tensor, "classes classes"] | Int64[Tensor, "classes 2 2"]:
    """Count clips by true class (rows) and predicted class (columns).

    If classes do not exclude each other, the result is one 2 x 2 matrix for each class, absent before present:
    `[[true negatives, false positives], [false negatives, true positives]]`, as in scikit-learn's
    `multilabel_confusion_matrix`.
    """
    decided, num = labels.decide(logits).long(), len(labels.names)
    if not labels.exclusive:
        cell = torch.arange(num, device=logits.device) * 4 + targets.long() * 2 + decided
        return torch.bincount(cell.flatten(), minlength=num * 4).view(num, 2, 2)
    return torch.bincount(targets * num + decided, minlength=num * num).view(num, num)


def calibration_error(logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels) -> float:
    """Return the expected calibration error over 15 bins of equal width: the mean gap of confidence and accuracy.

    Confidence is the probability of the predicted class. If classes do not exclude each other, each probability of a
    clip is one confidence, which is compared with the presence of the class. Bins are open below and closed above.

    Source: Guo et al., "On calibration of modern neural networks", 2017, arXiv 1706.04599, eq. 3.
    """
    if labels.exclusive:
        confidence, decided = logits.double().softmax(-1).max(-1)
        happened = (decided == targets).double()
    else:
        confidence, happened = logits.double().sigmoid().flatten(), targets.flatten().double()
    bins = ((confidence * NUM_BINS).ceil().long() - 1).clamp(0, NUM_BINS - 1)
    # A bin's share of the samples times the gap of its means is the gap of its sums divided by the number of samples.
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64, device=logits.device).index_add(0, bins, confidence - happened)
    return (gaps.abs().sum() / len(confidence)).item()
