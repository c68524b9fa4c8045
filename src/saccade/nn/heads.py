"""Heads, which turn states into logits."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.nn.shapes import check_dtype


class PairHead(nn.Module):
    """Compute the logits of unordered pairs of things from the evidence for each of the two.

    The logit of a pair {a, b} is the sum of the evidence for a and the evidence for b. The pair {a, a} has separate
    evidence, since one 3 does not make 33. Each clip thus trains all pairs that share a thing with it; a dense layer of
    55 rows has to learn them pair by pair.

    *Conventions:* pairs in the order 00, 01, ..., 09, 11, ..., 99.

    Args:
        in_features: the size of a state.
        num_things: the number of things that pairs are made of.

    Raises:
        ValueError: in `forward`, if states have another size or dtype.

    >>> PairHead(128, 10)(torch.zeros(2, 50, 128)).shape
    torch.Size([2, 50, 55])
    """

    first: Tensor
    second: Tensor

    def __init__(self, in_features: int, num_things: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(in_features, 2 * num_things)
        pairs = torch.tensor(list(combinations_with_replacement(range(num_things), 2)))
        first, second = pairs.unbind(-1)
        # The first half of the columns is the evidence for one of a thing, the second half for two of it. The second
        # term of a pair {a, a} is an extra column of zeros.
        self.register_buffer("first", torch.where(first == second, first + num_things, first), persistent=False)
        self.register_buffer("second", torch.where(first == second, 2 * num_things, second), persistent=False)

    def forward(self, states: Float[Tensor, "... units"]) -> Float[Tensor, "... pairs"]:
        """Return the logit of every pair."""
        if states.shape[-1:] != (self.evidence.in_features,):
            raise ValueError(f"states have shape {tuple(states.shape)}; (..., {self.evidence.in_features}) is needed")
        check_dtype("states", states, self.evidence)
        evidence = nn.functional.pad(self.evidence(states), (0, 1))
        return evidence[..., self.first] + evidence[..., self.second]
