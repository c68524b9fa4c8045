"""Causal temporal parts, which turn a sequence of features into states.

To add one, write a class here and list it in `TEMPORAL`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.nn.shapes import check_shape

State = tuple[Tensor, ...]
"""The state after earlier frames, in fixed shapes; the batch is the first dimension, or the second after layers."""


class Temporal(Protocol):
    """A module that reads features in order of time and returns a state for every frame.

    *Conventions:* (batch, time, features); the output at a frame depends on that frame and those before it.
    """

    num_units: int

    def initial_state(self, batch: int) -> State:
        """Return the state before the first frame."""
        ...

    def __call__(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the state at every frame, and the state to pass in with the next frames."""
        ...


class _Recurrent(nn.Module):
    """A recurrent layer of torch in float32, since the sum over hundreds of steps loses precision in bfloat16."""

    cell: nn.RNNBase

    def __init__(self, in_features: int, num_units: int) -> None:
        super().__init__()
        self.in_features, self.num_units = in_features, num_units

    def _zeros(self, batch: int) -> Tensor:
        weight = next(self.cell.parameters())
        return weight.new_zeros(1, batch, self.num_units)

    def _check(self, features: Tensor, state: State, num_states: int) -> None:
        check_shape("features", features, "batch", "time", self.in_features)
        shapes = [tuple(part.shape) for part in state]
        wanted = [(1, len(features), self.num_units)] * num_states
        if shapes != wanted:
            raise ValueError(f"state has shapes {shapes}; features of shape {tuple(features.shape)} need {wanted}")


class LSTM(_Recurrent):
    """An LSTM; its state is the hidden state and the cell state.

    Args:
        in_features: the size of the feature of a frame.
        num_units: the size of the state.

    >>> lstm = LSTM(8, 4)
    >>> states, last = lstm(torch.zeros(2, 3, 8), lstm.initial_state(2))
    >>> states.shape, len(last)
    (torch.Size([2, 3, 4]), 2)
    """

    def __init__(self, in_features: int, num_units: int) -> None:
        super().__init__(in_features, num_units)
        self.cell = nn.LSTM(in_features, num_units, batch_first=True)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return self._zeros(batch), self._zeros(batch)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the state at every frame, and the state to pass in with the next frames."""
        self._check(features, state, 2)
        with torch.autocast(features.device.type, enabled=False):
            states, last = self.cell(features.float(), state)
        return states, tuple(last)


class GRU(_Recurrent):
    """A GRU; its state is the hidden state.

    Args:
        in_features: the size of the feature of a frame.
        num_units: the size of the state.
    """

    def __init__(self, in_features: int, num_units: int) -> None:
        super().__init__(in_features, num_units)
        self.cell = nn.GRU(in_features, num_units, batch_first=True)

    def initial_state(self, batch: int) -> State:
        """Return zeros."""
        return (self._zeros(batch),)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the state at every frame, and the state to pass in with the next frames."""
        self._check(features, state, 1)
        with torch.autocast(features.device.type, enabled=False):
            states, last = self.cell(features.float(), *state)
        return states, (last,)


TEMPORAL: dict[str, Callable[[int, int], Any]] = {"lstm": LSTM, "gru": GRU}
"""Constructors of temporal parts by name; each takes the sizes of a feature and of a state."""
