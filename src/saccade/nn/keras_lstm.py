"""The LSTM of Keras 2.0 (2017), which differs from torch's by hard-sigmoid gates and a single bias."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.shapes import check_shape


def hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Approximate the sigmoid by a straight line of slope 0.2, cut off at 0 and 1.

    This is not `torch.nn.functional.hardsigmoid`, whose slope is 1/6.

    >>> hard_sigmoid(torch.tensor([-3.0, 0.0, 1.0, 3.0])).tolist()
    [0.0, 0.5, 0.699999988079071, 1.0]

    Source: Keras 2.0, `keras.backend.hard_sigmoid`.
    """
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


@final
class KerasLSTM(nn.Module):
    """An LSTM whose gates are hard sigmoids with one bias each.

    *Conventions:* the rows of `weight`, `recurrent` and `bias` hold the gates in Keras's order: input,
    forget, candidate, output. The states start at zero.

    Weights are initialised as in Keras: `weight` Glorot-uniform, `recurrent` orthogonal, `bias` zero except for
    the forget gate, where it is 1. Both matrices are drawn with the four gates packed together, as in Keras 2.

    Args:
        in_features: the length of the input vector of one time step.
        hidden: the number of units, which is the length of a state.

    >>> KerasLSTM(500, 8)(torch.zeros(2, 50, 500)).shape
    torch.Size([2, 50, 8])
    >>> sum(p.numel() for p in KerasLSTM(500, 8).parameters())
    16288

    Source: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, as in Keras 2.0.
    """

    def __init__(self, in_features: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight = nn.Parameter(torch.empty(4 * hidden, in_features))
        self.recurrent = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights; the same generator state draws the same weights."""
        nn.init.xavier_uniform_(self.weight, generator=generator)
        nn.init.orthogonal_(self.recurrent, generator=generator)
        with torch.no_grad():
            self.bias.zero_()
            self.bias[self.hidden : 2 * self.hidden] = 1.0

    def forward(self, inputs: Float[Tensor, "batch time in_features"]) -> Float[Tensor, "batch time hidden"]:
        """Return the state after every time step."""
        check_shape("inputs", inputs, "batch", "time", self.weight.shape[1])
        # Autocast off: the sum over the steps loses precision in bfloat16.
        with torch.autocast(inputs.device.type, enabled=False):
            projected = F.linear(inputs.to(self.weight.dtype), self.weight, self.bias)
            state = cell = projected.new_zeros(len(inputs), self.hidden)
            states = []
            for now in projected.unbind(1):
                gates = now + F.linear(state, self.recurrent)
                enter, keep, candidate, leave = gates.chunk(4, dim=-1)
                cell = hard_sigmoid(keep) * cell + hard_sigmoid(enter) * candidate.tanh()
                state = hard_sigmoid(leave) * cell.tanh()
                states.append(state)
        return torch.stack(states, dim=1)

    def extra_repr(self) -> str:
        """Show the sizes in the printed module."""
        return f"{self.weight.shape[1]}, {self.hidden}"
