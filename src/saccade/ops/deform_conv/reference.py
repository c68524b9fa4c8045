"""The definition of deformable convolution in plain PyTorch: any device, any float dtype, differentiable twice.

Every output value is a weighted sum of samples,

    out(p) = bias + sum over taps k of  weight(k) * mask(k, p) * input(p * stride - padding + k * dilation + offset(k,
    p)),

where `input` between its pixels is the bilinear interpolation of the four around, and zero outside. The lower of
the four is `floor(position)`, also for the gradient at integer positions. Slow, and meant to be read.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.ops.deform_conv.geometry import Geometry, position_dtype

# group and cg: offset groups and the channels of each; tap: the kernel's taps, row by row.
Positions = Float[Tensor, "batch group tap height width"]


def why_not(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> str | None:
    """Say why this backend cannot take these inputs: it takes all."""
    return None


def run(
    input: Float[Tensor, "batch channels_in height_in width_in"],
    offset: Float[Tensor, "batch offset_channels height width"],
    weight: Float[Tensor, "channels_out channels_per_group kernel_h kernel_w"],
    bias: Float[Tensor, " channels_out"] | None,
    mask: Float[Tensor, "batch mask_channels height width"] | None,
    geometry: Geometry,
) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 stays)."""
    y, x = _positions(offset, input, geometry)
    image = input.to(y.dtype).unflatten(1, (geometry.offset_groups, input.shape[1] // geometry.offset_groups))
    samples = _interpolate(image, y, x)
    if mask is not None:
        samples = samples * mask.to(y.dtype).view(y.shape)[:, :, None]
    columns = samples.flatten(1, 2).unflatten(1, (geometry.groups, weight.shape[1]))
    kernels = weight.flatten(2).unflatten(0, (geometry.groups, weight.shape[0] // geometry.groups))
    out = torch.einsum("bgckhw,gock->bgohw", columns.to(weight.dtype), kernels).flatten(1, 2)
    return out if bias is None else out + bias[:, None, None]


def _positions(offset: Tensor, input: Tensor, geometry: Geometry) -> tuple[Positions, Positions]:
    dtype = position_dtype(input)
    offset = offset.to(dtype).unflatten(1, (geometry.offset_groups, geometry.num_taps, 2))
    base_y = geometry.tap_positions(0, dtype, input.device).t()[:, :, None]
    base_x = geometry.tap_positions(1, dtype, input.device).t()[:, None, :]
    height, width = input.shape[2:]
    return _bounded(base_y + offset[:, :, :, 0], height), _bounded(base_x + offset[:, :, :, 1], width)


def _bounded(position: Positions, size: int) -> Positions:
    # -2 and `size` are as far outside as any position can matter: both neighbours are outside, so value and
    # gradient are zero. NaN goes there too, and what is made into an index stays a small number.
    return position.nan_to_num(nan=-2.0).clamp(-2, size)


def _interpolate(
    image: Float[Tensor, "batch group cg height_in width_in"], y: Positions, x: Positions
) -> Float[Tensor, "batch group cg tap height width"]:
    low_y, low_x = y.detach().floor(), x.detach().floor()
    total = torch.zeros((), dtype=y.dtype, device=y.device)
    for dy, weight_y in enumerate((1 - (y - low_y), y - low_y)):
        for dx, weight_x in enumerate((1 - (x - low_x), x - low_x)):
            pixels = _pixels(image, low_y.long() + dy, low_x.long() + dx)
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
