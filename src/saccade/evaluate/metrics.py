"""What is measured of a model's verdicts: logits of clips beside their labels.

*Conventions:* logits are (clips, classes) and labels as the label scheme encodes them: class indices, or presence
vectors for the scheme `digits`, where a digit counts as seen above a probability of 1/2 (logit 0).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from saccade.data.labels import LabelScheme

NUM_DIGITS = 10
NUM_BINS = 15

Labels = Int64[Tensor, "clips"] | Float[Tensor, "clips 10"]


def decide(
    logits: Float[Tensor, "... classes"], scheme: LabelScheme
) -> Int64[Tensor, "..."] | Bool[Tensor, "... classes"]:
    """Return what logits say: the class with the largest, or for `digits` whether each digit is there."""
    return logits > 0 if scheme.multi_label else logits.argmax(-1)


def right(logits: Float[Tensor, "clips ... classes"], labels: Labels, scheme: LabelScheme) -> Bool[Tensor, "clips ..."]:
    """Tell which verdicts are right; for `digits` the exact set must be.

    Logits may have further dimensions, such as time, between those of clips and classes.
    """
    between = (1,) * (logits.dim() - 2)
    if scheme.multi_label:
        wanted = labels.bool().view(len(labels), *between, -1)
        return (decide(logits, scheme) == wanted).all(-1)
    return decide(logits, scheme) == labels.view(-1, *between)


def accuracy(logits: Float[Tensor, "clips classes"], labels: Labels, scheme: LabelScheme) -> float:
    """Return the fraction of clips whose verdict is right."""
    return right(logits, labels, scheme).double().mean().item()


def cross_entropy(logits: Float[Tensor, "clips classes"], labels: Labels, scheme: LabelScheme) -> float:
    """Return the mean cross entropy in nats; for `digits` the mean over clips and digits of the binary one."""
    if scheme.multi_label:
        return F.binary_cross_entropy_with_logits(logits.double(), labels.double()).item()
    return F.cross_entropy(logits.double(), labels).item()


def top_accuracy(logits: Float[Tensor, "clips classes"], labels: Int64[Tensor, "clips"], num: int = 5) -> float:
    """Return the fraction of clips whose class is among the `num` with the largest logits."""
    largest = logits.topk(min(num, logits.shape[-1]), -1).indices
    return (largest == labels.unsqueeze(-1)).any(-1).double().mean().item()


def digit_recall(logits: Float[Tensor, "clips classes"], labels: Labels, scheme: LabelScheme) -> list[float | None]:
    """Return for each digit the fraction of the clips that show it whose verdict holds it as often.

    A clip of "33" thus asks for two threes: "35" does not find them, and counts as one miss, not as half of one. A
    digit that no clip shows has no recall (None).
    """
    shown, found = held_digits(labels, scheme), held_digits(decide(logits, scheme), scheme)
    clips_with = (shown > 0).sum(0).tolist()
    hits = ((shown > 0) & (found >= shown)).sum(0).tolist()
    return [hit / num if num else None for hit, num in zip(hits, clips_with, strict=True)]


def held_digits(verdicts: Tensor, scheme: LabelScheme) -> Int64[Tensor, "clips 10"]:
    """Count how often each digit occurs in what clips are called; for `digits`, whether it does."""
    if scheme.multi_label:
        return (verdicts > 0).long()
    pairs = torch.tensor(scheme.pairs, device=verdicts.device)
    return F.one_hot(pairs, NUM_DIGITS).sum(1)[verdicts]


def confusion_matrix(
    logits: Float[Tensor, "clips classes"], labels: Labels, scheme: LabelScheme
) -> Int64[Tensor, "classes classes"] | Int64[Tensor, "10 2 2"]:
    """Count clips by what they show (rows) and what the verdict says (columns).

    For `digits`, where classes do not exclude each other, it is one 2 x 2 matrix for each digit, absent before present:
    `[[right absence, false alarm], [miss, hit]]`, as scikit-learn's `multilabel_confusion_matrix` has it.
    """
    decided = decide(logits, scheme).long()
    if scheme.multi_label:
        cell = torch.arange(NUM_DIGITS, device=logits.device) * 4 + labels.long() * 2 + decided
        return torch.bincount(cell.flatten(), minlength=NUM_DIGITS * 4).view(NUM_DIGITS, 2, 2)
    num = scheme.num_classes
    return torch.bincount(labels * num + decided, minlength=num * num).view(num, num)


def calibration_error(logits: Float[Tensor, "clips classes"], labels: Labels, scheme: LabelScheme) -> float:
    """Return how far confidence and accuracy are apart: the expected calibration error over 15 bins of equal width.

    Confidence is the probability of the predicted class. For `digits` each of the ten probabilities of a clip counts as
    one confidence, held against whether the digit is there. Bins are open below and closed above.

    Source: Guo et al., "On calibration of modern neural networks", 2017, arXiv 1706.04599, eq. 3.
    """
    if scheme.multi_label:
        confidence, happened = logits.double().sigmoid().flatten(), labels.flatten().double()
    else:
        confidence, decided = logits.double().softmax(-1).max(-1)
        happened = (decided == labels).double()
    bins = ((confidence * NUM_BINS).ceil().long() - 1).clamp(0, NUM_BINS - 1)
    # A bin's share of all times the gap of its means is the gap of its sums over all.
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64, device=logits.device).index_add(0, bins, confidence - happened)
    return (gaps.abs().sum() / len(confidence)).item()
