"""Deformable convolution: check the arguments, follow autocast, call the operator.

`reference.py` is the definition; each backend in `backends.py` computes the same values faster.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.ops.deform_conv import autocast, operator, reference
from saccade.ops.deform_conv.arguments import Tensors
from saccade.ops.deform_conv.geometry import Pair, check


def deform_conv2d(
    input: Float[Tensor, "batch channels_in height_in width_in"],
    offset: Float[Tensor, "batch offset_channels height width"],
    weight: Float[Tensor, "channels_out channels_per_group kernel_h kernel_w"],
    bias: Float[Tensor, " channels_out"] | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    mask: Float[Tensor, "batch mask_channels height width"] | None = None,
    *,
    backend: str = "auto",
) -> Float[Tensor, "batch channels_out height width"]:
    """Convolve with kernel taps that each move by an offset: a drop-in replacement for torchvision's `deform_conv2d`.

    *Conventions:* offsets are in pixels; for each offset group and kernel tap (row by row) the channels are dy, then
    dx. The input is interpolated bilinearly between pixels and is zero outside. The lower neighbour of a position is
    its floor, which also defines the gradient at integer positions. NaN and infinite offsets sample outside. Positions
    and interpolation are float32 under any autocast (float64 for float64 input); the matrix product and the result
    follow autocast as `conv2d` does. A channels-last input gives a channels-last output.

    Args:
        input: the images.
        offset: the offset of each tap at each output position, with 2 * kernel_h * kernel_w channels for each offset
            group; the offset groups divide the input channels evenly. Any float dtype.
        weight: as for `conv2d`; the number of groups follows from it.
        bias: the number added to each output channel.
        stride: as for `conv2d`, an int or (y, x).
        padding: as for `conv2d`.
        dilation: as for `conv2d`.
        mask: a factor for each sample (version 2), with kernel_h * kernel_w channels for each offset group. Any float
            dtype.
        backend: "cpu" (C++ kernels), "triton" (for NVIDIA GPUs), "portable" (plain PyTorch), "auto" (the first of
            these that supports the inputs) or "reference" (the definition). Only "reference" is differentiable twice,
            in forward mode and under `torch.func`. `saccade info` lists the available backends.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together, or the backend does not support them.

    >>> image, weight = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 1, 1, 1)
    >>> half_a_pixel_right = torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> deform_conv2d(image, half_a_pixel_right, weight)[0, 0, 0]
    tensor([0.5000, 1.5000, 2.5000, 1.5000])

    Source: Dai et al., "Deformable Convolutional Networks" (2017), equations 2 and 3; with `mask`, Zhu et al.,
    "Deformable ConvNets v2" (2019), equation 1.
    """
    tensors = Tensors(input, offset, weight, bias, mask)
    geometry = check(tensors, stride=stride, padding=padding, dilation=dilation)
    tensors = _follow_autocast(tensors)
    if backend == "reference":
        with autocast.switched_off(input.device.type):
            return reference.run(tensors, geometry)
    out: Tensor = operator.forward(*tensors, geometry.stride, geometry.padding, geometry.dilation, backend)
    return out


def _follow_autocast(tensors: Tensors) -> Tensors:
    """Cast weight and bias as autocast does for `conv2d`; outside autocast, require one dtype."""
    input, _, weight, bias, _ = tensors
    dtypes = [tensor.dtype for tensor in (input, weight, bias) if tensor is not None]
    dtype = autocast.dtype_of(input.device.type)
    if dtype is not None and torch.float64 not in dtypes:
        return tensors._replace(weight=weight.to(dtype), bias=None if bias is None else bias.to(dtype))
    if len(set(dtypes)) > 1:
        found = ", ".join(map(str, dtypes))
        raise ValueError(f"input, weight and bias must have one dtype outside autocast; they have {found}")
    return tensors
