"""The spatial transformer: learned affine maps of the whole frame (Jaderberg et al. 2015, arXiv 1506.02025)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.errors import unknown_name
from saccade.nn.attention import AttentionLayer
from saccade.nn.shapes import check_shape
from saccade.ops.deform_conv.geometry import Pair, count, pair

NUM_POSITIONS = {"affine": 6, "similarity": 4}


class SpatialTransformer(AttentionLayer):
    """Resample a frame under an affine map that a localisation network predicts from the frame itself.

    *Conventions:* the map transforms output positions to input positions, both (x, y) in [-1, 1] with -1 and 1 at the
    outer edges of the border pixels (`align_corners=False`), as in `torch.nn.functional.affine_grid`. Samples outside
    the frame are black. Map and grid are float32 under any autocast.

    Args:
        localisation: the network from frames (batch, channels, height, width) to maps. For `affine` it returns (batch,
            6), the two rows of the map. For `similarity` it returns (batch, 4): zoom, angle in radians, shift in x and
            in y, where (1, 0, 0, 0) is the identity. Angles are preserved in pixels, so that a circle stays a circle on
            frames that are not square.
        out_size: the height and width of the output; None for those of the frame.
        mode: `affine`, or `similarity` (translation, scale and rotation only).

    Raises:
        UsageError: if the mode is unknown.
        ValueError: if the output size is out of range; in `forward`, if frames or positions do not fit.

    >>> layer = SpatialTransformer(Identity(), out_size=(2, 2))
    >>> layer(torch.ones(1, 1, 4, 4)).squeeze().tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    num_glimpses = 1

    def __init__(self, localisation: nn.Module, out_size: Pair | None = None, mode: str = "affine") -> None:
        super().__init__()
        if mode not in NUM_POSITIONS:
            raise unknown_name("transformer mode", mode, NUM_POSITIONS)
        self.positions = localisation
        self.out_size, self.mode = None if out_size is None else pair(out_size, "out_size", 1), mode

    def neutral(self, positions: Float[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
        """Return the identity map, which leaves the frame unchanged."""
        return identity_positions(self.mode).to(positions).expand_as(positions)

    def theta(
        self, positions: Float[Tensor, "batch k"], frame_size: tuple[int, int] = (1, 1)
    ) -> Float[Tensor, "batch 2 3"]:
        """Convert the output of the localisation network to affine maps.

        Args:
            positions: the output of the localisation network.
            frame_size: the height and width of the frame; a similarity depends on their ratio, which is 1 by default.
        """
        if positions.shape[-1] != NUM_POSITIONS[self.mode]:
            raise ValueError(
                f"the localisation network gave {positions.shape[-1]} numbers per frame;"
                f" mode {self.mode!r} needs {NUM_POSITIONS[self.mode]}"
            )
        positions = positions.float()
        if self.mode == "affine":
            return positions.view(-1, 2, 3)
        zoom, angle, shift_x, shift_y = positions.unbind(-1)
        cos, sin, stretch = zoom * angle.cos(), zoom * angle.sin(), frame_size[0] / frame_size[1]
        return torch.stack((cos, -sin * stretch, shift_x, sin / stretch, cos, shift_y), -1).view(-1, 2, 3)

    def maps(
        self, positions: Float[Tensor, "batch k"], frame_size: tuple[int, int] = (1, 1)
    ) -> Float[Tensor, "batch glimpses 2 3"]:
        """Return the affine maps of each frame, as `theta` does: here one."""
        return self.theta(positions, frame_size).unsqueeze(1)

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Return the resampled frames."""
        check_shape("frames", frames, "batch", "channels", "height", "width")
        theta = self.theta(self.positions(frames), (frames.shape[-2], frames.shape[-1]))
        return _sampled(frames, theta, self.out_size or (frames.shape[-2], frames.shape[-1]))


class CloserLook(SpatialTransformer):
    """Look at the whole frame small, then sample the part that matters from the frame in full resolution.

    The localisation network reads the frame shrunk to `glance_px`. The output has the frame's proportions and the
    shorter side `out_px`. Each pixel of it is the mean of a square of samples, as many as the frame is larger than the
    output. So the identity gives what shrinking the frame gives, and a small area shows details that shrinking loses.

    *Conventions:* as for `SpatialTransformer`.

    Args:
        localisation: the network from shrunk frames to maps, as for `SpatialTransformer`.
        out_px: the shorter side of the output.
        glance_px: the shorter side of what the localisation network reads; smaller frames are not enlarged.
        mode: `affine` or `similarity`.

    >>> layer, frames = CloserLook(Identity(), out_px=32), torch.rand(1, 3, 96, 192)
    >>> torch.allclose(layer(frames), F.avg_pool2d(frames, 3), atol=1e-5)
    True
    """

    def __init__(self, localisation: nn.Module, *, out_px: int, glance_px: int = 64, mode: str = "affine") -> None:
        super().__init__(localisation, mode=mode)
        self.out_px, self.glance_px = count(out_px, "out_px"), count(glance_px, "glance_px")

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Return the resampled frames."""
        positions = self.positions(self.glance(frames))
        return self.sampled(frames, self.maps(positions, (frames.shape[-2], frames.shape[-1])))[:, 0]

    def glance(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels small_height small_width"]:
        """Return what the localisation network reads: the whole frames, small."""
        check_shape("frames", frames, "batch", "channels", "height", "width")
        frame_size = frames.shape[-2], frames.shape[-1]
        if min(frame_size) <= self.glance_px:
            return frames
        return F.adaptive_avg_pool2d(frames, _scaled(frame_size, self.glance_px))

    def samples_per_edge(self, frame_px: int) -> int:
        """Return of how many samples a pixel of the output is the mean along each axis.

        Args:
            frame_px: the shorter side of the frame.
        """
        return max(1, math.ceil(frame_px / self.out_px))

    def sampled(
        self, frames: Float[Tensor, "batch channels height width"], maps: Float[Tensor, "batch glimpses 2 3"]
    ) -> Float[Tensor, "batch glimpses channels out_height out_width"]:
        """Sample each frame under each of its maps."""
        frame_size = frames.shape[-2], frames.shape[-1]
        size = _scaled(frame_size, self.out_px)
        finer = self.samples_per_edge(min(frame_size))
        # One place of the square at a time, so that the finer picture is never in memory.
        along = (2 * torch.arange(finer, device=frames.device) + 1 - finer) / finer
        total = torch.zeros((), dtype=frames.dtype, device=frames.device)
        for y in along:
            for x in along:
                # In the output's [-1, 1], a pixel is 2 / size wide.
                shift = maps[..., 0] * (x / size[1]) + maps[..., 1] * (y / size[0])
                moved = torch.cat((maps[..., :2], maps[..., 2:] + shift.unsqueeze(-1)), -1)
                total = total + _sampled_often(frames, moved, size)
        crops: Tensor = total / finer**2
        return crops


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return a size in the same proportions with another shorter side."""
    height, width = (max(1, round(edge * short_side / min(size))) for edge in size)
    return height, width


def _sampled(
    frames: Float[Tensor, "batch channels height width"], theta: Float[Tensor, "batch 2 3"], out_size: tuple[int, int]
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Sample frames under affine maps."""
    size = [*frames.shape[:2], *out_size]
    # Autocast off: in bfloat16, pixel positions from 64 on are multiples of one half.
    with torch.autocast(frames.device.type, enabled=False):
        # Without the checks of F.affine_grid, which reject an empty batch, and an export for batches of any size.
        grid = torch.affine_grid_generator(theta, size, align_corners=False)
        return F.grid_sample(frames.float(), grid, align_corners=False).to(frames.dtype)


def _sampled_often(
    frames: Float[Tensor, "batch channels height width"],
    maps: Float[Tensor, "batch glimpses 2 3"],
    out_size: tuple[int, int],
) -> Float[Tensor, "batch glimpses channels out_height out_width"]:
    """Sample each frame under several maps."""
    size, num = [1, 1, *out_size], maps.shape[1]
    with torch.autocast(frames.device.type, enabled=False):
        plain = torch.affine_grid_generator(torch.eye(2, 3, device=maps.device).unsqueeze(0), size, align_corners=False)
        # All glimpses below each other in one grid: frames need no copies.
        grid = plain.view(1, 1, -1, 2) @ maps[..., :2].mT + maps[..., 2].unsqueeze(-2)
        grid = grid.unflatten(2, out_size).flatten(1, 2)
        found = F.grid_sample(frames.float(), grid, align_corners=False).to(frames.dtype)
    crops: Tensor = found.unflatten(2, (num, out_size[0])).transpose(1, 2)
    return crops


def identity_positions(mode: str) -> Float[Tensor, "k"]:
    """Return the output of a localisation network that leaves the frame unchanged."""
    return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0] if mode == "affine" else [1.0, 0.0, 0.0, 0.0])


class IdentityLinear(nn.Linear):
    """The last layer of a localisation network that initially predicts the identity.

    It is computed in float32 under any autocast, since its output is a position.
    """

    def __init__(self, in_features: int, mode: str = "affine") -> None:
        if mode not in NUM_POSITIONS:
            raise unknown_name("transformer mode", mode, NUM_POSITIONS)
        super().__init__(in_features, NUM_POSITIONS[mode])
        nn.init.zeros_(self.weight)
        self.bias.data.copy_(identity_positions(mode))

    def forward(self, input: Float[Tensor, "batch features"]) -> Float[Tensor, "batch k"]:
        """Return one row of positions per frame."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight, self.bias)


class Identity(nn.Module):
    """A localisation network that always predicts the identity: no attention.

    >>> Identity()(torch.zeros(1, 1, 4, 4)).tolist()
    [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 6"]:
        """Return the identity map for every frame."""
        return identity_positions("affine").to(frames.device).expand(len(frames), -1)
