"""The encoder with a trunk for pictures, such as one that learned on ImageNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saccade.clips import MIN_PX
from saccade.nn.attention import attention_layers
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.grid_pool import GridPool
from saccade.nn.shapes import check_dtype

CHANGE_GAIN = 1.5
"""By how much a difference of two frames is amplified, since it is fainter than a frame (docs/log.md)."""

# The trunk's activations are kept for as many pictures at once while gradients flow through it.
_PICTURES_AT_ONCE = 32
# Channels that a group of the deformable layer mixes.
_MIXED = 32


class PictureEncoder(nn.Module):
    """Turn a frame, or the difference from the one before, or both, into a feature, with a trunk for pictures.

    The trunk reads each of them as a picture of its own, so that it may have learned on pictures of anything. In the
    picture of a difference, no change is what the trunk expects as the mean. The maps of a frame's pictures are put
    side by side for `end`.

    Args:
        attention: the module from frames to frames, or None; it moves all pictures of a frame alike.
        trunk: the module from pictures to feature maps; its `path` lists its layers.
        end: the module from the maps to the feature; its `attention` is a layer that resamples the maps first, or None.
        gains: the factor of each picture of a frame.

    Raises:
        ValueError: in `forward`, if frames have another shape or dtype, or are smaller than 28x28.
    """

    def __init__(self, *, attention: nn.Module | None, trunk: nn.Module, end: nn.Module, gains: Sequence[float]):
        super().__init__()
        self.attention, self.trunk, self.end, self.gains = attention, trunk, end, tuple(gains)
        self.channels = len(self.gains) * int(trunk.channels)  # type: ignore[arg-type]
        self.keeps_statistics = False

    @property
    def maps_are_fixed(self) -> bool:
        """Whether nothing that learns comes before the maps, so that those of a frame are always the same."""
        parts = (self.attention, self.trunk)
        learning = any(p.requires_grad for part in parts if part is not None for p in part.parameters())
        return self.keeps_statistics and self.attention is None and not learning

    def keep_trunk(self, *, weights: bool) -> None:
        """Keep what the trunk has learned.

        Its statistics of normalisation no longer change in training: they come from many more pictures than there are
        frames. Attention layers in the trunk go on learning where to sample.

        Args:
            weights: whether its weights do not change either.
        """
        self.keeps_statistics = True
        if weights:
            self.trunk.requires_grad_(False)
            for layer in attention_layers(self.trunk).values():
                layer.positions.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> PictureEncoder:
        """Set the mode of training; a trunk whose statistics are kept stays in evaluation mode."""
        super().train(mode)
        if self.keeps_statistics:
            self.trunk.eval()
        return self

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the last feature map, in order."""
        trunk: list[nn.Module] = self.trunk.path()  # type: ignore[operator]
        return [layer for layer in (self.attention, *trunk, self.end.attention) if layer is not None]  # type: ignore[misc]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        found: Tensor = self.end(self.maps(frames))
        return found

    def maps(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features y x"]:
        """Return the maps of each frame's pictures, side by side as channels."""
        if frames.dim() != 4 or frames.shape[1] != self.channels or min(frames.shape[-2:]) < MIN_PX:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; (batch, {self.channels}, height, width) with at least"
                f" {MIN_PX}x{MIN_PX} px is needed"
            )
        check_dtype("frames", frames, self)
        if self.attention is not None:
            frames = self.attention(frames)
        parts = frames.chunk(len(self.gains), 1)
        # All frames come first, then all changes: what looks into the trunk finds the frames in order.
        pictures = torch.cat([gain * part for gain, part in zip(self.gains, parts, strict=True)])
        found = self._read(pictures.contiguous(memory_format=torch.channels_last))
        return torch.cat(found.chunk(len(self.gains)), 1)

    def _read(self, pictures: Tensor) -> Tensor:
        """Run the trunk, in parts whose activations are computed again for the gradient where that changes nothing."""
        learns = torch.is_grad_enabled() and (
            pictures.requires_grad or any(p.requires_grad for p in self.trunk.parameters())
        )
        if not (self.training and self.keeps_statistics and learns):
            found: Tensor = self.trunk(pictures)
            return found
        parts = pictures.split(_PICTURES_AT_ONCE)
        return torch.cat([checkpoint(self.trunk, part, use_reentrant=False) for part in parts])


class MapEncoder(nn.Module):
    """Turn a feature map into a feature: attention on the map (if any), the mean of each cell of a grid, a dense layer.

    Args:
        channels: the number of channels of the map.
        num_features: the size of the feature.
        deformable: whether a deformable layer resamples the map first. It passes on the map unchanged until it learns.
    """

    def __init__(self, channels: int, num_features: int, *, deformable: bool) -> None:
        super().__init__()
        groups = channels // _MIXED if channels % _MIXED == 0 else 1
        self.attention = DeformConv2d.identity(channels, groups=groups) if deformable else None
        self.pool = GridPool()
        self.dense = nn.Sequential(nn.Linear(channels * self.pool.num_cells, num_features), nn.ReLU(inplace=True))

    def forward(self, maps: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch features"]:
        """Return one feature per map."""
        if self.attention is not None:
            maps = self.attention(maps)
        found: Tensor = self.dense(self.pool(maps))
        return found
