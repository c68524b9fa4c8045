"""Which glimpse of a spatial transformer covers which object, and whether each object has a glimpse of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

COVERED = ("iou", "covered", "one_each", "alone")
"""The figures of `covering`."""


class Covering(NamedTuple):
    """Figures of each frame; NaN in a frame that does not show all objects.

    Args:
        iou: the intersection over union of an object's box and the glimpse that covers it best; 0 if its centre is in
            no glimpse. The mean over objects.
        covered: the fraction of the objects whose centre lies in a glimpse.
        one_each: whether the centre of every object is in a glimpse, and no two objects have the same best glimpse.
        alone: whether every object has a glimpse that shows its centre and no other object's centre.
    """

    iou: Float[Tensor, "frames"]
    covered: Float[Tensor, "frames"]
    one_each: Float[Tensor, "frames"]
    alone: Float[Tensor, "frames"]


def covering(
    quadrilateral_px: Float[Tensor, "frames glimpses 4 2"],
    box_px: Int64[Tensor, "frames things 4"],
    present: Bool[Tensor, "frames things"],
) -> Covering:
    """Return how glimpses cover objects.

    An object's best glimpse is the one of the largest intersection over union, among those that its centre lies in.

    *Conventions:* quadrilaterals as in `Look`, boxes as in `Poses`.

    Args:
        quadrilateral_px: the area of each glimpse.
        box_px: the box of each object; empty in frames that do not show it.
        present: which objects the clip of a frame has.

    >>> left = torch.tensor([[-0.5, -0.5], [-0.5, 7.5], [7.5, 7.5], [7.5, -0.5]])
    >>> both = torch.stack((left, left + torch.tensor([0.0, 8.0]))).unsqueeze(0)
    >>> things = torch.tensor([[[0, 0, 8, 8], [0, 8, 8, 12]]])
    >>> [figure.item() for figure in covering(both, things, torch.ones(1, 2, dtype=torch.bool))]
    [0.75, 1.0, 1.0, 1.0]
    """
    boxes = box_px.to(quadrilateral_px.dtype) - 0.5
    inside = centre_inside(quadrilateral_px, boxes) & present.unsqueeze(-1)
    overlap = torch.where(inside, intersection_over_union(quadrilateral_px, boxes), 0.0)
    found, best = overlap.max(-1)
    covered = inside.any(-1)
    num = present.sum(-1)
    # An object that has no glimpse gets a number of its own, so that it is nobody's rival.
    things = torch.arange(present.shape[1], device=best.device)
    best = torch.where(covered, best, quadrilateral_px.shape[1] + things)
    same = (best.unsqueeze(-1) == best.unsqueeze(-2)).sum(-1) > 1
    is_covered = (covered | ~present).all(-1)
    alone = (inside & (inside.sum(-2, keepdim=True) == 1)).any(-1)
    figures = (
        found.sum(-1) / num,
        covered.sum(-1) / num,
        is_covered & ~same.any(-1),
        (alone | ~present).all(-1),
    )
    # As everywhere in measurements: frames count that show all objects of the clip.
    shown = (_area_of(boxes) > 0) | ~present
    counts = shown.all(-1) & (num > 0)
    return Covering(*(torch.where(counts, figure.to(found.dtype), torch.nan) for figure in figures))


def centre_inside(
    corners: Float[Tensor, "frames glimpses 4 2"], boxes: Float[Tensor, "frames things 4"]
) -> Bool[Tensor, "frames things glimpses"]:
    """Return whether the centres of boxes lie in quadrilaterals whose sides are straight and do not cross."""
    top, left, bottom, right = boxes.unbind(-1)
    centre = torch.stack((top + bottom, left + right), -1) / 2
    start = corners.unsqueeze(1)
    side = start.roll(-1, -2) - start
    to_centre = centre[:, :, None, None] - start
    # All on the same side of the four edges, whichever way round the corners go.
    turn = side[..., 0] * to_centre[..., 1] - side[..., 1] * to_centre[..., 0]
    return (turn >= 0).all(-1) | (turn <= 0).all(-1)


def intersection_over_union(
    corners: Float[Tensor, "frames glimpses 4 2"], boxes: Float[Tensor, "frames things 4"]
) -> Float[Tensor, "frames things glimpses"]:
    """Return the exact intersection over union of quadrilaterals and upright boxes, by their edges."""
    limits = boxes.unsqueeze(2).unbind(-1)
    polygon = corners.unsqueeze(1).expand(-1, boxes.shape[1], -1, -1, -1)
    for axis in (0, 1):
        polygon = _cut(polygon, axis, limits[axis], upper=False)
        polygon = _cut(polygon, axis, limits[axis + 2], upper=True)
    common = _polygon_area(polygon)
    union = _polygon_area(corners).unsqueeze(1) + _area_of(boxes).unsqueeze(2) - common
    return torch.where(union > 0, common / union, 0.0)


def _cut(polygon: Tensor, axis: int, limit: Float[Tensor, "frames things 1"], *, upper: bool) -> Tensor:
    """Cut off what of polygons lies beyond a limit.

    Each edge gets a further corner where it crosses the limit, or at one of its ends. Corners beyond are then moved to
    the limit, where their edges enclose no area.
    """
    limit = limit.unsqueeze(-1)
    along, step = polygon[..., axis], polygon.roll(-1, -2)[..., axis] - polygon[..., axis]
    part = torch.where(step == 0, 0.0, (limit - along) / torch.where(step == 0, 1.0, step)).clamp(0, 1)
    crossing = polygon + part.unsqueeze(-1) * (polygon.roll(-1, -2) - polygon)
    both = torch.stack((polygon, crossing), -2).flatten(-3, -2)
    kept = torch.minimum(both[..., axis], limit) if upper else torch.maximum(both[..., axis], limit)
    return torch.stack((kept, both[..., 1]) if axis == 0 else (both[..., 0], kept), -1)


def _polygon_area(polygon: Float[Tensor, "*any corners 2"]) -> Float[Tensor, "*any"]:
    (y, x), (next_y, next_x) = polygon.unbind(-1), polygon.roll(-1, -2).unbind(-1)
    return (y * next_x - x * next_y).sum(-1).abs() / 2


def _area_of(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any"]:
    top, left, bottom, right = boxes.unbind(-1)
    return (bottom - top).clamp(min=0) * (right - left).clamp(min=0)
