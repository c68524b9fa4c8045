"""Several spatial transformers side by side, which one localisation network steers."""

from __future__ import annotations

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

    >>> import torch
    >>> from saccade.nn.peaks import PeakLocalisation
    >>> trunk = nn.Conv2d(1, 8, 5, stride=2, padding=2)
    >>> layer = Glimpses(PeakLocalisation(trunk, num_glimpses=2), num_glimpses=2, out_px=28)
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
        """Return of how many samples a pixel of a crop is the mean along each axis: half as many, for half a frame."""
        return max(1, frame_px // (2 * self.out_px))

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
