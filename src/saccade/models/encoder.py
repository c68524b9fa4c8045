"""The encoder, which turns a frame into a feature."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.clips import MIN_PX
from saccade.models.small_trunks import ConvBlock
from saccade.nn.glimpses import Glimpses
from saccade.nn.grid_pool import GridPool
from saccade.nn.shapes import check_dtype
from saccade.nn.spatial_transformer import IdentityLinear

GRID = 4
"""The number of cells along each axis of what `GlimpseEncoder` reads of a crop."""


class Trunk(Protocol):
    """A module that turns frames into a feature map."""

    out_channels: int

    def __call__(self, frames: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the feature map."""
        ...

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order, each once.

        Of parallel branches that join again, only one is listed. Positions in the map are traced back to the frame
        along these layers. An attention layer counts as one layer.
        """
        ...


class FrameEncoder(nn.Module):
    """Turn a frame into a feature: attention on the frame (if any), trunk, global maximum and mean, a dense layer.

    Global pooling gives the feature the same length for any frame size, and makes it nearly independent of the
    position of an object in the frame.

    Args:
        attention: the module from frames to frames, or None.
        trunk: the module from frames to a feature map; its `path` lists its layers.
        channels: the number of channels of the frames.
        num_features: the size of the feature.

    Raises:
        ValueError: in `forward`, if frames are smaller than 28x28, or have another shape, dtype or number of channels.
    """

    def __init__(self, *, attention: nn.Module | None, trunk: nn.Module, channels: int, num_features: int) -> None:
        super().__init__()
        self.attention, self.trunk, self.channels = attention, trunk, channels
        size = int(trunk.out_channels)  # type: ignore[arg-type]
        self.dense = nn.Sequential(nn.Linear(2 * size, num_features), nn.ReLU(inplace=True))

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order."""
        trunk: list[nn.Module] = self.trunk.path()  # type: ignore[operator]
        return trunk if self.attention is None else [self.attention, *trunk]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        _check(frames, self.channels, self)
        if self.attention is not None:
            frames = self.attention(frames)
        feature: Tensor = self.dense(_pooled(self.trunk(frames)))
        return feature


class GlimpseEncoder(nn.Module):
    """Turn a frame into a feature: several crops of it, one trunk and dense layers for all; the mean over crops.

    An object is in the middle of its crop. So the dense layers read where in the crop's feature map something is, a
    grid of `GRID` by `GRID` cells. They also read the numbers of the crop's affine map, since where a crop comes from
    says where the object is. What they learn of an object in one crop holds for all crops.

    The mean over crops has to tell which objects they show. So the second dense layer is wide, and its results are
    normalised: no crop outweighs the others.

    Args:
        attention: the layer from frames to crops.
        trunk: the module from crops to feature maps; its `path` lists its layers.
        channels: the number of channels of the frames.
        num_features: the size of the feature.

    Raises:
        ValueError: in `forward`, if frames are smaller than 28x28, or have another shape, dtype or number of channels.
    """

    def __init__(self, *, attention: Glimpses, trunk: nn.Module, channels: int, num_features: int) -> None:
        super().__init__()
        self.attention, self.trunk, self.channels = attention, trunk, channels
        self.pool = GridPool(GRID)
        size = int(trunk.out_channels) * self.pool.num_cells  # type: ignore[arg-type]
        hidden = max(1, num_features // 2)
        self.dense = nn.Sequential(
            nn.Linear(size + 6, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_features),
            nn.LayerNorm(num_features),
            nn.ReLU(inplace=True),
        )

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature maps of the crops, in order."""
        return [self.attention, *self.trunk.path()]  # type: ignore[operator]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        _check(frames, self.channels, self)
        positions = self.attention.positions(self.attention.glance(frames))
        maps = self.attention.maps(positions, (frames.shape[-2], frames.shape[-1]))
        crops = self.attention(frames, positions)
        pooled = self.pool(self.trunk(crops.flatten(0, 1)))
        of_crops = self.dense(torch.cat((pooled, maps.flatten(0, 1).flatten(1).to(pooled)), -1))
        feature: Tensor = of_crops.unflatten(0, (-1, self.attention.num_glimpses)).mean(1)
        return feature


def _pooled(maps: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch twice_channels"]:
    """Return the maximum and the mean of each channel."""
    # Pooling over the whole map, since the gradients of amax and mean take three times as long.
    return torch.cat([pool(maps, maps.shape[-2:]).flatten(1) for pool in (F.max_pool2d, F.avg_pool2d)], -1)


def _check(frames: Tensor, channels: int, encoder: nn.Module) -> None:
    """Raise ValueError if an encoder cannot read frames."""
    if frames.dim() != 4:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; (batch, channels, height, width) is needed")
    if min(frames.shape[-2:]) < MIN_PX:
        raise ValueError(f"frames are {frames.shape[-2]}x{frames.shape[-1]} px; at least {MIN_PX}x{MIN_PX} is needed")
    if frames.shape[1] != channels:
        raise ValueError(f"frames have {frames.shape[1]} channels; this model takes {channels}")
    check_dtype("frames", frames, encoder)


class Localisation(nn.Module):
    """Predict the map of a spatial transformer: two convolutions on a quarter of the pixels, then two dense layers.

    Args:
        channels: the number of channels of the frames.
        mode: the mode of the transformer.
    """

    def __init__(self, channels: int, mode: str = "affine") -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            ConvBlock(nn.Conv2d(channels, 12, 5, padding=2, bias=False), 12, pool=True),
            ConvBlock(nn.Conv2d(12, 24, 3, padding=1, bias=False), 24, pool=True),
        )
        self.hidden = nn.Linear(24 * 16, 48)
        self.to_map = IdentityLinear(48, mode)

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch k"]:
        """Return the map for every frame, in the form that `SpatialTransformer` expects."""
        pooled = F.adaptive_avg_pool2d(self.trunk(F.avg_pool2d(frames, 2)), 4)
        found: Tensor = self.to_map(torch.relu(self.hidden(pooled.flatten(1))))
        return found
