"""What a model's classes are called, and how its logits are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from saccade import files, foreign

Targets = Int64[Tensor, "clips"] | Float[Tensor, "clips classes"]
"""Class indices, or for classes that do not exclude each other the presence of each, 0 or 1."""


@dataclass(frozen=True)
class Verdict:
    """What logits say.

    Args:
        classes: indices of the classes that are named: one, or for classes that do not exclude each other any number.
        name: the class's name, or the names joined.
        probability: of exactly this verdict; classes that do not exclude each other are taken as independent.
    """

    classes: tuple[int, ...]
    name: str
    probability: float


@dataclass(frozen=True)
class Labels:
    """The classes of a model, in the order of its logits.

    Args:
        names: of the classes.
        exclusive: whether exactly one class is present (softmax), or any number (sigmoid, present above 1/2).
        parts: what each class consists of, for classes that stand for several things at once: the class `07` of the
            digits `0` and `7`. None for classes that are one thing each.
        nothing: the verdict where no class is present; only for classes that do not exclude each other.
        separator: what stands between names of classes that hold together.

    Raises:
        ValueError: no class, a name that comes twice, or parts for another number of classes.

    >>> labels = Labels(("wave", "clap", "jump"))
    >>> labels.verdicts(torch.tensor([[0.0, 2.0, 0.0]]))[0].name
    'clap'
    """

    names: tuple[str, ...]
    exclusive: bool = True
    parts: tuple[tuple[str, ...], ...] | None = None
    nothing: str = "none of them"
    separator: str = " + "

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"classes need names of their own; got {self.names}")
        if self.parts is not None and not self.exclusive:
            raise ValueError("classes that can be present together have no parts; leave parts out")
        if self.parts is not None and len(self.parts) != len(self.names):
            raise ValueError(f"there are {len(self.names)} classes, but parts for {len(self.parts)}")

    @classmethod
    def numbered(cls, num: int) -> Labels:
        """Return classes that are called by their numbers.

        >>> Labels.numbered(3).names
        ('0', '1', '2')
        """
        return cls(tuple(map(str, range(num))))

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Labels:
        """Return what `as_json` described.

        Raises:
            TypeError, ValueError: it describes no labels.
        """
        foreign.check_types(described, cls)
        parts = described.get("parts")
        tuples = None if parts is None else tuple(tuple(map(str, some)) for some in parts)
        return cls(**{**described, "names": tuple(map(str, described["names"])), "parts": tuples})

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return files.json_fields(self)

    @property
    def things(self) -> tuple[str, ...]:
        """What can be seen: the classes, or the parts that they consist of."""
        if self.parts is None:
            return self.names
        return tuple(dict.fromkeys(part for some in self.parts for part in some))

    @property
    def unordered_pairs(self) -> bool:
        """Whether the classes are all unordered pairs of some things, doubles too, in the order 00, 01, ..., 11, ..."""
        return self.parts is not None and self.parts == tuple(combinations_with_replacement(self.things, 2))

    def loss(
        self,
        logits: Float[Tensor, "clips time classes"],
        targets: Targets,
        valid: Bool[Tensor, "clips time"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross entropy over frames, and over clips.

        For classes that do not exclude each other it is the binary one, a mean over classes, plus that of a softmax
        over the classes whose target is shared equally by those that are present. The binary one alone first learns how
        many there are, which raises and lowers all logits together, and stays there for hundreds of steps; the softmax
        does not feel that and learns which ones.

        Args:
            logits: at every frame.
            targets: of the clips.
            valid: which frames count; each clip's loss is then the mean over its own frames.
        """
        if valid is not None and not bool(valid.all()):
            own = self._loss_by_frame(logits, targets)
            return (torch.where(valid, own, 0).sum(1) / valid.sum(1)).mean()
        flat = logits.flatten(0, 1)
        if self.exclusive:
            return F.cross_entropy(flat, targets.repeat_interleave(logits.shape[1]))
        present = targets.unsqueeze(1).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, present) + F.cross_entropy(
            flat, _shares(present).flatten(0, 1)
        )

    def _loss_by_frame(
        self, logits: Float[Tensor, "clips time classes"], targets: Targets
    ) -> Float[Tensor, "clips time"]:
        by_class = logits.transpose(1, 2)
        if self.exclusive:
            return F.cross_entropy(by_class, targets.unsqueeze(1).expand(logits.shape[:2]), reduction="none")
        present = targets.unsqueeze(1).expand_as(logits)
        binary = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(-1)
        return binary + F.cross_entropy(by_class, _shares(present).transpose(1, 2), reduction="none")

    def probabilities(self, logits: Float[Tensor, "*any classes"]) -> Float[Tensor, "*any classes"]:
        """Return the probability of each class; those of classes that do not exclude each other do not sum to 1."""
        return logits.softmax(-1) if self.exclusive else logits.sigmoid()

    def decide(self, logits: Float[Tensor, "*any classes"]) -> Int64[Tensor, "*any"] | Bool[Tensor, "*any classes"]:
        """Return what logits say: the class with the largest, or whether each is present."""
        return logits.argmax(-1) if self.exclusive else logits > 0

    def right(self, logits: Float[Tensor, "clips *any classes"], targets: Targets) -> Bool[Tensor, "clips *any"]:
        """Tell which verdicts are right; of classes that do not exclude each other, the exact set must be.

        Logits may have further dimensions, such as time, between those of clips and classes.
        """
        between = (1,) * (logits.dim() - 2)
        if self.exclusive:
            return self.decide(logits) == targets.view(-1, *between)
        return (self.decide(logits) == targets.bool().view(len(targets), *between, -1)).all(-1)

    def score(self, logits: Float[Tensor, "*any classes"]) -> Float[Tensor, "*any"]:
        """Return the score of a verdict, which saliency differentiates.

        That is the largest logit; of classes that do not exclude each other the sum of the logits of those said
        present, or the largest where none is.

        >>> logits = torch.tensor([2.0, -1.0, 3.0])
        >>> Labels(("a", "b", "c")).score(logits).item(), Labels(("a", "b", "c"), exclusive=False).score(logits).item()
        (3.0, 5.0)
        """
        largest = logits.amax(-1)
        return largest if self.exclusive else torch.where(largest > 0, logits.clamp(min=0).sum(-1), largest)

    def verdicts(self, logits: Float[Tensor, "rows classes"]) -> list[Verdict]:
        """Return what each row of logits says.

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

    def chosen(self, logits: Float[Tensor, "rows classes"]) -> Bool[Tensor, "rows classes"]:
        """Mark the classes that each row of logits names."""
        decided = self.decide(logits)
        return F.one_hot(decided, len(self.names)).bool() if self.exclusive else decided

    def name_of(self, classes: tuple[int, ...]) -> str:
        """Name classes that hold together."""
        return self.separator.join(self.names[index] for index in classes) or self.nothing


def _shares(present: Float[Tensor, "clips time classes"]) -> Float[Tensor, "clips time classes"]:
    return present / present.sum(-1, keepdim=True).clamp(min=1)
