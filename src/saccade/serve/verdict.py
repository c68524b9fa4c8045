"""The verdict of a model, and whether its confidence suffices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saccade.explain.truth import names_digits
from saccade.labels import Labels


@dataclass(frozen=True)
class Verdict:
    """The most probable answer.

    Args:
        name: the name of the class, or of the classes that are present together.
        classes: the indices of the named classes.
        confidence: the probability of exactly this answer, as in `saccade predict`.
        sure: whether the answer is sure, as in `saccade predict`; see `Labels.sure`.
    """

    name: str
    classes: tuple[int, ...]
    confidence: float
    sure: bool


def verdict_of(logits: Float[Tensor, "classes"], labels: Labels, min_confidence: float) -> Verdict:
    """Return the most probable answer.

    >>> import torch
    >>> logits = torch.tensor([-9.0, 2, -9, 9])
    >>> found = verdict_of(logits, Labels(("0", "1", "2", "3"), exclusive=False, separator="-"), min_confidence=0.9)
    >>> found.name, round(found.confidence, 2), found.sure
    ('1-3', 0.88, False)
    """
    rows = logits.unsqueeze(0)
    (said,) = labels.verdicts(rows)
    return Verdict(said.name, said.classes, said.probability, bool(labels.sure(rows, min_confidence)))


def task_of(labels: Labels) -> str:
    """Return a sentence about the classes of a model; empty if it names any digits.

    >>> task_of(Labels(("wave", "clap", "jump")))
    'Names one of 3 classes.'
    """
    if names_digits(labels):
        if labels.parts is None:
            return ""
        return "Names two digits." if labels.unordered_pairs else "Names two digits in order."
    return f"Names {'one' if labels.exclusive else 'any'} of {len(labels.names)} classes."


def is_right(classes: Sequence[int], shown: Sequence[str | None], labels: Labels) -> bool | None:
    """Return whether the named classes match the shown things; None if this is unknown or no classes can name them.

    Args:
        classes: the indices of the classes that a verdict names.
        shown: the things that the frame shows; None for an unknown thing.
        labels: the model's classes.

    >>> labels = Labels(("a", "b", "c"), exclusive=False)
    >>> is_right((0, 2), ("c", "a"), labels), is_right((0,), ("a", None), labels)
    (True, None)
    """
    known = [thing for thing in shown if thing is not None]
    if len(known) < len(shown) or not shown or not set(known) <= set(labels.things):
        return None
    if labels.parts is None:
        if labels.exclusive and len(known) > 1:
            return None
        return {labels.names[index] for index in classes} == set(known)
    if len(known) != len(labels.parts[0]):
        return None
    named = [part for index in classes for part in labels.parts[index]]
    return Counter(named) == Counter(known) if labels.unordered_pairs else named == known
