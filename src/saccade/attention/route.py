"""The attention layers of an encoder, in order, and the layers between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from saccade.attention.geometry import Windowed
from saccade.labels import Labels
from saccade.models.picture_encoder import PictureEncoder
from saccade.nn import (
    AttentionLayer,
    DeformConv2d,
    Glimpses,
    OffsetResample2d,
    SpatialTransformer,
    attention_layers,
)

Deformable = DeformConv2d | OffsetResample2d
# These layers work on each position independently, so the grid stays the same. Other modules declare this by an
# attribute `pointwise`.
_POINTWISE = (
    *(nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.Dropout, nn.Dropout2d, nn.Identity),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh),
)


@dataclass(frozen=True)
class Stage:
    """An attention layer of a route.

    Args:
        layer: the layer.
        below: the layers that compute its input map from the output of the previous stage, or from the frame, as far
            as they move positions.
        readout: the module that gives the layer's output after normalisation and rectification, which is the input of
            the next layer; its positions are those of the layer.
    """

    layer: AttentionLayer
    below: tuple[Windowed, ...]
    readout: nn.Module


@dataclass(frozen=True)
class Summary:
    """The module that turns the map of a trunk for pictures into a feature.

    Args:
        module: the module; its input is the map.
        below: the layers that compute the map from the frame, as far as they move positions.
    """

    module: nn.Module
    below: tuple[Windowed, ...]


@dataclass(frozen=True)
class Route:
    """The attention layers of an encoder in the order of the forward pass, and the layers between them.

    Args:
        stages: the attention layers.
        last: the module that gives the last feature map; None if there is none. Behind several glimpses it gives a map
            of each.
        summary: the module that reads the map of a trunk without attention layers; None if there is none.
    """

    stages: tuple[Stage, ...]
    last: nn.Module | None
    summary: Summary | None = None

    @property
    def transformer(self) -> int | None:
        """The index of the first stage that is a spatial transformer; None if there is none."""
        return next((at for at, stage in enumerate(self.stages) if isinstance(stage.layer, SpatialTransformer)), None)

    @property
    def num_glimpses(self) -> int:
        """The number of crops that the trunk reads of each frame: 1 without a spatial transformer."""
        at = self.transformer
        layer = None if at is None else self.stages[at].layer
        return layer.num_glimpses if isinstance(layer, SpatialTransformer) else 1

    @property
    def deformable(self) -> list[int]:
        """The indices of the stages with offsets, the shallowest first."""
        return [at for at, stage in enumerate(self.stages) if isinstance(stage.layer, Deformable)]


def route_of(model: nn.Module) -> Route:
    """Find the attention layers along the path of a model's encoder: its layers in the order that pixels pass them.

    An encoder lists its path in a method `path()`; an `nn.Sequential` is its own path. The search ends at the first
    layer without known positions, for example a dense layer.

    Raises:
        ValueError: if attention layers follow a layer whose positions are not known, or stand beside several glimpses.
    """
    encoder = encoder_of(model)
    stages: list[tuple[AttentionLayer, tuple[Windowed, ...]]] = []
    readouts: list[nn.Module] = []
    last: nn.Module | None = None
    below: list[Windowed] = []
    end = "the end of its path"
    for module in _path_of(encoder):
        if isinstance(module, SpatialTransformer | Deformable):
            stages.append((module, tuple(below)))
            readouts.append(module)
            below = []
        elif isinstance(module, Windowed):
            below.append(module)
        elif not (isinstance(module, _POINTWISE) or getattr(module, "pointwise", False)):
            end = type(module).__name__
            break
        elif readouts and last is readouts[-1]:
            readouts[-1] = module
        last = module
    if any(isinstance(layer, Glimpses) for layer, _ in stages) and len(stages) > 1:
        raise ValueError("attention layers before or behind several glimpses cannot be traced; use glimpses alone")
    if beyond := len(attention_layers(encoder)) - len(stages):
        raise ValueError(
            f"{beyond} attention layers were not reached, because positions after {end} are not known; give the encoder"
            " a method path() that lists its layers in order"
        )
    found = [Stage(layer, below, readout) for (layer, below), readout in zip(stages, readouts, strict=True)]
    return Route(tuple(found), last, _summary_of(encoder))


def _summary_of(encoder: nn.Module) -> Summary | None:
    if not isinstance(encoder, PictureEncoder) or encoder.attention is not None or attention_layers(encoder.trunk):
        return None
    return Summary(encoder.end, tuple(layer for layer in _path_of(encoder.trunk) if isinstance(layer, Windowed)))


def encoder_of(model: nn.Module) -> nn.Module:
    """Return the encoder of a video model; a model of single frames is its own encoder."""
    encoder = getattr(model, "encoder", model)
    assert isinstance(encoder, nn.Module)
    return encoder


def labels_of(model: nn.Module, num_classes: int) -> Labels:
    """Return a model's classes; a model without labels gets numbered classes that exclude each other."""
    labels = getattr(model, "labels", None)
    return labels if isinstance(labels, Labels) else Labels.numbered(num_classes)


def _path_of(module: nn.Module) -> Iterator[nn.Module]:
    path: Callable[[], list[nn.Module]] | None = getattr(module, "path", None)
    if path is not None:
        yield from path()
    elif isinstance(module, nn.Sequential):
        for child in module:
            yield from _path_of(child)
    else:
        yield module
