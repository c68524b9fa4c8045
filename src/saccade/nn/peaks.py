"""A localisation network that places glimpses on the peaks of a map, one after the other."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.ops.deform_conv.geometry import count

# Side of a glimpse as a fraction of the frame's: at the start, and by which factor it is at most larger or smaller.
START_ZOOM, LARGEST_FACTOR = 0.45, 2.0
MAX_ANGLE_DEG = 108.0
# A glimpse takes the ellipse around it whose axes are this fraction of its sides.
_TAKEN = 0.75
_START_GAIN = 12.0
# What a position of the map loses towards the frame's edge: without it, rounding decides between equal peaks.
_TIE = 1e-3
_TAKEN_PRIORITY = -1e4
_BLUR = (1.0, 2.0, 3.0, 2.0, 1.0)


class HalvingTrunk(Protocol):
    """A module that turns pictures into a map of `out_channels` channels and half their size, rounded up."""

    out_channels: int

    def __call__(self, frames: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the map."""
        ...


class PeakLocalisation(nn.Module):
    """Place each glimpse on the highest peak of a priority map that no earlier glimpse has taken.

    A trunk gives every fourth pixel a priority, a zoom and an angle. The first glimpse goes to the highest priority.
    Positions near it are then taken, and the next glimpse goes to the highest of the others. Around a peak, the softmax
    of 3x3 priorities weights position, zoom and angle. So a peak is found by comparison, and its exact place has a
    gradient.

    In the beginning, the priority is the contrast: by how much the brightness around a position differs from the
    frame's mean. Zooms lie between half and twice `START_ZOOM`, angles within `MAX_ANGLE_DEG`.

    *Conventions:* the numbers of a glimpse are those of `SpatialTransformer` in mode `similarity`: zoom, angle in
    radians, shift in x and in y. Those of the first glimpse come first. They are float32 under any autocast.

    Args:
        trunk: the module from pictures of half the frame's size to a map.
        num_glimpses: the number of glimpses.

    Raises:
        ValueError: if `num_glimpses` is below 1; in `forward`, if frames have fewer than 12 pixels along an axis, or
            the map does not have the size that it should.

    Source: the most salient place first, and inhibition of return, are those of Itti, Koch and Niebur 1998, "A model of
    saliency-based visual attention for rapid scene analysis".
    """

    blur: Tensor

    def __init__(self, trunk: HalvingTrunk, *, num_glimpses: int) -> None:
        super().__init__()
        self.trunk, self.num_glimpses = trunk, count(num_glimpses, "num_glimpses")
        self.to_map = nn.Conv2d(int(trunk.out_channels), 3, 1)
        nn.init.zeros_(self.to_map.weight)
        nn.init.zeros_(self.to_map.bias)  # type: ignore[arg-type]
        self.gain = nn.Parameter(torch.tensor(_START_GAIN))
        blur = torch.tensor(_BLUR).outer(torch.tensor(_BLUR))
        self.register_buffer("blur", (blur / blur.sum()).view(1, 1, 5, 5), persistent=False)

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch k"]:
        """Return the numbers of all glimpses of each frame."""
        half = F.avg_pool2d(frames, 2)
        maps = self.trunk(half)
        with torch.autocast(frames.device.type, enabled=False):
            found = F.conv2d(maps.float(), self.to_map.weight, self.to_map.bias)
            contrast = self._contrast(half.float())
            if found.shape[-2:] != contrast.shape[-2:] or min(contrast.shape[-2:]) < 3:
                raise ValueError(
                    f"frames of {frames.shape[-2]}x{frames.shape[-1]} px give a map of {tuple(found.shape[-2:])};"
                    f" {tuple(contrast.shape[-2:])} is needed, and at least 3 along each axis"
                )
            return self._placed(found[:, 0] + self.gain * contrast, found[:, 1:])

    def _contrast(self, half: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch height width"]:
        """Return by how much the surroundings of each position of the map differ from the mean of the picture."""
        differs = (half - half.mean((-2, -1), keepdim=True)).abs().mean(1, keepdim=True)
        pooled = F.avg_pool2d(differs, 2, ceil_mode=True)
        return F.conv2d(pooled, self.blur, padding=2).squeeze(1)

    def _placed(
        self, priority: Float[Tensor, "batch height width"], others: Float[Tensor, "batch 2 height width"]
    ) -> Float[Tensor, "batch k"]:
        height, width = priority.shape[-2:]
        y, x = (_centres(size, priority.device) for size in (height, width))
        y, x = y.view(-1, 1), x.view(1, -1)
        priority = priority - _TIE * (y**2 + x**2)
        # Position, zoom and angle of every place of the map, in one tensor to gather from.
        numbers = torch.cat((others, torch.stack((x.expand(height, -1), y.expand(-1, width))).expand_as(others)), 1)
        glimpses: list[Tensor] = []
        for _ in range(self.num_glimpses):
            around = _around_peak(priority)
            weight = priority.flatten(1).gather(1, around).softmax(-1)
            near = numbers.flatten(2).gather(2, around.unsqueeze(1).expand(-1, 4, -1))
            zoom, angle, shift_x, shift_y = (near * weight.unsqueeze(1)).sum(-1).unbind(-1)
            zoom = START_ZOOM * torch.exp(math.log(LARGEST_FACTOR) * torch.tanh(zoom))
            angle = math.radians(MAX_ANGLE_DEG) * torch.tanh(angle)
            glimpses += [zoom, angle, shift_x, shift_y]
            priority = priority.masked_fill(_taken(zoom, shift_x, shift_y, x, y), _TAKEN_PRIORITY)
        return torch.stack(glimpses, -1)


def _centres(size: int, device: torch.device) -> Float[Tensor, "size"]:
    """Return the centres of the positions of a map along an axis, in [-1, 1]."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def _around_peak(priority: Float[Tensor, "batch height width"]) -> Int64[Tensor, "batch 9"]:
    """Return the flat indices of 3x3 positions around the highest one; at the edge, those inside that hold it."""
    height, width = priority.shape[-2:]
    best = priority.detach().flatten(1).argmax(1, keepdim=True)
    row = torch.div(best, width, rounding_mode="floor").clamp(1, height - 2)
    column = (best % width).clamp(1, width - 2)
    step = torch.arange(-1, 2, device=priority.device)
    return (row + step.repeat_interleave(3)) * width + column + step.repeat(3)


def _taken(zoom: Tensor, shift_x: Tensor, shift_y: Tensor, x: Tensor, y: Tensor) -> Bool[Tensor, "batch height width"]:
    """Return which positions of a map a glimpse takes: an ellipse around its centre."""
    radius, middle_x, middle_y = (each.detach().view(-1, 1, 1) for each in (_TAKEN * zoom, shift_x, shift_y))
    return (x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2
