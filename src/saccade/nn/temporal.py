"""Causal temporal parts, which turn a sequence of features into states.

To add one, write a class here and list it in `TEMPORAL`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.shapes import check_shape

State = tuple[Tensor, ...]
"""The state after earlier frames, in fixed shapes; the batch is the first dimension, or the second after layers."""


class Temporal(Protocol):
    """A module that reads features in order of time and returns a state for every frame.

    *Conventions:* (batch, time, features); the output at a frame depends on that frame and those before it.
    """

    in_features: int
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
        weight: Tensor = self.cell.weight_ih_l0  # type: ignore[assignment]
        return weight.new_zeros(1, batch, self.num_units)


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
        _check(self, features, state)
        with torch.autocast(features.device.type, enabled=False):
            if features.shape[1] == 1 and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
                return self._next(features.float(), state)
            states, last = self.cell(features.float(), state)
        return states, tuple(last)

    def _next(self, features: Float[Tensor, "batch 1 features"], state: State) -> tuple[Tensor, State]:
        """Return what the layer does for a single frame, in a sixth of its time: it arranges its weights anew."""
        weights = list(self.cell.parameters())  # in the order of `lstm_cell`
        hidden, long = torch.lstm_cell(features[:, 0], [part[0] for part in state], *weights)
        return hidden.unsqueeze(1), (hidden.unsqueeze(0), long.unsqueeze(0))


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
        _check(self, features, state)
        with torch.autocast(features.device.type, enabled=False):
            states, last = self.cell(features.float(), *state)
        return states, (last,)


class Mean(nn.Module):
    """The running mean and standard deviation of the features, mixed by a linear layer; its state is their sums.

    The sums are float64, so that ten thousand frames in chunks of any size give what one pass gives.

    *Conventions:* the standard deviation is that of the frames so far, without Bessel's correction, and at least 1e-4.

    Args:
        in_features: the size of the feature of a frame.
        num_units: the size of the output.
    """

    def __init__(self, in_features: int, num_units: int) -> None:
        super().__init__()
        self.in_features, self.num_units = in_features, num_units
        self.linear = nn.Linear(2 * in_features, num_units)

    def initial_state(self, batch: int) -> State:
        """Return zeros: the number of frames, the sum of the features and the sum of their squares."""
        sums = (self.linear.weight.new_zeros(batch, size, dtype=torch.float64) for size in (1, *[self.in_features] * 2))
        return tuple(sums)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the output at every frame, and the state to pass in with the next frames."""
        _check(self, features, state)
        exact = features.double()
        of_frames = torch.ones_like(exact[..., :1]), exact, exact.square()
        count, total, squares = (
            so_far.unsqueeze(1) + new.cumsum(1) for so_far, new in zip(state, of_frames, strict=True)
        )
        mean = total / count
        # The square root has no gradient at 0, which is the variance of a single frame.
        deviation = ((squares / count - mean.square()).clamp(min=0) + 1e-8).sqrt()
        with torch.autocast(features.device.type, enabled=False):
            mixed: Tensor = self.linear(torch.cat((mean, deviation), -1).float())
        return mixed, (count[:, -1], total[:, -1], squares[:, -1])


class Transformer(nn.Module):
    """A causal transformer over a window of frames; its state is the keys and values of the frames before.

    In each layer a frame reads itself and the `window - 1` frames before it, so the output depends on
    `num_layers * (window - 1)` earlier frames. Rotary positions make the distance between frames count, not their
    number in the clip, and a stream may run for any time.

    Args:
        in_features: the size of the feature of a frame.
        num_units: the size of the output.
        window: the number of frames that a frame reads in a layer, itself included.
        width: the number of channels between the layers.
        num_heads: the number of parallel attentions, which share the channels.
        num_layers: the number of layers.

    Raises:
        ValueError: if the window is empty, or the heads do not divide the channels into even parts.

    Source: Vaswani et al. 2017, arXiv 1706.03762; rotary positions: Su et al. 2021, arXiv 2104.09864; normalisation
    before each part: Xiong et al. 2020, arXiv 2002.04745.
    """

    def __init__(
        self,
        in_features: int,
        num_units: int,
        *,
        window: int = 64,
        width: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window} frames; at least 1 is needed, for the frame itself")
        if width % (2 * num_heads):
            raise ValueError(
                f"width is {width}; {num_heads} heads with rotary positions need a multiple of {2 * num_heads}"
            )
        self.in_features, self.num_units = in_features, num_units
        self.window, self.width, self.num_pairs = window, width, width // num_heads // 2
        self.to_width = nn.Linear(in_features, width)
        self.layers = nn.ModuleList(_WindowedLayer(width, num_heads) for _ in range(num_layers))
        self.to_units = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_units))

    def initial_state(self, batch: int) -> State:
        """Return zeros: keys and values by layer, and the number of frames that they hold."""
        weight = self.to_width.weight
        past = weight.new_zeros(2, len(self.layers), batch, self.window - 1, self.width)
        return past[0], past[1], weight.new_zeros(batch, dtype=torch.int64)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the output at every frame, and the state to pass in with the next frames."""
        _check(self, features, state)
        read = []
        with torch.autocast(features.device.type, enabled=False):
            # A window at a time, so that memory grows with the number of frames and not with its square.
            for some in features.float().split(self.window, 1):
                states, state = self._read(some, state)
                read.append(states)
        return torch.cat(read, 1), state

    def _read(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        keys, values, count = state
        num_before, num_new = self.window - 1, features.shape[1]
        # Frames are counted from the first new one: rounding does not grow with the length of a stream.
        frame = torch.arange(-num_before, num_new, device=features.device)
        distance = frame[num_before:, None] - frame
        seen = (distance >= 0) & (distance < self.window) & (frame >= -count[:, None, None])
        # Each pair of channels turns at its own rate.
        rate = 10_000.0 ** (-torch.arange(self.num_pairs, device=features.device) / self.num_pairs)
        angle = frame[:, None] * rate
        turn = torch.stack((angle.cos(), angle.sin()))
        hidden, past = self.to_width(features), []
        for layer, *before in zip(self.layers, keys, values, strict=True):
            hidden, *after = layer(hidden, *before, turn, seen.unsqueeze(1))
            past.append([part[:, num_new:] for part in after])
        keys, values = (torch.stack(parts) for parts in zip(*past, strict=True))
        return self.to_units(hidden), (keys, values, (count + num_new).clamp(max=num_before))


class _WindowedLayer(nn.Module):
    """A layer of a transformer in which new frames read themselves and the frames before them."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.to_heads = nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False)
        self.from_heads = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor, turn: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new frames after this layer, and keys and values of all frames, before any rotation."""
        queries, *new = self.to_heads(self.norm(hidden)).chunk(3, -1)
        keys, values = (torch.cat(parts, 1) for parts in zip((keys, values), new, strict=True))
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)
        )
        query, key = _rotated(query, turn[:, -hidden.shape[1] :]), _rotated(key, turn)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        hidden = hidden + self.from_heads(read.transpose(1, 2).flatten(2))
        return hidden + self.feed_forward(hidden), keys, values


def _rotated(
    heads: Float[Tensor, "batch heads time size"], turn: Float[Tensor, "2 time pairs"]
) -> Float[Tensor, "batch heads time size"]:
    """Turn each pair of channels, one of each half, by an angle whose cosine and sine are given."""
    (one, other), (cosine, sine) = heads.chunk(2, -1), turn
    return torch.cat((one * cosine - other * sine, one * sine + other * cosine), -1)


def _check(part: Temporal, features: Tensor, state: State) -> None:
    check_shape("features", features, "batch", "time", part.in_features)
    shapes, wanted = ([tuple(one.shape) for one in each] for each in (state, part.initial_state(len(features))))
    if shapes != wanted:
        raise ValueError(f"state has shapes {shapes}; features of shape {tuple(features.shape)} need {wanted}")


TEMPORAL: dict[str, Callable[[int, int], Any]] = {
    "lstm": LSTM,
    "gru": GRU,
    "mean": Mean,
    "transformer": Transformer,
}
"""Constructors of temporal parts by name; each takes the sizes of a feature and of a state."""
