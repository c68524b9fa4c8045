"""The sampling positions of a layer with offsets, in its input map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.attention.geometry import Pair, Size, all_positions, as_pair, per_axis, read_between
from saccade.attention.route import Deformable
from saccade.nn import OffsetResample2d


class Taps(NamedTuple):
    """Where a layer with offsets samples: output position p samples at `p * stride + base + offset` for each tap."""

    stride: Pair
    base_px: Float[Tensor, "taps 2"]
    offset_px: Float[Tensor, "frames taps 2 height width"]
    clip_to: Size | None  # a resampling layer moves outside positions to the border; a convolution reads zeros there

    @property
    def size(self) -> Size:
        """Height and width of the layer's output."""
        return self.offset_px.shape[-2], self.offset_px.shape[-1]

    def around(
        self, positions: Float[Tensor, "frames units points 2"], offset_px: Float[Tensor, "frames units points taps 2"]
    ) -> Float[Tensor, "frames units points taps 2"]:
        """Return the positions of the taps of output positions in the layer's input, moved by offsets."""
        centre = positions * per_axis(self.stride, positions)
        found = centre.unsqueeze(-2) + self.base_px + offset_px
        if self.clip_to is None:
            return found
        return torch.minimum(found.clamp(min=0), found.new_tensor(self.clip_to) - 1)

    def at(self, positions: Float[Tensor, "frames units points 2"]) -> Float[Tensor, "frames units points taps 2"]:
        """Return where output positions sample; between whole positions, offsets are interpolated bilinearly."""
        offset = read_between(self.offset_px.flatten(1, 2), positions).unflatten(-1, (-1, 2))
        return self.around(positions, offset)

    def everywhere(self, *, moved: bool = True) -> Float[Tensor, "frames positions taps 2"]:
        """Return where every output position samples, row by row; if not `moved`, where a plain layer samples."""
        positions = all_positions(self.size).to(self.base_px).view(1, -1, 1, 2)
        offset = self.offset_px.flatten(-2).permute(0, 3, 1, 2)
        return self.around(positions, offset.unsqueeze(2) * moved).squeeze(2)


def taps_of(layer: Deformable, said: Float[Tensor, "frames channels height width"]) -> Taps:
    """Return the taps of a layer, given the output of its `positions`.

    The taps of a `DeformConv2d` are ordered by offset group. An `OffsetResample2d` has one tap for each channel.
    """
    if isinstance(layer, OffsetResample2d):
        size = said.shape[-2], said.shape[-1]
        return Taps((1.0, 1.0), said.new_zeros(said.shape[1] // 2, 2), said.float().unflatten(1, (-1, 2)), size)
    offset = layer.offset_px(said).unflatten(1, (-1, 2))
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    base = all_positions(kernel).to(said)
    base = base * per_axis(as_pair(layer.dilation), base) - per_axis(as_pair(layer.padding), base)
    return Taps(as_pair(layer.stride), base.repeat(offset.shape[1] // len(base), 1), offset, None)
