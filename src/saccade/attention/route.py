"""The layers of an encoder that choose where they sample, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from saccade.attention.geometry import Grid, Windowed
from saccade.labels import Labels
from saccade.nn import AttentionLayer, DeformConv2d, OffsetResample2d, SpatialTransformer, attention_layers

Deformable = DeformConv2d | OffsetResample2d
# What works on every position by itself, so that its map lies where the one before lay. Other modules say so of
# themselves: they have an attribute `pointwise`.
_POINTWISE = (
    *(nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.Dropout, nn.Dropout2d, nn.Identity),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh),
)


@dataclass(frozen=True)
class Stage:
    """An attention layer on the way.

    Args:
        layer: the layer.
        below: where the map that it samples lies in the output of the stage before, or in the frame.
        readout: the module whose output is the layer's after normalisation and rectification, as the next layer gets
            it: the same positions.
    """

    layer: AttentionLayer
    below: Grid
    readout: nn.Module


@dataclass(frozen=True)
class Route:
    """The attention layers of an encoder in order of the forward pass, and what lies between them.

    Args:
        stages: the attention layers.
        last: the module that gives the last feature map; None if there is none.
    """

    stages: tuple[Stage, ...]
    last: nn.Module | None

    @property
    def transformer(self) -> int | None:
        """Which stage is the first spatial transformer; None without."""
        return next((at for at, stage in enumerate(self.stages) if isinstance(stage.layer, SpatialTransformer)), None)

    @property
    def deformable(self) -> list[int]:
        """Which stages have offsets, the shallowest first."""
        return [at for at, stage in enumerate(self.stages) if isinstance(stage.layer, Deformable)]


def route_of(model: nn.Module) -> Route:
    """Walk along the path that a model's encoder tells: the layers on the pixels' way, in order.

    An `nn.Sequential` is its own path. The walk ends at the first layer without positions, such as a dense one.

    Raises:
        ValueError: attention layers that lie behind a layer whose positions are not known.
    """
    encoder = encoder_of(model)
    stages: list[tuple[AttentionLayer, Grid]] = []
    readouts: list[nn.Module] = []
    last: nn.Module | None = None
    grid, end = Grid(), "its end"
    for module in _path_of(encoder):
        if isinstance(module, SpatialTransformer | Deformable):
            stages.append((module, grid))
            readouts.append(module)
            grid = Grid()
        elif isinstance(module, Windowed):
            grid = grid.then(module)
        elif not (isinstance(module, _POINTWISE) or getattr(module, "pointwise", False)):
            end = type(module).__name__
            break
        elif readouts and last is readouts[-1]:
            readouts[-1] = module
        last = module
    if beyond := len(attention_layers(encoder)) - len(stages):
        raise ValueError(
            f"{beyond} attention layers lie behind {end}, and where its positions lie is not known; an encoder tells"
            " its layers with a method path()"
        )
    found = [Stage(layer, below, readout) for (layer, below), readout in zip(stages, readouts, strict=True)]
    return Route(tuple(found), last)


def encoder_of(model: nn.Module) -> nn.Module:
    """Return the part of a video model that sees frames; a model of frames is that itself."""
    encoder = getattr(model, "encoder", model)
    assert isinstance(encoder, nn.Module)
    return encoder


def labels_of(model: nn.Module, num_classes: int) -> Labels:
    """Return a model's classes; those of a model that does not tell exclude each other."""
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
