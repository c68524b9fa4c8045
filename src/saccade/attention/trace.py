"""Trace units of an encoder back to the frame, through every attention layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saccade.attention.geometry import Grid, Size, grid_of, per_axis, read_between, through_map
from saccade.attention.route import Deformable, Route
from saccade.attention.taps import Taps, taps_of
from saccade.nn import SpatialTransformer


@dataclass(frozen=True)
class Said:
    """The outputs of a route's attention layers for some frames.

    Args:
        route: the route.
        positions: the output of each stage's `positions`.
        sizes: (height, width) of each stage's input and of its output.
        frame_size: (height, width) of the frames.
    """

    route: Route
    positions: Sequence[Tensor]
    sizes: Sequence[tuple[Size, Size]]
    frame_size: Size

    def below(self, index: int) -> Grid:
        """Return the grid of a stage's input map in the output of the previous stage, or in the frame."""
        size = self.frame_size if index == 0 else self.sizes[index - 1][1]
        return grid_of(self.route.stages[index].below, size)

    def maps(self, index: int) -> Float[Tensor, "frames glimpses 2 3"]:
        """Return the affine maps of a stage that is a spatial transformer."""
        layer = self.route.stages[index].layer
        assert isinstance(layer, SpatialTransformer)
        return layer.maps(self.positions[index], self.sizes[index][0])

    @cached_property
    def taps(self) -> dict[int, Taps]:
        """The taps of each stage with offsets, by the index of the stage."""
        stages = enumerate(zip(self.route.stages, self.positions, strict=True))
        return {at: taps_of(stage.layer, said) for at, (stage, said) in stages if isinstance(stage.layer, Deformable)}

    def to_frame(
        self, index: int, positions: Float[Tensor, "frames units points 2"]
    ) -> Float[Tensor, "frames units points 2"]:
        """Map positions in the input map of a stage to the frame, ignoring the offsets of the stages below."""
        positions = self.below(index).place(positions)
        if index == 0:
            return positions
        return self.to_frame(index - 1, self.centres(index - 1, positions))

    def centres(
        self, index: int, positions: Float[Tensor, "frames units points 2"]
    ) -> Float[Tensor, "frames units points 2"]:
        """Map output positions of a stage to its input map, ignoring its offsets if it has any."""
        if isinstance(self.route.stages[index].layer, SpatialTransformer):
            return self._crop_to_map(index, positions)
        taps = self.taps[index]
        return positions * per_axis(taps.stride, positions) + taps.base_px.mean(0)

    def trace(
        self,
        index: int,
        positions: Float[Tensor, "frames units points 2"],
        share: Float[Tensor, "frames units points"],
        tap_weights: Mapping[int, Float[Tensor, "frames taps height width"]],
        channel: Int64[Tensor, "frames units"] | None = None,
    ) -> tuple[Float[Tensor, "frames units all 2"], Float[Tensor, "frames units all"]]:
        """Trace output positions of a stage through all taps to points in the frame, and divide their weights.

        A tap of a deeper layer lies between positions of the layer below. The offsets of the layer below are
        interpolated bilinearly there, and the trace continues at all of its taps. The weight is divided among these
        taps in proportion to `tap_weights`, or evenly for a stage that has none.

        Args:
            index: the index of the stage.
            positions: positions in the output map of the stage.
            share: the weight of each position.
            tap_weights: for stages with offsets, the weight of each tap at each position.
            channel: for an `OffsetResample2d`, the only channel (frames, units) whose offsets are used in this stage.

        Source: Dai et al. 2017, figure 6.
        """
        stage = self.route.stages[index]
        if isinstance(stage.layer, SpatialTransformer):
            found, divided = self._crop_to_map(index, positions), share
        else:
            found, divided = self._divide(index, positions, share, tap_weights.get(index), channel)
        found = self.below(index).place(found)
        return (found, divided) if index == 0 else self.trace(index - 1, found, divided, tap_weights)

    def _divide(
        self, index: int, positions: Tensor, share: Tensor, weights: Tensor | None, channel: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        found = self.taps[index].at(positions)
        if channel is not None:
            chosen = channel[:, :, None, None].expand(*found.shape[:3], 1)
            found = found.gather(3, chosen.unsqueeze(-1).expand(*chosen.shape, 2))
            parts = torch.ones_like(chosen, dtype=share.dtype)
        elif weights is None:
            parts = share.new_full(found.shape[:-1], 1 / found.shape[-2])
        else:
            parts = normalised(read_between(weights, positions), (-1,))
        return found.flatten(2, 3), (share.unsqueeze(-1) * parts).flatten(2, 3)

    def _crop_to_map(self, index: int, positions: Tensor) -> Tensor:
        below, crop = self.sizes[index]
        # Nothing is traced through several glimpses, see `route_of`.
        found = through_map(self.maps(index)[:, 0], positions.flatten(1, 2), crop_size=crop, frame_size=below)
        return found.view(len(found), -1, *positions.shape[2:])


def normalised(weights: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Divide weights by their sum over some dimensions; weights that are all zero stay zero."""
    total = weights.sum(dims, keepdim=True)
    return torch.where(total > 0, weights / total, 0)
