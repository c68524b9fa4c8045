"""Where the taps of a layer with offsets lie in the map that it samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.attention.geometry import Pair, Size, all_positions, as_pair, per_axis, read_between
from saccade.attention.route import Deformable
from saccade.nn import OffsetResample2d


class Taps(NamedTuple):
    """Where a layer with offsets samples: output position p looks at `p * stride + base + offset`, tap by tap."""

    stride: Pair
    base_px: Float[Tensor, "taps 2"]
    offset_px: Float[Tensor, "frames taps 2 height width"]
    clip_to: Size | None  # a resampling layer moves what lies outside to the border; a convolution sees zeros there

    @property
    def size(self) -> Size:
        """Height and width of the layer's output."""
        return self.offset_px.shape[-2], self.offset_px.shape[-1]

    def around(
        self, positions: Float[Tensor, "frames units points 2"], offset_px: Float[Tensor, "frames units points taps 2"]
    ) -> Float[Tensor, "frames units points taps 2"]:
        """Return where the taps of output positions lie in the layer's input, moved by offsets."""
        centre = positions * per_axis(self.stride, positions)
        found = centre.unsqueeze(-2) + self.base_px + offset_px
        if self.clip_to is None:
            return found
        return torch.minimum(found.clamp(min=0), found.new_tensor(self.clip_to) - 1)

    def at(self, positions: Float[Tensor, "frames units points 2"]) -> Float[Tensor, "frames units points taps 2"]:
        """Return where output positions look; between them, their offsets are interpolated bilinearly."""
        offset = read_between(self.offset_px.flatten(1, 2), positions).unflatten(-1, (-1, 2))
        return self.around(positions, offset)

    def everywhere(self, *, moved: bool = True) -> Float[Tensor, "frames positions taps 2"]:
        """Return where every output position looks, row by row; unmoved, where a plain layer would."""
        positions = all_positions(self.size).to(self.base_px).view(1, -1, 1, 2)
        offset = self.offset_px.flatten(-2).permute(0, 3, 1, 2)
        return self.around(positions, offset.unsqueeze(2) * moved).squeeze(2)


def taps_of(layer: Deformable, said: Float[Tensor, "frames channels height width"]) -> Taps:
    """Return where a layer samples, from what its `positions` said.

    The taps of a `DeformConv2d` are those of each offset group, one group after the other; an `OffsetResample2d` has
    one for each channel.
    """
    if isinstance(layer, OffsetResample2d):
        size = said.shape[-2], said.shape[-1]
        return Taps((1.0, 1.0), said.new_zeros(said.shape[1] // 2, 2), said.float().unflatten(1, (-1, 2)), size)
    offset = layer.offset_px(said).unflatten(1, (-1, 2))
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    base = all_positions(kernel).to(said)
    base = base * per_axis(as_pair(layer.dilation), base) - per_axis(as_pair(layer.padding), base)
    return Taps(as_pair(layer.stride), base.repeat(offset.shape[1] // len(base), 1), offset, None)
