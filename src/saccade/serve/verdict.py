"""What a model says of what it sees, and whether it is sure enough to say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saccade.data.labels import LabelScheme
from saccade.predict import verdicts


@dataclass(frozen=True)
class Verdict:
    """The most probable answer.

    Args:
        digits: the digits that the model names; for the labels `digits` each once, rising.
        confidence: probability of exactly this answer; of a set of digits the product over all ten, taken as
            independent, as `saccade predict` has it.
        sure: whether the confidence is enough for a verdict.
    """

    digits: tuple[int, ...]
    confidence: float
    sure: bool


def verdict_of(logits: Float[Tensor, "classes"], scheme: LabelScheme, min_confidence: float) -> Verdict:
    """Return the most probable answer.

    >>> import torch
    >>> from saccade.data import labels
    >>> logits = torch.tensor([-9.0, 2, -9, 9, -9, -9, -9, -9, -9, -9])
    >>> found = verdict_of(logits, labels.create("digits"), min_confidence=0.9)
    >>> found.digits, round(found.confidence, 2), found.sure
    ((1, 3), 0.88, False)
    """
    ((name, confidence),) = verdicts(logits.unsqueeze(0), scheme)
    digits = tuple(int(character) for character in name if character.isdigit())
    return Verdict(digits, confidence, confidence >= min_confidence)


def is_right(digits: Sequence[int], truth: Sequence[int | None], scheme: LabelScheme) -> bool | None:
    """Tell whether the digits named are those shown; None where nobody knows, or the labels cannot name them.

    >>> from saccade.data import labels
    >>> is_right((3, 7), (7, 3), labels.create("pair")), is_right((3, 7), (7, 3), labels.create("ordered"))
    (True, False)
    >>> is_right((3,), (3, 3), labels.create("digits")), is_right((3,), (3, None), labels.create("digits"))
    (True, None)
    """
    known = [digit for digit in truth if digit is not None]
    if len(known) < len(truth) or not truth:
        return None
    if scheme.multi_label:
        return set(digits) == set(known)
    if len(known) != 2:
        return None
    return list(digits) == (known if scheme.name == "ordered" else sorted(known))
