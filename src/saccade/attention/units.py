"""Units deep in an encoder: which are the strongest, where they sample, and which pixels they hang on."""

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
    """Units of a map with offsets: where they stand in it, of which channels they are, and how strong.

    The channel is None where all channels sample at the same places.
    """

    positions: Float[Tensor, "frames units 1 2"]
    channel: Int64[Tensor, "frames units"] | None
    activation: Float[Tensor, "frames units"]


def strongest_units(model: nn.Module, frame: Frame, num: int = 3) -> list[Unit]:
    """Return the units of the deepest layer with offsets that a frame excites most, strongest first; see `strongest`.

    *Conventions:* a unit is (row, column) in the layer's output, of an `OffsetResample2d` (channel, row, column).

    Raises:
        ValueError: a model without offsets.
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
    """Return where in the frame a unit of the deepest layer with offsets samples, through all layers with offsets.

    *Conventions:* points are (y, x) in pixels of the frame, the centre of the upper left pixel at (0, 0). Plain layers
    count by the centres of their receptive fields; offsets between positions are interpolated bilinearly.

    Args:
        model: one of `saccade.models`, or built like them.
        frame: a frame.
        unit: (row, column) in the layer's output; (channel, row, column) where each channel moves by itself.

    Raises:
        ValueError: a model without offsets; a unit outside the map.

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

    The unit is one of the deepest layer with offsets, or of the last feature map of a model that has none; after
    normalisation and rectification, where these follow. A unit that is not excited has no gradient: all is zero then.

    Args:
        model: one of `saccade.models`, or built like them.
        frame: a frame.
        unit: (channel, row, column), or (row, column) for the sum over channels.

    Raises:
        ValueError: a unit outside the map; a model without feature maps.

    >>> from saccade import models
    >>> field = effective_receptive_field(models.create("lenet-lstm"), torch.rand(1, 64, 64), (3, 3))
    >>> field.shape, bool(field[:, 60:].any())
    (torch.Size([64, 64]), False)

    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", 2016.
    """
    seen = run_encoder(model, route_of(model), frame.unsqueeze(0), gradients=True)
    map = _map_of_units(seen)
    if map is None:
        raise ValueError(f"a {type(model).__name__} has no feature map whose units could be chosen")
    channel, row, column = _checked(unit, map)
    of_channels = map[0, :, row, column]
    score = of_channels.sum() if channel is None else of_channels[channel]
    return saliency_of(torch.autograd.grad(score, seen.pixels)[0])[0]


def strongest_field(seen: Seen) -> Float[Tensor, "batch time height width"] | None:
    """Return the effective receptive field of each frame's strongest unit; None for a model without feature maps.

    The graph stays, for further gradients.
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
    """Return the map of the deepest layer with offsets as the next layer gets it, or the last one; None without any."""
    stages = seen.said.route.deformable
    map = seen.readouts[stages[-1]] if stages else seen.last
    return map if map is not None and map.dim() == 4 else None


def strongest(seen: Seen, stage: int, num: int) -> Units:
    """Return the units of a stage with the largest activation as the next layer gets it, strongest first.

    All channels of a `DeformConv2d` sample at the same places, so its units are positions, and count by the norm over
    channels; a unit of an `OffsetResample2d` is one channel at a position. Activations, because they need no backward
    pass: the same units show whether or not gradients are asked for.
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
    """Return where units of a stage sample the frame, through all stages, and how much of the whole is each point's.

    With gradients, a point weighs how much the score depends on its sample: the absolute gradient with respect to
    the values that a tap of the deepest layer samples, divided below among that layer's taps in the proportion of
    theirs. Without, a unit weighs as its activation and its points alike.

    Args:
        seen: what went through the encoder.
        stage: the units'.
        units: the units.
        output_gradients: of a score, with respect to the output of each stage with offsets.
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
            f"this {type(model).__name__} has no layer with offsets; choose a model that has, such as dcn-lstm"
        )
    return route.deformable[-1]


def _checked(unit: Unit, map: Tensor) -> tuple[int | None, int, int]:
    """Return a unit as (channel, row, column)."""
    sizes = map.shape[1:] if len(unit) == 3 else map.shape[2:]
    if len(unit) not in (2, 3) or any(not 0 <= at < size for at, size in zip(unit, sizes, strict=True)):
        raise ValueError(
            f"unit {unit} is not in the map of {map.shape[1]} channels of {map.shape[2]}x{map.shape[3]};"
            " give (row, column) or (channel, row, column)"
        )
    return (unit[0] if len(unit) == 3 else None), unit[-2], unit[-1]
