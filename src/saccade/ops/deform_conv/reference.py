"""The definition of deformable convolution in plain PyTorch: any device, any float dtype, differentiable twice.

Every output value is a weighted sum of samples,

    out(p) = bias + sum over taps k of  weight(k) * mask(k, p) * input(p * stride - padding + k * dilation + offset(k,
    p)),

where `input` is interpolated bilinearly between the four surrounding pixels, and is zero outside. The lower neighbour
of a position is `floor(position)`, which also defines the gradient at integer positions. This code is slow, and meant
to be read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.ops.deform_conv.arguments import Tensors
from saccade.ops.deform_conv.geometry import FAR_PX, Geometry, position_dtype


def run(tensors: Tensors, geometry: Geometry) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 input in float64)."""
    input, offset, weight, bias, mask = tensors
    y, x = _positions(offset, input, geometry)
    image = input.to(y.fraction.dtype).unflatten(1, (geometry.offset_groups, input.shape[1] // geometry.offset_groups))
    samples = _interpolate(image, y, x)
    if mask is not None:
        samples = samples * mask.to(image.dtype).view(y.low.shape)[:, :, None]
    columns = samples.flatten(1, 2).unflatten(1, (geometry.groups, weight.shape[1]))
    kernels = weight.flatten(2).unflatten(0, (geometry.groups, weight.shape[0] // geometry.groups))
    out = torch.einsum("bgckhw,gock->bgohw", columns.to(weight.dtype), kernels).flatten(1, 2)
    return out if bias is None else out + bias[:, None, None]


# In shapes, group and cg are the offset groups and the channels of each; tap is the kernel's taps, row by row.
class Position(NamedTuple):
    """A coordinate of every sample, in two parts, so that neither rounds the other, whatever the size of the image."""

    low: Int[Tensor, "batch group tap height width"]
    fraction: Float[Tensor, "batch group tap height width"]


def _positions(offset: Tensor, input: Tensor, geometry: Geometry) -> tuple[Position, Position]:
    dtype = position_dtype(input)
    offset = offset.to(dtype).unflatten(1, (geometry.offset_groups, geometry.num_taps, 2))
    base_y = geometry.tap_positions(0, torch.int64, input.device).t()[:, :, None]
    base_x = geometry.tap_positions(1, torch.int64, input.device).t()[:, None, :]
    return _add(base_y, offset[:, :, :, 0]), _add(base_x, offset[:, :, :, 1])


def _add(base: Int[Tensor, "tap height width"], offset: Float[Tensor, "batch group tap height width"]) -> Position:
    # NaN and distant positions become a position outside that is small enough for an index.
    offset = offset.nan_to_num(nan=-FAR_PX).clamp(-FAR_PX, FAR_PX)
    whole = offset.detach().floor()
    return Position(base + whole.long(), offset - whole)


def _interpolate(
    image: Float[Tensor, "batch group cg height_in width_in"], y: Position, x: Position
) -> Float[Tensor, "batch group cg tap height width"]:
    total = torch.zeros((), dtype=image.dtype, device=image.device)
    for dy, weight_y in enumerate((1 - y.fraction, y.fraction)):
        for dx, weight_x in enumerate((1 - x.fraction, x.fraction)):
            pixels = _pixels(image, y.low + dy, x.low + dx)
            total = total + (weight_y * weight_x)[:, :, None] * pixels
    return total


def _pixels(
    image: Float[Tensor, "batch group cg height_in width_in"],
    y: Int[Tensor, "batch group tap height width"],
    x: Int[Tensor, "batch group tap height width"],
) -> Float[Tensor, "batch group cg tap height width"]:
    height, width = image.shape[3:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = torch.where(inside, y * width + x, 0).flatten(2)[:, :, None]
    pixels = image.flatten(3).gather(3, index.expand(-1, -1, image.shape[2], -1))
    return torch.where(inside[:, :, None], pixels.unflatten(3, y.shape[2:]), 0)
