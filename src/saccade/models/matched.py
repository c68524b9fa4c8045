"""The matched three: one trunk, three kinds of attention, equal budgets.

The last map of the trunk is pooled by global maximum and mean. Pooled so, the feature has one length whatever the size
of the frame, and hardly depends on where in it a digit stands.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.errors import UsageError, unknown_name
from saccade.models.trunks import TRUNKS, ConvBlock, Trunk
from saccade.models.video_classifier import VideoClassifier
from saccade.nn.pair_head import PairHead
from saccade.nn.recurrent import Recurrent
from saccade.nn.spatial_transformer import IdentityLinear, SpatialTransformer

MIN_FRAME_PX = 28
# Sizes of the feature that the LSTM reads. Without attention it is wider, so that all three have as many parameters.
PLAIN_FEATURES = {"light": 128, "wide": 160}
ATTENDED_FEATURES = {"light": 112, "wide": 128}


class FrameEncoder(nn.Module):
    """Turn a frame into a feature: attention on the frame (if any), trunk, global maximum and mean, a dense layer.

    Args:
        attention: frame -> frame, or None.
        trunk: frame -> feature map.
        channels: of a frame.
        num_features: size of the feature.

    Raises:
        ValueError: frames smaller than 28x28 or with another number of channels, in `forward`.
    """

    def __init__(self, *, attention: nn.Module | None, trunk: Trunk, channels: int, num_features: int) -> None:
        super().__init__()
        self.attention, self.trunk, self.channels = attention, trunk, channels
        self.dense = nn.Sequential(nn.Linear(2 * trunk.out_channels, num_features), nn.ReLU(inplace=True))

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature a frame."""
        if min(frames.shape[-2:]) < MIN_FRAME_PX:
            raise ValueError(
                f"frames are {frames.shape[-2]}x{frames.shape[-1]} px; at least {MIN_FRAME_PX}x{MIN_FRAME_PX} is needed"
            )
        if frames.shape[1] != self.channels:
            raise ValueError(f"frames have {frames.shape[1]} channels; this model takes {self.channels}")
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


def _trunk(name: str, channels: int, *, deformable: bool) -> Trunk:
    if name not in TRUNKS:
        raise unknown_name("trunk", name, TRUNKS)
    return TRUNKS[name](channels, deformable=deformable)


def _head(num_units: int, num_classes: int, digit_pairs: bool) -> nn.Module:
    if not digit_pairs:
        return nn.Linear(num_units, num_classes)
    if num_classes != 55:
        raise UsageError(f"ten digits make 55 unordered pairs; got num_classes={num_classes}; leave digit_pairs out")
    return PairHead(num_units)


def lenet_lstm(
    *,
    num_classes: int = 55,
    channels: int = 1,
    trunk: str = "light",
    temporal: str = "lstm",
    digit_pairs: bool = False,
) -> VideoClassifier:
    """Build the baseline: no attention; a wider feature makes up for the parameters that attention costs."""
    convolutions = _trunk(trunk, channels, deformable=False)
    size = PLAIN_FEATURES[trunk]
    return VideoClassifier(
        encoder=FrameEncoder(attention=None, trunk=convolutions, channels=channels, num_features=size),
        temporal=Recurrent(size, 128, temporal),
        head=_head(128, num_classes, digit_pairs),
    )


def stn_lstm(
    *,
    num_classes: int = 55,
    channels: int = 1,
    trunk: str = "light",
    temporal: str = "lstm",
    mode: str = "affine",
    digit_pairs: bool = False,
) -> VideoClassifier:
    """Build the model with a spatial transformer before the trunk: one affine (or similarity) map a frame."""
    convolutions = _trunk(trunk, channels, deformable=False)
    size = ATTENDED_FEATURES[trunk]
    transformer = SpatialTransformer(Localisation(channels, mode), mode=mode)
    return VideoClassifier(
        encoder=FrameEncoder(attention=transformer, trunk=convolutions, channels=channels, num_features=size),
        temporal=Recurrent(size, 128, temporal),
        head=_head(128, num_classes, digit_pairs),
    )


def dcn_lstm(
    *,
    num_classes: int = 55,
    channels: int = 1,
    trunk: str = "light",
    temporal: str = "lstm",
    digit_pairs: bool = False,
) -> VideoClassifier:
    """Build the model whose two deepest convolutions are deformable (Dai et al. 2017)."""
    convolutions = _trunk(trunk, channels, deformable=True)
    size = ATTENDED_FEATURES[trunk]
    return VideoClassifier(
        encoder=FrameEncoder(attention=None, trunk=convolutions, channels=channels, num_features=size),
        temporal=Recurrent(size, 128, temporal),
        head=_head(128, num_classes, digit_pairs),
    )
