"""Where a model looked, frame by frame."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from saccade.attention.attribution import map_saliency, saliency_of, verdict_gradients
from saccade.attention.forward import Frames, Seen, run
from saccade.attention.geometry import all_positions, grid_of, quadrilateral
from saccade.attention.route import labels_of, route_of
from saccade.attention.units import points_of, strongest, strongest_field
from saccade.labels import Labels
from saccade.nn.temporal import State

MAX_ARROWS = 16
"""The maximum number of arrows along each axis in a frame's JSON, so that a drawing stays readable."""

MAX_POINTS = 243
"""The maximum number of sampling points of a unit in a frame's JSON."""


@dataclass(frozen=True)
class Look:
    """Where a model looked in consecutive frames of one clip, and its logits.

    *Conventions:* positions are (y, x) in pixels of the model's input frame. The centre of the upper left pixel is
    (0, 0), so the frame extends from -0.5 to height - 0.5. An attribute is None if the model has no such part.

    Args:
        logits: the logits at every frame; only at the last frame for a model that reads whole clips.
        frame_size: height and width.
        quadrilateral_px: the corners of the area that each glimpse of the spatial transformer samples, in the order
            upper left, upper right, lower right, lower left of the crop. A plain transformer has one glimpse per frame.
        theta: the affine map of each glimpse from crop to frame, as in `SpatialTransformer`.
        crop: the crop of each glimpse, which is the encoder's input, in [0, 1].
        points_px: where the strongest units of the deepest layer with offsets sample, traced through all layers with
            offsets.
        point_weight: the weight of each point; the weights sum to 1 in each frame.
        unit_px: the centre of each of these units without offsets.
        arrows_px: the offsets of the shallowest layer with offsets, as start and end in the frame, averaged over taps
            and channels.
        saliency: the absolute gradient of the verdict's score with respect to each pixel; for a model on a trunk for
            pictures, what each place of its map adds to the score, see `attribution.map_saliency`. It sums to 1 in each
            frame, or is all zero. None if it was not requested.
        receptive_field: the absolute gradient of the strongest unit with respect to each pixel, in the same form. The
            unit is the first of the units above, or the strongest of the last feature map in a model without offsets.
            None if it was not requested.
    """

    logits: Float[Tensor, "time classes"]
    frame_size: tuple[int, int]
    quadrilateral_px: Float[Tensor, "time glimpses 4 2"] | None = None
    theta: Float[Tensor, "time glimpses 2 3"] | None = None
    crop: Float[Tensor, "time glimpses channels out_height out_width"] | None = None
    points_px: Float[Tensor, "time units points 2"] | None = None
    point_weight: Float[Tensor, "time units points"] | None = None
    unit_px: Float[Tensor, "time units 2"] | None = None
    arrows_px: Float[Tensor, "time rows columns 2 2"] | None = None
    saliency: Float[Tensor, "time height width"] | None = None
    receptive_field: Float[Tensor, "time height width"] | None = None

    def frame_json(self, t: int) -> dict[str, Any]:
        """Return the data for a drawing of frame `t` as JSON values; a part that the model does not have is None.

        *Conventions:* positions are as for the class. Images are 8-bit levels, row by row, in base64: `pixels` of a
        crop has one byte per channel, and `grey` of a gradient is scaled so that the frame's maximum is 255. `field` is
        the receptive field. `quad` has four corners for each glimpse, one glimpse after the other, and `crop` is the
        picture of all, see `tiled`. If there are more than `MAX_ARROWS` rows or columns of arrows, only every second,
        third ... is kept, and of each unit the `MAX_POINTS` points of the largest weights.
        """
        return {
            "quad": None if self.quadrilateral_px is None else _rounded(self.quadrilateral_px[t].flatten(0, 1)),
            "crop": None if self.crop is None else _pixels(tiled(self.crop[t].unsqueeze(0))[0]),
            "points": self._points_json(t),
            "units": None if self.unit_px is None else _rounded(self.unit_px[t]),
            "arrows": self._arrows_json(t),
            "saliency": None if self.saliency is None else _picture(_to_one(self.saliency[t])),
            "field": None if self.receptive_field is None else _picture(_to_one(self.receptive_field[t])),
        }

    def _points_json(self, t: int) -> list[list[float]] | None:
        if self.points_px is None or self.point_weight is None:
            return None
        places, weights = self.points_px[t], self.point_weight[t]
        # Taps of taps of taps are thousands of points, most of which are too faint to see.
        kept = weights.topk(min(MAX_POINTS, weights.shape[1]), 1).indices.sort(1).values
        places = places.gather(1, kept.unsqueeze(2).expand(-1, -1, 2)).flatten(0, 1)
        weights = weights.gather(1, kept).flatten()
        return [[y, x, weight] for (y, x), weight in zip(_rounded(places), _rounded(weights, 6), strict=True)]

    def _arrows_json(self, t: int) -> list[list[float]] | None:
        if self.arrows_px is None:
            return None
        every = -(-max(self.arrows_px.shape[1:3]) // MAX_ARROWS)
        thinned = self.arrows_px[t, every // 2 :: every, every // 2 :: every]
        return _rounded(thinned.flatten(2).flatten(0, 1))


def look(
    model: nn.Module,
    frames: Frames,
    state: State | None = None,
    *,
    num_units: int = 3,
    saliency: bool = False,
    receptive_field: bool = False,
) -> tuple[Look, State | None]:
    """Run consecutive frames through a model and return where it looked.

    One frame per call, each with the state from the previous call, gives the same result as the whole clip in one call.
    Saliency is the exception: its score is that of the last frame of the call. The model is not changed, and its
    parameters get no gradients. Several threads may use one model at the same time if it is in evaluation mode.

    *Conventions:* frames are float in [0, 1] or uint8 in [0, 255].

    Args:
        model: a model of `saccade.models`, or a model with the same structure.
        frames: all frames of a clip, or the next frames of a stream; a model without `step` needs the whole clip.
        state: the state that the previous call returned; None at the start.
        num_units: the number of units whose sampling points are returned; see `units.strongest` for their choice.
        saliency: whether to compute the saliency. It takes a backward pass, and weights the points by gradient.
        receptive_field: whether to compute the receptive field. It takes a backward pass through the encoder.

    Returns:
        Where the model looked, and the new state: None for a model without `step`.

    Raises:
        ValueError: if `frames` is not four-dimensional, if the model rejects the frames, or if `num_units` is below 1.

    >>> from saccade import models
    >>> found, state = look(models.create("stn-lstm").eval(), torch.zeros(2, 1, 64, 64))
    >>> found.quadrilateral_px[0, 0].tolist()
    [[-0.5, -0.5], [-0.5, 63.5], [63.5, 63.5], [63.5, -0.5]]
    """
    if frames.dim() != 4:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; (time, channels, height, width) is needed")
    if num_units < 1:
        raise ValueError(f"num_units is {num_units}; at least 1 is needed")
    route = route_of(model)
    seen, logits, state = run(model, route, frames.unsqueeze(0), state, gradients=saliency or receptive_field)
    parts: dict[str, Tensor] = {}
    by_stage = None
    if receptive_field and (field := strongest_field(seen)) is not None:
        parts["receptive_field"] = field[0]
    if saliency:
        parts["saliency"], by_stage = _saliency(seen, logits, labels_of(model, logits.shape[-1]))
    with torch.no_grad():
        parts |= _transformed(model, seen) | _deformed(seen, num_units, by_stage)
    return Look(logits[0].detach(), (frames.shape[-2], frames.shape[-1]), **parts), state


def _saliency(seen: Seen, logits: Tensor, labels: Labels) -> tuple[Tensor, dict[int, Tensor]]:
    if seen.summarised is None or seen.said.route.summary is None:
        gradient, by_stage = verdict_gradients(logits, seen, labels, seen.pixels)
        return saliency_of(gradient[0]), by_stage
    gradient, by_stage = verdict_gradients(logits, seen, labels, seen.summarised)
    size = (seen.pixels.shape[-2], seen.pixels.shape[-1])
    return map_saliency(seen.summarised, gradient, grid_of(seen.said.route.summary.below, size), size), by_stage


def _transformed(model: nn.Module, seen: Seen) -> dict[str, Tensor]:
    at = seen.said.route.transformer
    if at is None:
        return {}
    maps = seen.said.maps(at)
    as_picture: Callable[[Tensor], Tensor] = getattr(model, "picture", lambda inputs: inputs.clamp(0, 1))
    crops = seen.outputs[at].detach()
    crops = crops.view(*maps.shape[:2], *crops.shape[-3:])
    pictures = as_picture(crops.flatten(0, 1)).unflatten(0, maps.shape[:2])
    return {"theta": maps, "quadrilateral_px": quadrilateral(maps, seen.said.sizes[at][0]), "crop": pictures}


def _deformed(seen: Seen, num_units: int, output_gradients: dict[int, Tensor] | None) -> dict[str, Tensor]:
    stages = seen.said.route.deformable
    if not stages:
        return {}
    units = strongest(seen, stages[-1], num_units)
    points, weight = points_of(seen, stages[-1], units, output_gradients)
    centres = seen.said.to_frame(stages[-1], seen.said.centres(stages[-1], units.positions))
    return {
        "points_px": points,
        "point_weight": weight,
        "unit_px": centres.squeeze(2),
        "arrows_px": _arrows(seen, stages[0]),
    }


def _arrows(seen: Seen, at: int) -> Float[Tensor, "time rows columns 2 2"]:
    taps = seen.said.taps[at]
    start = seen.said.centres(at, all_positions(taps.size).to(taps.offset_px).view(1, 1, -1, 2))
    moved = start + taps.offset_px.mean(1).flatten(2).mT.unsqueeze(1)
    start, end = (seen.said.to_frame(at, some).squeeze(1) for some in (start.expand_as(moved), moved))
    return torch.stack((start, end), 2).view(len(start), *taps.size, 2, 2)


def tiled(
    crops: Float[Tensor, "time glimpses channels height width"],
) -> Float[Tensor, "time channels all_heights all_widths"]:
    """Return the crops of each frame in one picture, up to two in a row, with white lines between them."""
    rows = [torch.cat(_with_gaps(row.unbind(1), -1), -1) for row in crops.split(2, 1)]
    rows[-1] = functional.pad(rows[-1], (0, rows[0].shape[-1] - rows[-1].shape[-1]), value=1.0)
    return torch.cat(_with_gaps(rows, -2), -2)


def _with_gaps(pictures: Sequence[Tensor], axis: int) -> list[Tensor]:
    """Return pictures with white lines between them, which lie across an axis."""
    first, *others = pictures
    white = torch.ones_like(first.narrow(axis, 0, 1))
    return [first, *(part for picture in others for part in (white, picture))]


def _rounded(numbers: Tensor, decimals: int = 2) -> list[Any]:
    # A hundredth of a pixel is finer than a drawing shows. Rounded float32 numbers would print with many decimals.
    found: list[Any] = numbers.double().round(decimals=decimals).tolist()
    return found


def _to_one(map: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    return map / map.amax().clamp(min=torch.finfo(map.dtype).tiny)


def _pixels(crop: Float[Tensor, "channels height width"]) -> dict[str, Any]:
    """Return the image of a crop: grey, or the first three channels as colours."""
    shown = crop[:3] if len(crop) >= 3 else crop[:1]
    levels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous()
    return {"size": list(levels.shape[:2]), "pixels": base64.b64encode(levels.numpy().tobytes()).decode("ascii")}


def _picture(grey: Float[Tensor, "height width"]) -> dict[str, Any]:
    levels = (grey * 255).round().to(torch.uint8).cpu().contiguous()
    return {"size": list(levels.shape), "grey": base64.b64encode(levels.numpy().tobytes()).decode("ascii")}
