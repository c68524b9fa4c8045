"""The names of a model's classes, and the loss, probabilities and verdicts of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from saccade import files, foreign

MIN_CONFIDENCE = 0.5
"""The standard minimum confidence of a verdict; below it, a verdict is unsure."""

IGNORED = -100
"""The class of a frame that does not count in the loss."""

Targets = Int64[Tensor, "clips"] | Float[Tensor, "clips classes"]
"""Class indices; for classes that do not exclude each other, the presence of each class as 0 or 1."""

FrameTargets = Int64[Tensor, "clips time"]
"""The class index of each frame of clips that change their class, or `IGNORED`; the classes exclude each other."""


@dataclass(frozen=True)
class Verdict:
    """The predicted classes of one row of logits.

    Args:
        classes: the indices of the predicted classes: one, or any number if classes do not exclude each other.
        name: the name of the class, or the joined names.
        probability: the probability of exactly this verdict; classes that do not exclude each other are treated as
            independent.
    """

    classes: tuple[int, ...]
    name: str
    probability: float


@dataclass(frozen=True)
class Labels:
    """The classes of a model, in the order of its logits.

    Args:
        names: the names of the classes.
        exclusive: whether exactly one class is present (softmax), or any number (sigmoid, present above 1/2).
        parts: the parts of each class, for classes that stand for several things at once: the class `07` consists of
            the digits `0` and `7`. None if each class is one thing.
        nothing: the verdict if no class is present; only for classes that do not exclude each other.
        separator: the text between the names of classes that are predicted together.
        none: the class that means that nothing happens, as between the events of a stream; None if there is no such
            class.
        min_confidence: the minimum confidence of a verdict where none is asked for; see `sure`.

    Raises:
        ValueError: if there is no class, a name occurs twice, the number of parts differs from that of classes,
            classes with parts do not exclude each other, `none` is no class of classes that exclude each other, or
            `min_confidence` lies outside 0 to 1.

    >>> labels = Labels(("wave", "clap", "jump"))
    >>> labels.verdicts(torch.tensor([[0.0, 2.0, 0.0]]))[0].name
    'clap'
    """

    names: tuple[str, ...]
    exclusive: bool = True
    parts: tuple[tuple[str, ...], ...] | None = None
    nothing: str = "none of them"
    separator: str = " + "
    none: str | None = None
    min_confidence: float = field(default=MIN_CONFIDENCE, compare=False)

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"each class needs a distinct name; got {self.names}")
        if self.parts is not None and not self.exclusive:
            raise ValueError("classes that can be present together have no parts; leave parts out")
        if self.parts is not None and len(self.parts) != len(self.names):
            raise ValueError(f"there are {len(self.names)} classes, but parts for {len(self.parts)}")
        if self.none is not None and (self.none not in self.names or not self.exclusive):
            raise ValueError(
                f"{self.none!r} cannot mean that nothing happens; it must be a class that excludes the others"
            )
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must lie in 0 to 1; got {self.min_confidence}")

    @classmethod
    def numbered(cls, num: int) -> Labels:
        """Return labels whose classes are named by their numbers.

        >>> Labels.numbered(3).names
        ('0', '1', '2')
        """
        return cls(tuple(map(str, range(num))))

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Labels:
        """Create labels from the result of `as_json`.

        Raises:
            TypeError, ValueError: if `described` does not describe labels.
        """
        foreign.check_types(described, cls)
        parts = described.get("parts")
        tuples = None if parts is None else tuple(tuple(map(str, some)) for some in parts)
        return cls(**{**described, "names": tuple(map(str, described["names"])), "parts": tuples})

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types; what versions before streams do not know is left out where it is unset."""
        described = files.json_fields(self)
        standard = {"none": None, "min_confidence": MIN_CONFIDENCE}
        return {name: value for name, value in described.items() if name not in standard or value != standard[name]}

    @property
    def things(self) -> tuple[str, ...]:
        """The things that a clip can show: the classes, or the parts of the classes."""
        if self.parts is None:
            return self.names
        return tuple(dict.fromkeys(part for some in self.parts for part in some))

    @property
    def unordered_pairs(self) -> bool:
        """Whether the classes are all unordered pairs of things, with doubles, in the order 00, 01, ..., 11, ..."""
        return self.parts is not None and self.parts == tuple(combinations_with_replacement(self.things, 2))

    def loss(
        self,
        logits: Float[Tensor, "clips time classes"],
        targets: Targets | FrameTargets,
        valid: Bool[Tensor, "clips time"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the cross entropy, averaged over the frames of each clip and then over clips.

        For classes that do not exclude each other, the loss is the sum of two terms. The first is the binary cross
        entropy, averaged over classes. The second is the cross entropy of a softmax over the classes; its target is
        shared equally by the present classes. The binary term alone first learns the number of present classes: it
        raises and lowers all logits together, and stays there for hundreds of steps. The softmax is invariant to this
        and learns which classes are present.

        Args:
            logits: the logits of every frame.
            targets: the targets of the clips, or of their frames.
            valid: a mask of the frames that count; None counts all frames but those whose target is `IGNORED`.
        """
        if self.exclusive and targets.dim() == 2:
            counts = targets != IGNORED
            valid = counts if valid is None else valid & counts
        if valid is not None and not bool(valid.all()):
            own = self._loss_by_frame(logits, targets)
            return (torch.where(valid, own, 0).sum(1) / valid.sum(1)).mean()
        flat = logits.flatten(0, 1)
        if self.exclusive:
            return F.cross_entropy(flat, _by_frame(targets, logits).flatten())
        present = targets.unsqueeze(1).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, present) + F.cross_entropy(
            flat, _shares(present).flatten(0, 1)
        )

    def _loss_by_frame(
        self, logits: Float[Tensor, "clips time classes"], targets: Targets | FrameTargets
    ) -> Float[Tensor, "clips time"]:
        by_class = logits.transpose(1, 2)
        if self.exclusive:
            return F.cross_entropy(by_class, _by_frame(targets, logits), reduction="none", ignore_index=IGNORED)
        present = targets.unsqueeze(1).expand_as(logits)
        binary = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(-1)
        return binary + F.cross_entropy(by_class, _shares(present).transpose(1, 2), reduction="none")

    def probabilities(self, logits: Float[Tensor, "*any classes"]) -> Float[Tensor, "*any classes"]:
        """Return the probability of each class; the sum is 1 only if the classes exclude each other."""
        return logits.softmax(-1) if self.exclusive else logits.sigmoid()

    def decide(self, logits: Float[Tensor, "*any classes"]) -> Int64[Tensor, "*any"] | Bool[Tensor, "*any classes"]:
        """Return the class with the largest logit, or whether each class is present if several can be."""
        return logits.argmax(-1) if self.exclusive else logits > 0

    def right(self, logits: Float[Tensor, "clips *any classes"], targets: Targets) -> Bool[Tensor, "clips *any"]:
        """Return which verdicts are correct; for classes that do not exclude each other, the set must be exact.

        Logits may have further dimensions, for example time, between those of clips and classes.
        """
        between = (1,) * (logits.dim() - 2)
        if self.exclusive:
            return self.decide(logits) == targets.view(-1, *between)
        return (self.decide(logits) == targets.bool().view(len(targets), *between, -1)).all(-1)

    def score(self, logits: Float[Tensor, "*any classes"]) -> Float[Tensor, "*any"]:
        """Return the score of a verdict, which saliency differentiates.

        The score is the largest logit. For classes that do not exclude each other, it is the sum of the logits of the
        predicted classes, or the largest logit if no class is predicted.

        >>> logits = torch.tensor([2.0, -1.0, 3.0])
        >>> Labels(("a", "b", "c")).score(logits).item(), Labels(("a", "b", "c"), exclusive=False).score(logits).item()
        (3.0, 5.0)
        """
        largest = logits.amax(-1)
        return largest if self.exclusive else torch.where(largest > 0, logits.clamp(min=0).sum(-1), largest)

    def verdicts(self, logits: Float[Tensor, "rows classes"]) -> list[Verdict]:
        """Return the verdict of each row of logits.

        >>> labels = Labels(("0", "3", "7"), exclusive=False, nothing="no digit", separator="-")
        >>> [verdict.name for verdict in labels.verdicts(torch.tensor([[9.0, -9.0, 9.0], [-9.0, -9.0, -9.0]]))]
        ['0-7', 'no digit']
        """
        said, chosen = self.probabilities(logits), self.chosen(logits)
        probability = said.amax(-1) if self.exclusive else torch.where(chosen, said, 1 - said).prod(-1)
        found = []
        for row, p in zip(chosen.tolist(), probability.tolist(), strict=True):
            classes = tuple(index for index, there in enumerate(row) if there)
            found.append(Verdict(classes, self.name_of(classes), p))
        return found

    def sure(self, logits: Float[Tensor, "rows classes"], min_confidence: float) -> Bool[Tensor, "rows"]:
        """Return whether the verdict of each row of logits is sure.

        A class is sure if its probability is at least `min_confidence`. If classes do not exclude each other, each
        class is a question of yes or no: its confidence is 0 at a probability of 50 %, and 1 at 0 and 100 %. The set is
        sure if the confidence of each class is at least `min_confidence`: at 0.5, if no probability lies between 25 %
        and 75 %. The probability of the exact set would not do: it falls with the number of classes, however clear each
        of them is.

        >>> both = Labels(("a", "b"), exclusive=False)
        >>> both.sure(torch.tensor([[3.0, -3.0], [3.0, -0.5]]), 0.5).tolist()
        [True, False]
        """
        said = self.probabilities(logits).double()
        return (said.amax(-1) if self.exclusive else (2 * said - 1).abs().amin(-1)) >= min_confidence

    def threshold(self, min_confidence: float | None = None) -> float:
        """Return the minimum confidence that was asked for, or else that of these classes."""
        return self.min_confidence if min_confidence is None else min_confidence

    def chosen(self, logits: Float[Tensor, "rows classes"]) -> Bool[Tensor, "rows classes"]:
        """Return a mask of the classes that each row of logits predicts."""
        decided = self.decide(logits)
        return F.one_hot(decided, len(self.names)).bool() if self.exclusive else decided

    def name_of(self, classes: tuple[int, ...]) -> str:
        """Return the joined names of classes that are predicted together, or `nothing` if there are none."""
        return self.separator.join(self.names[index] for index in classes) or self.nothing


def _by_frame(
    targets: Int64[Tensor, "clips"] | FrameTargets, logits: Float[Tensor, "clips time classes"]
) -> FrameTargets:
    return targets if targets.dim() == 2 else targets.unsqueeze(1).expand(logits.shape[:2])


def _shares(present: Float[Tensor, "clips time classes"]) -> Float[Tensor, "clips time classes"]:
    return present / present.sum(-1, keepdim=True).clamp(min=1)
