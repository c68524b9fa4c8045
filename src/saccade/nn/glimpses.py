"""Several spatial transformers side by side, which one localisation network steers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.nn.spatial_transformer import NUM_POSITIONS, CloserLook, identity_positions
from saccade.ops.deform_conv.geometry import count


class Glimpses(CloserLook):
    """Look at the whole frame small, then sample several parts of it, each under a map of its own.

    One localisation network predicts all maps. The layer returns (batch, glimpses, channels, out_height, out_width).

    *Conventions:* as for `CloserLook`.

    Args:
        localisation: the network from shrunk frames to the numbers of all maps, those of the first glimpse first.
        num_glimpses: the number of maps.
        out_px: the shorter side of each crop.
        glance_px: the shorter side of what the localisation network reads.
        mode: `affine` or `similarity`.

    Raises:
        UsageError: if the mode is unknown.
        ValueError: if a size or `num_glimpses` is below 1; in `forward`, if frames or positions do not fit.

    >>> from saccade.nn.spatial_transformer import PositionLinear
    >>> last = PositionLinear(1, spread_positions(2, "similarity"))
    >>> layer = Glimpses(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last), num_glimpses=2, out_px=28)
    >>> layer(torch.rand(5, 1, 64, 96)).shape
    torch.Size([5, 2, 1, 28, 42])
    """

    def __init__(
        self,
        localisation: nn.Module,
        *,
        num_glimpses: int,
        out_px: int,
        glance_px: int = 64,
        mode: str = "similarity",
    ) -> None:
        super().__init__(localisation, out_px=out_px, glance_px=glance_px, mode=mode)
        self.num_glimpses = count(num_glimpses, "num_glimpses")

    def samples_per_edge(self, frame_px: int) -> int:
        """Return of how many samples a pixel of a crop is the mean along each axis: of fewer, since it shows a part."""
        return max(1, frame_px // self.out_px)

    def neutral(self, positions: Float[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
        """Return identity maps: every glimpse is the whole frame."""
        return identity_positions(self.mode).to(positions).repeat(self.num_glimpses).expand_as(positions)

    def maps(
        self, positions: Float[Tensor, "batch k"], frame_size: tuple[int, int] = (1, 1)
    ) -> Float[Tensor, "batch glimpses 2 3"]:
        """Return the affine map of each glimpse, as `theta` does for one."""
        needed = self.num_glimpses * NUM_POSITIONS[self.mode]
        if positions.shape[-1] != needed:
            raise ValueError(
                f"the localisation network gave {positions.shape[-1]} numbers per frame; {self.num_glimpses} glimpses"
                f" of mode {self.mode!r} need {needed}"
            )
        each = positions.unflatten(-1, (self.num_glimpses, -1)).flatten(0, 1)
        maps: Tensor = self.theta(each, frame_size).unflatten(0, (-1, self.num_glimpses))
        return maps

    def forward(
        self,
        frames: Float[Tensor, "batch channels height width"],
        positions: Float[Tensor, "batch k"] | None = None,
    ) -> Float[Tensor, "batch glimpses channels out_height out_width"]:
        """Return the crops of each frame.

        Args:
            frames: the frames.
            positions: what the localisation network says about `glance(frames)`; None asks it.
        """
        if positions is None:
            positions = self.positions(self.glance(frames))
        return self.sampled(frames, self.maps(positions, (frames.shape[-2], frames.shape[-1])))


def spread_positions(num_glimpses: int, mode: str, zoom: float = 0.75) -> Float[Tensor, "k"]:
    """Return maps of different regions, for glimpses that are to differ from the start: each as far out as fits.

    One glimpse is in the middle, two are in opposite corners, four in all corners.

    Args:
        num_glimpses: the number of maps.
        mode: `affine` or `similarity`.
        zoom: the side of a region as a fraction of the frame's.

    >>> spread_positions(2, "similarity").view(2, 4).tolist()[1]  # zoom, angle, shift in x and in y
    [0.75, 0.0, 0.25, 0.25]
    """
    # From the upper left corner, clockwise as seen on the screen.
    angle = 2 * math.pi * (torch.arange(num_glimpses, dtype=torch.float64) / num_glimpses - 3 / 8)
    way = torch.stack((angle.cos(), angle.sin()), -1)
    shift = (1 - zoom) * way / way.abs().amax(-1, keepdim=True) * (num_glimpses > 1)
    found = identity_positions(mode).repeat(num_glimpses, 1) * zoom
    found[:, [2, 5] if mode == "affine" else [2, 3]] = shift.float()
    return found.flatten()
