"""Following a sequence of features, causally."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.errors import unknown_name

State = Tensor | tuple[Tensor, Tensor]


class Recurrent(nn.Module):
    """An LSTM or GRU that reads features in order of time and gives a state for every frame.

    *Conventions:* (batch, time, features); the output at a frame depends on that frame and those before it. Computed in
    float32: the sum over hundreds of steps is where bfloat16 loses.

    Args:
        in_features: size of a frame's feature.
        num_units: size of the state.
        kind: `lstm` or `gru`.

    Raises:
        UsageError: unknown kind.

    >>> states, last = Recurrent(8, 4)(torch.zeros(2, 3, 8))
    >>> states.shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, in_features: int, num_units: int, kind: str = "lstm") -> None:
        super().__init__()
        kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
        if kind not in kinds:
            raise unknown_name("recurrent kind", kind, kinds)
        self.in_features, self.num_units = in_features, num_units
        self.cell = kinds[kind](in_features, num_units, batch_first=True)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the state at every frame, and what to pass in to go on with the next frames."""
        with torch.autocast(features.device.type, enabled=False):
            states, last = self.cell(features.float(), state)
        return states, last
