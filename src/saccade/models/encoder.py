"""From a frame to a feature."""

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
    """A module from frames to a feature map."""

    out_channels: int

    def __call__(self, frames: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the feature map."""
        ...

    def path(self) -> list[nn.Module]:
        """Return the layers on the pixels' way, in order, each once; of branches that meet again, one.

        Where positions of the map lie in the frame is computed along it. An attention layer is one step.
        """
        ...


class FrameEncoder(nn.Module):
    """Turn a frame into a feature: attention on the frame (if any), trunk, global maximum and mean, a dense layer.

    Pooled so, the feature has one length whatever the size of the frame, and hardly depends on where in it a thing is.

    Args:
        attention: frame -> frame, or None.
        trunk: frame -> feature map; its `path` tells the layers.
        channels: of what it sees.
        num_features: size of the feature.

    Raises:
        ValueError: frames smaller than 28x28, of another shape, dtype or number of channels, in `forward`.
    """

    def __init__(self, *, attention: nn.Module | None, trunk: nn.Module, channels: int, num_features: int) -> None:
        super().__init__()
        self.attention, self.trunk, self.channels = attention, trunk, channels
        size = int(trunk.out_channels)  # type: ignore[arg-type]
        self.dense = nn.Sequential(nn.Linear(2 * size, num_features), nn.ReLU(inplace=True))

    def path(self) -> list[nn.Module]:
        """Return the layers on the pixels' way, in order."""
        trunk: list[nn.Module] = self.trunk.path()  # type: ignore[operator]
        return trunk if self.attention is None else [self.attention, *trunk]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature a frame."""
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
        # Pooling layers over the whole map: the gradients of amax and mean take three times as long.
        found: Tensor = self.trunk(frames)
        largest, mean = (pool(found, found.shape[-2:]).flatten(1) for pool in (F.max_pool2d, F.avg_pool2d))
        feature: Tensor = self.dense(torch.cat((largest, mean), -1))
        return feature


class Localisation(nn.Module):
    """Say where to look in a frame: two convolutions on a quarter of the pixels, a dense layer, the map."""

    def __init__(self, channels: int, mode: str = "affine") -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            ConvBlock(nn.Conv2d(channels, 12, 5, padding=2, bias=False), 12, pool=True),
            ConvBlock(nn.Conv2d(12, 24, 3, padding=1, bias=False), 24, pool=True),
        )
        self.hidden = nn.Linear(24 * 16, 48)
        self.to_map = IdentityLinear(48, mode)

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch k"]:
        """Return the map of every frame as `SpatialTransformer` wants it."""
        pooled = F.adaptive_avg_pool2d(self.trunk(F.avg_pool2d(frames, 2)), 4)
        found: Tensor = self.to_map(torch.relu(self.hidden(pooled.flatten(1))))
        return found
