"""Attention as mass: points of the frame with weights, and how much of it falls on each thing."""

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
    """Points (y, x) in pixels of each frame, the same in all frames or not, and how much each weighs."""

    points_px: Float[Tensor, "#frames points 2"]
    weight: Float[Tensor, "frames points"]


def of_pixels(maps: Float[Tensor, "frames height width"]) -> Mass:
    """Return maps, such as saliency or brightness, as mass at the centres of the pixels.

    Pixels are small beside a thing: taken as squares instead, they would give a box with whole edges the same mass.
    """
    positions = all_positions((maps.shape[-2], maps.shape[-1])).to(maps.device)
    return Mass(positions.unsqueeze(0), maps.flatten(1))


def of_sampled_area(theta: Float[Tensor, "frames 2 3"], crop_size: Size, frame_size: Size) -> Mass:
    """Return where a spatial transformer samples: each pixel of its crop weighs the same."""
    pixels = all_positions(crop_size).to(theta).unsqueeze(0)
    points = through_map(theta, pixels, crop_size=crop_size, frame_size=frame_size)
    return Mass(points, points.new_ones(points.shape[:2]))


def of_sampling_points(seen: Seen, output_gradients: dict[int, Tensor], *, moved: bool = True) -> Mass:
    """Return where layers with offsets sample the frame, each point weighted by how much a score depends on it.

    These are the points of every unit of the shallowest such layer, weighted by the absolute gradient with respect to
    the values sampled there. That gradient has come back through the taps of all deeper layers, each where its offsets
    moved it, and so composes their points with these exactly; nothing is interpolated, as it has to be for a drawing.

    Args:
        seen: what went through the encoder.
        output_gradients: of the score, with respect to the output of each stage with offsets.
        moved: whether the offsets of that layer move the points; without, the same weights lie where a plain layer
            samples, so that the difference is what the offsets alone do.
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
    """Return the mass in each box divided by the box's share of the frame's area: 1 where attention is blind to it.

    *Conventions:* boxes as in `Poses`: top, left, bottom, right in whole pixels, the last two exclusive. Mass outside
    the frame does not count. NaN where a box is empty or no mass lies in the frame.

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
    # The edges of a box lie half a pixel before the centres of its first pixels, and before those behind its last.
    top, left, bottom, right = (box_px.to(mass.points_px.dtype) - 0.5).unsqueeze(-1).unbind(2)
    y, x = mass.points_px.unsqueeze(1).unbind(-1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(inside, mass.weight.unsqueeze(1), 0).sum(-1)
