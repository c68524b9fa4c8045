"""The figures of an evaluation by class and by group, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saccade.evaluate.clip_verdicts import ClipVerdict
from saccade.evaluate.metrics import held
from saccade.intervals import wilson_interval
from saccade.labels import Labels

FEW_CLIPS = 5
"""A class with fewer test clips has figures that say little."""


@dataclass(frozen=True)
class Share:
    """A share of some clips.

    Args:
        num: the number of clips that count.
        num_clips: the number of all clips, at least 1.
    """

    num: int
    num_clips: int

    @property
    def value(self) -> float:
        """The share as a fraction."""
        return self.num / self.num_clips

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, as fractions."""
        return wilson_interval(self.num, self.num_clips)

    def as_json(self) -> dict[str, Any]:
        """Return the share and its interval as JSON values."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "num": self.num, "num_clips": self.num_clips}


@dataclass(frozen=True)
class ClassFigures:
    """The figures of a class, or of a part of classes.

    Args:
        name: the name of the class.
        num_clips: the number of clips that show it.
        recall: of the clips that show it, those whose verdict has it as often; None if no clip shows it.
        precision: of the clips whose verdict has it, those that show it as often; None if no verdict has it.
    """

    name: str
    num_clips: int
    recall: Share | None
    precision: Share | None

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        shares = {"recall": self.recall, "precision": self.precision}
        told = {name: None if share is None else share.as_json() for name, share in shares.items()}
        return {"name": self.name, "num_clips": self.num_clips, **told}


@dataclass(frozen=True)
class GroupFigures:
    """The accuracy on the clips of one group."""

    name: str
    accuracy: Share

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        return {"name": self.name, "accuracy": self.accuracy.as_json()}


def by_class(labels: Labels, clips: Sequence[ClipVerdict]) -> list[ClassFigures]:
    """Return the figures of each item of `Labels.things`, in their order."""
    shown = held(torch.tensor([clip.target for clip in clips]), labels)
    found = held(torch.tensor([clip.verdict for clip in clips]), labels)
    counts = [
        *((shown > 0).sum(0), ((shown > 0) & (found >= shown)).sum(0)),
        *((found > 0).sum(0), ((found > 0) & (shown >= found)).sum(0)),
    ]
    return [
        ClassFigures(name, num_shown, _share(recalled, num_shown), _share(precise, num_found))
        for name, num_shown, recalled, num_found, precise in zip(
            labels.things, *(count.tolist() for count in counts), strict=True
        )
    ]


def worst_first(figures: ClassFigures) -> tuple[float, int]:
    """Return a key that sorts classes by recall, and of equal recall by the number of clips, largest first."""
    # Classes that no clip shows have no recall, and come last.
    return (2.0 if figures.recall is None else figures.recall.value), -figures.num_clips


def by_group(clips: Sequence[ClipVerdict]) -> list[GroupFigures]:
    """Return the accuracy on each group of clips, the lowest first; nothing if clips have no groups."""
    groups = groups_of(clips)
    if groups is None:
        return []
    num_clips, num_right = Counter(groups), Counter(clip.group for clip in clips if clip.right)
    found = [GroupFigures(name, Share(num_right[name], num)) for name, num in num_clips.items()]
    # Of equal accuracies, that of more clips says more.
    return sorted(found, key=lambda group: (group.accuracy.value, -group.accuracy.num_clips, group.name))


def groups_of(clips: Sequence[ClipVerdict]) -> list[str] | None:
    """Return the group of each clip; None if there are no groups, or if each clip is a group of its own."""
    groups = [clip.group for clip in clips if clip.group is not None]
    return groups if len(groups) == len(clips) and len(set(groups)) < len(groups) else None


def largest_class(clips: Sequence[ClipVerdict]) -> float:
    """Return the accuracy of a model that always predicts the most frequent target."""
    targets = Counter(str(clip.target) for clip in clips)
    return max(targets.values()) / len(clips)


def _share(num: int, num_clips: int) -> Share | None:
    return Share(num, num_clips) if num_clips else None
