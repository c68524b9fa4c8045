"""The verdict of each clip of an evaluation, and the clips with the most wrong verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saccade.clips import Clips
from saccade.evaluate.forward import Verdicts


@runtime_checkable
class NamedClips(Clips, Protocol):
    """Clips whose names or groups are known."""

    @property
    def names(self) -> Sequence[str] | None:
        """The name of each clip, for example the path of its file; None if clips have no names."""
        ...

    @property
    def groups(self) -> Sequence[str] | None:
        """The group of each clip, for example the person shown; None if each clip is a group of its own."""
        ...


@dataclass(frozen=True)
class ClipVerdict:
    """The verdict of a model on one clip; all values are JSON values.

    Args:
        name: the name of the clip; None if it has none.
        group: the group of the clip; None if clips have no groups.
        target: the true class, or the presence of each class.
        verdict: the predicted class, or the predicted presence of each class.
        right: whether the verdict is exactly the target.
        probability: the probability of exactly this verdict. Classes that do not exclude each other are treated as
            independent.
        target_probability: the probability of exactly the target.
    """

    name: str | None
    group: str | None
    target: Any
    verdict: Any
    right: bool
    probability: float
    target_probability: float


def clip_verdicts(clips: Clips, found: Verdicts) -> list[ClipVerdict]:
    """Return the verdict of each clip that was run through a model, in order."""
    labels, logits, targets = clips.labels, found.logits, found.targets
    said = labels.probabilities(logits.double())
    decided = labels.decide(logits)
    num, named = len(logits), clips if isinstance(clips, NamedClips) else None
    return [
        ClipVerdict(*values)
        for values in zip(
            _known(named.names if named else None, num),
            _known(named.groups if named else None, num),
            targets.long().tolist(),
            decided.long().tolist(),
            labels.right(logits, targets).tolist(),
            exact_probability(said, decided).tolist(),
            exact_probability(said, targets.bool() if targets.dim() > 1 else targets).tolist(),
            strict=True,
        )
    ]


def most_wrong(verdicts: Sequence[ClipVerdict], num: int = 10) -> list[int]:
    """Return the indices of the most wrong clips.

    Clips with a wrong verdict come first, in order of its probability. If there are fewer than `num`, clips with a
    right verdict follow, the least certain first.
    """

    def order(index: int) -> tuple[bool, float]:
        clip = verdicts[index]
        return clip.right, clip.target_probability if clip.right else -clip.probability

    return sorted(range(len(verdicts)), key=order)[:num]


def _known(values: Sequence[str] | None, num: int) -> Sequence[str | None]:
    return [None] * num if values is None else values[:num]


def exact_probability(
    said: Float[Tensor, "rows classes"], wanted: Int64[Tensor, "rows"] | Bool[Tensor, "rows classes"]
) -> Float[Tensor, "rows"]:
    """Return the probability of exactly the wanted class, or of exactly the wanted set of classes.

    Args:
        said: the probability of each class.
        wanted: a class index for each row, or the presence of each class.
    """
    if wanted.dim() == 1:
        return said.gather(1, wanted.unsqueeze(1)).squeeze(1)
    return torch.where(wanted, said, 1 - said).prod(1)
