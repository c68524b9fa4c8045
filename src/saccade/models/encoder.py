"""The encoder, which turns a frame into a feature."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.clips import MIN_PX
from saccade.models.small_trunks import ConvBlock
from saccade.nn.shapes import check_dtype
from saccade.nn.spatial_transformer import IdentityLinear


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
        if frames.dim() != 4:
            raise ValueError(f"frames have shape {tuple(frames.shape)}; (batch, channels, height, width) is needed")
        if min(frames.shape[-2:]) < MIN_PX:
            raise ValueError(
                f"frames are {frames.shape[-2]}x{frames.shape[-1]} px; at least {MIN_PX}x{MIN_PX} is needed"
            )
        if frames.shape[1] != self.channels:
            raise ValueError(f"frames have {frames.shape[1]} channels; this model takes {self.channels}")
        check_dtype("frames", frames, self)
        if self.attention is not None:
            frames = self.attention(frames)
        # Pooling over the whole map, since the gradients of amax and mean take three times as long.
        found: Tensor = self.trunk(frames)
        largest, mean = (pool(found, found.shape[-2:]).flatten(1) for pool in (F.max_pool2d, F.avg_pool2d))
        feature: Tensor = self.dense(torch.cat((largest, mean), -1))
        return feature


class Localisation(nn.Module):
    """Predict the map of a spatial transformer: two convolutions on a quarter of the pixels, then two dense layers."""

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
