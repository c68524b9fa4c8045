"""The three label schemes for clips of digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saccade.errors import UsageError, unknown_name
from saccade.labels import Labels

_UNORDERED = tuple((a, b) for a in range(10) for b in range(a, 10))
_ORDERED = tuple((a, b) for a in range(10) for b in range(10))


@dataclass(frozen=True)
class LabelScheme:
    """The mapping from the digits in a clip to its class.

    `pair`: 55 unordered pairs, softmax. `ordered`: 100 ordered pairs, softmax. `digits`: presence of each of ten
    digits, sigmoid, any number of digits; a prediction is correct if the set of digits is exact.

    >>> create("pair").labels.names[:3], len(create("ordered").labels.names), create("digits").labels.exclusive
    (('00', '01', '02'), 100, False)
    """

    name: str
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def labels(self) -> Labels:
        """The classes."""
        if not self.pairs:
            return Labels(tuple(map(str, range(10))), exclusive=False, nothing="no digit", separator="-")
        return Labels(tuple(f"{a}{b}" for a, b in self.pairs), parts=tuple((str(a), str(b)) for a, b in self.pairs))

    def check_num_digits(self, num_digits: int | tuple[int, int]) -> tuple[int, int]:
        """Check the number of digits in a clip, or its range; return the smallest and the largest number.

        Raises:
            UsageError: if the scheme does not allow the number of digits, or the range decreases.
        """
        fewest, most = num_digits if isinstance(num_digits, tuple) else (num_digits, num_digits)
        for number in (fewest, most):
            if not self.pairs and not 1 <= number <= 5:
                raise UsageError(f"a clip holds 1 to 5 digits; got {number}")
            if self.pairs and number != 2:
                raise UsageError(f"the labels {self.name!r} name two digits; got {number}; use labels='digits'")
        if fewest > most:
            raise UsageError(f"num_digits must not decrease; got {fewest} to {most}")
        return fewest, most

    def choose(self, indices: Int64[Tensor, "batch"], drawn: Int64[Tensor, "batch n"]) -> Int64[Tensor, "batch n"]:
        """Return the digits of each clip: those of class `index % num_classes`, or the drawn digits for `digits`."""
        if not self.pairs:
            return drawn
        return torch.tensor(self.pairs, device=indices.device)[indices % len(self.pairs)]

    def encode(
        self, digits: Int64[Tensor, "batch n"], indices: Int64[Tensor, "batch"]
    ) -> Int64[Tensor, "batch"] | Float[Tensor, "batch 10"]:
        """Return the target of each clip: the class index, or a 0/1 vector of presence for `digits`."""
        if not self.pairs:
            # Absent digits are -1: they go to an eleventh column, which is dropped.
            return torch.zeros(len(digits), 11, device=digits.device).scatter_(1, digits % 11, 1.0)[:, :10].contiguous()
        return indices % len(self.pairs)


SCHEMES = {
    "pair": LabelScheme("pair", _UNORDERED),
    "ordered": LabelScheme("ordered", _ORDERED),
    "digits": LabelScheme("digits"),
}


def create(name: str) -> LabelScheme:
    """Return the label scheme of the given name.

    Raises:
        UsageError: if there is no such scheme.
    """
    if name not in SCHEMES:
        raise unknown_name("label scheme", name, SCHEMES)
    return SCHEMES[name]
