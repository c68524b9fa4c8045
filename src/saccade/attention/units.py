"""The units of an encoder: the strongest ones, where they sample, and the pixels that they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from saccade.attention.attribution import saliency_of, tap_weight
from saccade.attention.forward import Seen, run_encoder
from saccade.attention.route import Deformable, Route, route_of
from saccade.attention.trace import normalised
from saccade.nn import OffsetResample2d

Frame = UInt8[Tensor, "channels height width"] | Float[Tensor, "channels height width"]
Unit = tuple[int, ...]


class Units(NamedTuple):
    """Units of a map with offsets: their positions in the map, their channels and their activations.

    The channel is None if all channels sample at the same positions.
    """

    positions: Float[Tensor, "frames units 1 2"]
    channel: Int64[Tensor, "frames units"] | None
    activation: Float[Tensor, "frames units"]


def strongest_units(model: nn.Module, frame: Frame, num: int = 3) -> list[Unit]:
    """Return the most active units of the deepest layer with offsets for a frame, strongest first; see `strongest`.

    *Conventions:* a unit is (row, column) in the layer's output, or (channel, row, column) for an `OffsetResample2d`.

    Raises:
        ValueError: if the model has no layer with offsets.
    """
    route = route_of(model)
    stage = _deepest(route, model)
    with torch.no_grad():
        units = strongest(run_encoder(model, route, frame.unsqueeze(0)), stage, num)
    places = units.positions[0, :, 0].long().tolist()
    if units.channel is None:
        return [tuple(place) for place in places]
    return [(channel, *place) for channel, place in zip(units.channel[0].tolist(), places, strict=True)]


def sampling_points(model: nn.Module, frame: Frame, unit: Unit) -> Float[Tensor, "points 2"]:
    """Return where a unit of the deepest layer with offsets samples the frame, traced through all layers with offsets.

    *Conventions:* points are (y, x) in pixels of the frame; (0, 0) is the centre of the upper left pixel. A position of
    a plain layer is mapped to the centre of its receptive field. Offsets between positions are interpolated bilinearly.

    Args:
        model: a model of `saccade.models`, or a model with the same structure.
        frame: the frame.
        unit: (row, column) in the layer's output, or (channel, row, column) if each channel has its own offsets.

    Raises:
        ValueError: if the model has no layer with offsets, or if the unit is outside the map.

    >>> from saccade import models
    >>> points = sampling_points(models.create("dcn-lstm"), torch.zeros(1, 64, 64), (4, 4))
    >>> points.shape, points.mean(0).tolist()
    (torch.Size([81, 2]), [34.0, 34.0])

    Source: Dai et al. 2017, arXiv 1703.06211, figure 6.
    """
    route = route_of(model)
    stage = _deepest(route, model)
    with torch.no_grad():
        seen = run_encoder(model, route, frame.unsqueeze(0))
        channel, row, column = _checked(unit, seen.outputs[stage])
        alone = isinstance(route.stages[stage].layer, OffsetResample2d)
        units = Units(
            torch.tensor([[[[row, column]]]], dtype=torch.float32, device=frame.device),
            torch.tensor([[channel]], device=frame.device) if alone and channel is not None else None,
            torch.ones(1, 1, device=frame.device),
        )
        points, _ = points_of(seen, stage, units)
    return points[0, 0]


def effective_receptive_field(model: nn.Module, frame: Frame, unit: Unit) -> Float[Tensor, "height width"]:
    """Return how much a unit depends on each pixel of a frame: its absolute gradient, which sums to 1.

    The unit belongs to the deepest layer with offsets, or to the last feature map of a model without offsets. It is
    taken after the normalisation and rectification that follow the layer, if any. A unit that is not active has no
    gradient, so the result is all zero.

    Args:
        model: a model of `saccade.models`, or a model with the same structure.
        frame: the frame.
        unit: (channel, row, column), or (row, column) for the sum over channels.

    Raises:
        ValueError: if the unit is outside the map, or if the model has no feature maps.

    >>> from saccade import models
    >>> field = effective_receptive_field(models.create("lenet-lstm"), torch.rand(1, 64, 64), (3, 3))
    >>> field.shape, bool(field[:, 60:].any())
    (torch.Size([64, 64]), False)

    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", 2016.
    """
    seen = run_encoder(model, route_of(model), frame.unsqueeze(0), gradients=True)
    map = _map_of_units(seen)
    if map is None:
        raise ValueError(f"{type(model).__name__} has no feature map to take a unit from; choose a convolutional model")
    channel, row, column = _checked(unit, map)
    of_channels = map[0, :, row, column]
    score = of_channels.sum() if channel is None else of_channels[channel]
    return saliency_of(torch.autograd.grad(score, seen.pixels)[0])[0]


def strongest_field(seen: Seen) -> Float[Tensor, "batch time height width"] | None:
    """Return the effective receptive field of each frame's strongest unit; None for a model without feature maps.

    The graph is kept for further gradients.
    """
    map = _map_of_units(seen)
    if map is None:
        return None
    route = seen.said.route
    by_channel = bool(route.deformable) and isinstance(route.stages[route.deformable[-1]].layer, OffsetResample2d)
    with torch.inference_mode(False), torch.enable_grad():
        unit = _strongest(map, 1, by_channel=by_channel)
        of_channels = _picked(map, unit.positions)
        chosen = of_channels if unit.channel is None else of_channels.gather(-1, unit.channel.unsqueeze(-1))
        (of_pixels,) = torch.autograd.grad(chosen.sum(), seen.pixels, retain_graph=True)
    return saliency_of(of_pixels)


def _map_of_units(seen: Seen) -> Float[Tensor, "frames channels height width"] | None:
    """Return the readout of the deepest layer with offsets, or else the last feature map; None if there is neither."""
    stages = seen.said.route.deformable
    map = seen.readouts[stages[-1]] if stages else seen.last
    return map if map is not None and map.dim() == 4 else None


def strongest(seen: Seen, stage: int, num: int) -> Units:
    """Return the units of a stage with the largest activations in its readout, strongest first.

    All channels of a `DeformConv2d` sample at the same positions, so its units are positions, ranked by the norm over
    channels. A unit of an `OffsetResample2d` is one channel at a position. Activations need no backward pass, so the
    units are the same with and without gradients.
    """
    by_channel = isinstance(seen.said.route.stages[stage].layer, OffsetResample2d)
    return _strongest(seen.readouts[stage], num, by_channel=by_channel)


def _strongest(map: Float[Tensor, "frames channels height width"], num: int, *, by_channel: bool) -> Units:
    map = map.detach().float()
    strength = map.abs() if by_channel else torch.linalg.vector_norm(map, dim=1, keepdim=True)
    height, width = map.shape[-2:]
    top = strength.flatten(1).topk(min(num, strength[0].numel()), 1)
    channel, position = top.indices // (height * width), top.indices % (height * width)
    positions = torch.stack((position // width, position % width), -1).unsqueeze(2).float()
    return Units(positions, channel if by_channel else None, top.values)


def points_of(
    seen: Seen, stage: int, units: Units, output_gradients: Mapping[int, Tensor] | None = None
) -> tuple[Float[Tensor, "frames units points 2"], Float[Tensor, "frames units points"]]:
    """Return where units of a stage sample the frame, traced through all stages, and the weight of each point.

    The weights sum to 1 in each frame. With gradients, a point's weight is how much the score depends on its sample.
    The weight of a tap of the deepest layer is the absolute gradient with respect to the values that it samples; it is
    divided among the taps of each lower layer in proportion to their own gradients. Without gradients, a unit's weight
    is its activation, which is divided evenly among its points.

    Args:
        seen: the record of the forward pass through the encoder.
        stage: the index of the stage.
        units: the units.
        output_gradients: the gradients of a score with respect to the output of each stage with offsets.
    """
    weights: dict[int, Tensor] = {}
    share = units.activation.unsqueeze(-1)
    if output_gradients is not None:
        for at, gradient in output_gradients.items():
            layer = seen.said.route.stages[at].layer
            assert isinstance(layer, Deformable)
            weights[at] = tap_weight(layer, seen.said.positions[at], gradient)
        of_taps = _picked(weights[stage], units.positions)
        share = (of_taps if units.channel is None else of_taps.gather(-1, units.channel.unsqueeze(-1))).sum(-1, True)
    points, weight = seen.said.trace(stage, units.positions, share, weights, units.channel)
    return points, normalised(weight, (-2, -1))


def _picked(
    maps: Float[Tensor, "frames channels height width"], positions: Float[Tensor, "frames units 1 2"]
) -> Float[Tensor, "frames units channels"]:
    row, column = positions.squeeze(2).long().unbind(-1)
    frames = torch.arange(len(maps), device=maps.device).unsqueeze(1)
    return maps.permute(0, 2, 3, 1)[frames, row, column]


def _deepest(route: Route, model: nn.Module) -> int:
    if not route.deformable:
        raise ValueError(
            f"{type(model).__name__} has no layer with offsets; choose a model that has one, for example dcn-lstm"
        )
    return route.deformable[-1]


def _checked(unit: Unit, map: Tensor) -> tuple[int | None, int, int]:
    """Check a unit and return it as (channel, row, column); the channel is None if none was given."""
    sizes = map.shape[1:] if len(unit) == 3 else map.shape[2:]
    if len(unit) not in (2, 3) or any(not 0 <= at < size for at, size in zip(unit, sizes, strict=True)):
        raise ValueError(
            f"unit {unit} is not in the map of {map.shape[1]} channels of {map.shape[2]}x{map.shape[3]};"
            " give (row, column) or (channel, row, column)"
        )
    return (unit[0] if len(unit) == 3 else None), unit[-2], unit[-1]
