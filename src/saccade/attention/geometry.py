"""Positions in the frame: those of a feature map's pixels, and the area that an affine map samples.

*Conventions:* positions are (y, x) in pixels, in a frame and in a feature map; (0, 0) is the centre of the upper left
pixel. Affine maps are those of `torch.nn.functional.affine_grid` with `align_corners=False`: they map the crop to the
frame, both in (x, y) with -1 and 1 at the outer edges of the border pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models.efficientnet import SameConv2d

Size = tuple[int, int]
Pair = tuple[float, float]
Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class Grid:
    """The positions of a feature map in a lower map: `start + position * step`, (y, x) in pixels of the lower map.

    `start_px` is the centre of the receptive field of position (0, 0). `step_px` is the distance between neighbours.

    >>> grid_of([nn.Conv2d(1, 1, 5, stride=2, padding=2), nn.MaxPool2d(2)], (64, 64))
    Grid(start_px=(1.0, 1.0), step_px=(4.0, 4.0))

    Source: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
    """

    start_px: Pair = (0.0, 0.0)
    step_px: Pair = (1.0, 1.0)

    def then(self, layer: Windowed, size: Size) -> Grid:
        """Return the grid of the map that a layer computes from this grid's map, of a size (height, width)."""
        kernel, padding = as_pair(layer.kernel_size), as_pair(layer.padding)
        if isinstance(layer, SameConv2d):
            padding = layer.padding_before(size)
        stride, dilation = as_pair(layer.stride), as_pair(getattr(layer, "dilation", 1))
        centre = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        start = [at + step * c for at, step, c in zip(self.start_px, self.step_px, centre, strict=True)]
        step = [step * s for step, s in zip(self.step_px, stride, strict=True)]
        return Grid((start[0], start[1]), (step[0], step[1]))

    def place(self, positions: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
        """Map positions in this map, which may lie between its pixels, to positions in the lower map."""
        return positions * per_axis(self.step_px, positions) + per_axis(self.start_px, positions)


def grid_of(layers: Iterable[Windowed], size: Size) -> Grid:
    """Return the grid of the map that layers compute, one after the other, from a map of a size (height, width)."""
    grid = Grid()
    for layer in layers:
        grid, size = grid.then(layer, size), _size_after(layer, size)
    return grid


def _size_after(layer: Windowed, size: Size) -> Size:
    kernel, padding, stride, dilation = (
        as_pair(value) for value in (layer.kernel_size, layer.padding, layer.stride, getattr(layer, "dilation", 1))
    )
    if isinstance(layer, SameConv2d):
        return -(-size[0] // 2), -(-size[1] // 2)
    y, x = (
        int((num + 2 * p - d * (k - 1) - 1) // s + 1)
        for num, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    )
    return y, x


def as_pair(value: str | int | tuple[int, ...]) -> Pair:
    """Return a layer's setting as (y, x), whether it is one number for both axes or one for each."""
    y, x = value if isinstance(value, tuple) else (value, value)
    return float(y), float(x)


def per_axis(pair: Pair, like: Tensor) -> Tensor | float:
    """Return (y, x) as a factor for positions: a tensor, or a plain number, which is faster, if both are equal."""
    return pair[0] if pair[0] == pair[1] else like.new_tensor(pair)


def all_positions(size: Size) -> Float[Tensor, "positions 2"]:
    """Return the position of every pixel, row by row."""
    index = torch.arange(size[0] * size[1])
    return torch.stack((index // size[1], index % size[1]), -1).float()


def through_map(
    theta: Float[Tensor, "frames 2 3"], positions: Float[Tensor, "#frames n 2"], *, crop_size: Size, frame_size: Size
) -> Float[Tensor, "frames n 2"]:
    """Map positions in a crop to positions in the frame that the crop was sampled from.

    >>> identity = torch.eye(2, 3).unsqueeze(0)
    >>> through_map(identity, torch.tensor([[[0.0, 31.0]]]), crop_size=(32, 32), frame_size=(64, 64)).tolist()
    [[[0.5, 62.5]]]
    """
    crop, frame = (per_axis(as_pair(size), positions) for size in (crop_size, frame_size))
    xy = ((2 * positions + 1) / crop - 1).flip(-1)
    found = xy @ theta[:, :, :2].mT + theta[:, None, :, 2]
    return ((found.flip(-1) + 1) * frame - 1) / 2


def quadrilateral(theta: Float[Tensor, "*any 2 3"], frame_size: Size) -> Float[Tensor, "*any 4 2"]:
    """Return the corners of the area that an affine map samples from a frame.

    *Conventions:* these are the outer corners of the crop's corner pixels, in the order upper left, upper right, lower
    right, lower left of the crop.

    >>> quadrilateral(torch.eye(2, 3).unsqueeze(0), (48, 64))[0].tolist()
    [[-0.5, -0.5], [-0.5, 63.5], [47.5, 63.5], [47.5, -0.5]]
    """
    corners = theta.new_tensor([[[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]])
    found = through_map(theta.reshape(-1, 2, 3), corners, crop_size=(1, 1), frame_size=frame_size)
    return found.view(*theta.shape[:-2], 4, 2)


def read_between(
    maps: Float[Tensor, "frames channels height width"], positions: Float[Tensor, "frames units points 2"]
) -> Float[Tensor, "frames units points channels"]:
    """Interpolate maps bilinearly at positions; a position outside a map gets the value at its border."""
    size = per_axis(as_pair(tuple(maps.shape[-2:])), positions)
    xy = ((2 * positions + 1) / size - 1).flip(-1)
    return F.grid_sample(maps, xy, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
