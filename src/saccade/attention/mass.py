"""Attention as mass: weighted points in the frame, and how much of the weight falls on each object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saccade.attention.attribution import tap_weight
from saccade.attention.forward import Seen
from saccade.attention.geometry import Size, all_positions, through_map
from saccade.attention.route import Deformable


class Mass(NamedTuple):
    """Points (y, x) in pixels, the same for all frames or different for each, and the weight of each point."""

    points_px: Float[Tensor, "#frames points 2"]
    weight: Float[Tensor, "frames points"]


def of_pixels(maps: Float[Tensor, "frames height width"]) -> Mass:
    """Return maps, for example of saliency or brightness, as mass at the centres of the pixels.

    Mass spread over the square of each pixel would give the same mass in a box with integer edges.
    """
    positions = all_positions((maps.shape[-2], maps.shape[-1])).to(maps.device)
    return Mass(positions.unsqueeze(0), maps.flatten(1))


def of_sampled_area(maps: Float[Tensor, "frames glimpses 2 3"], crop_size: Size, frame_size: Size) -> Mass:
    """Return the mass of the areas that a spatial transformer samples; each pixel of its crops has the same weight."""
    pixels = all_positions(crop_size).to(maps).unsqueeze(0)
    points = through_map(maps.flatten(0, 1), pixels, crop_size=crop_size, frame_size=frame_size)
    points = points.unflatten(0, maps.shape[:2]).flatten(1, 2)
    return Mass(points, points.new_ones(points.shape[:2]))


def of_sampling_points(seen: Seen, output_gradients: dict[int, Tensor], *, moved: bool = True) -> Mass:
    """Return the points where layers with offsets sample the frame, weighted by how much a score depends on them.

    These are the points of every unit of the shallowest layer with offsets. Their weight is the absolute gradient with
    respect to the values sampled there. This gradient has passed back through the taps of all deeper layers at the
    positions to which their offsets move them, so it accounts for the deeper layers exactly. A drawing, in contrast,
    interpolates offsets between positions.

    Args:
        seen: the record of the forward pass through the encoder.
        output_gradients: the gradients of the score with respect to the output of each stage with offsets.
        moved: whether the offsets of the shallowest layer move the points. If False, the same weights lie where a plain
            layer samples, so that the difference is the effect of the offsets alone.
    """
    stage = seen.said.route.deformable[0]
    layer = seen.said.route.stages[stage].layer
    assert isinstance(layer, Deformable)
    weight = tap_weight(layer, seen.said.positions[stage], output_gradients[stage])
    points = seen.said.to_frame(stage, seen.said.taps[stage].everywhere(moved=moved))
    return Mass(points.flatten(1, 2), weight.flatten(2).mT.flatten(1))


def mass_ratio(
    mass: Mass, box_px: Int64[Tensor, "frames things 4"], frame_size: Size
) -> Float[Tensor, "frames things"]:
    """Return the share of the mass in each box divided by the box's share of the frame's area; 1 is chance.

    *Conventions:* boxes are as in `Poses`: (top, left, bottom, right) in whole pixels, bottom and right exclusive. Mass
    outside the frame is ignored. The ratio is NaN if the box is empty or the frame has no mass.

    >>> everywhere = of_pixels(torch.ones(1, 8, 8))
    >>> mass_ratio(everywhere, torch.tensor([[[0, 0, 4, 4], [0, 0, 0, 0]]]), (8, 8)).tolist()
    [[1.0, nan]]
    """
    height, width = frame_size
    frame = torch.tensor([[[0, 0, height, width]]], device=box_px.device).expand(len(box_px), 1, 4)
    total, *_ = _mass_inside(mass, frame).unbind(1)
    top, left, bottom, right = box_px.unbind(-1)
    share = ((bottom - top) * (right - left)) / (height * width)
    ratio = _mass_inside(mass, box_px) / total.unsqueeze(1) / share
    return torch.where((share > 0) & (total > 0).unsqueeze(1), ratio, torch.nan)


def _mass_inside(mass: Mass, box_px: Int64[Tensor, "frames things 4"]) -> Float[Tensor, "frames things"]:
    # Pixel centres have whole coordinates, so each edge of a box lies half a pixel before the pixel that it names.
    top, left, bottom, right = (box_px.to(mass.points_px.dtype) - 0.5).unsqueeze(-1).unbind(2)
    y, x = mass.points_px.unsqueeze(1).unbind(-1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(inside, mass.weight.unsqueeze(1), 0).sum(-1)
