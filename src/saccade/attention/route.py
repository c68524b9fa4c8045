"""The layers of an encoder that choose where they sample, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from saccade.attention.geometry import Grid, Windowed
from saccade.models.published import MNIST_MEAN, GreyInput
from saccade.nn import AttentionLayer, DeformConv2d, OffsetResample2d, SpatialTransformer, attention_layers

Deformable = DeformConv2d | OffsetResample2d
# What works on every position by itself, so that its map lies where the one before lay.
_POINTWISE = (nn.BatchNorm2d, nn.ReLU, nn.Identity, GreyInput)


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
        grey_shift: what the encoder subtracts from grey levels in [0, 1] before anything else.
    """

    stages: tuple[Stage, ...]
    last: nn.Module | None
    grey_shift: float = 0.0

    @property
    def transformer(self) -> int | None:
        """Which stage is the first spatial transformer; None without."""
        return next((at for at, stage in enumerate(self.stages) if isinstance(stage.layer, SpatialTransformer)), None)

    @property
    def deformable(self) -> list[int]:
        """Which stages have offsets, the shallowest first."""
        return [at for at, stage in enumerate(self.stages) if isinstance(stage.layer, Deformable)]


def route_of(model: nn.Module) -> Route:
    """Walk through a model's encoder in the order in which its modules were registered, which is the forward pass's.

    The walk ends at the first layer without positions, such as a dense one.

    Raises:
        ValueError: attention layers that lie behind a layer whose positions are not known.
    """
    encoder = encoder_of(model)
    stages: list[tuple[AttentionLayer, Grid]] = []
    readouts: list[nn.Module] = []
    last: nn.Module | None = None
    grid, shift, end = Grid(), 0.0, "its end"
    for module in _in_order(encoder):
        if isinstance(module, SpatialTransformer | Deformable):
            stages.append((module, grid))
            readouts.append(module)
            grid = Grid()
        elif isinstance(module, Windowed):
            grid = grid.then(module)
        elif not isinstance(module, _POINTWISE):
            end = type(module).__name__
            break
        elif readouts and last is readouts[-1]:
            readouts[-1] = module
        if isinstance(module, GreyInput):
            shift = MNIST_MEAN
        last = module
    if beyond := len(attention_layers(encoder)) - len(stages):
        raise ValueError(f"{beyond} attention layers lie behind {end}, and where its positions lie is not known")
    found = [Stage(layer, below, readout) for (layer, below), readout in zip(stages, readouts, strict=True)]
    return Route(tuple(found), last, shift)


def encoder_of(model: nn.Module) -> nn.Module:
    """Return the part of a video model that sees frames; a model of frames is that itself."""
    encoder = getattr(model, "encoder", model)
    assert isinstance(encoder, nn.Module)
    return encoder


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    # An attention layer is one step: what predicts its positions is not on the way of the pixels.
    if isinstance(module, AttentionLayer) or not any(True for _ in module.children()):
        yield module
        return
    for child in module.children():
        yield from _in_order(child)
