"""The sizes of a deformable convolution, and checks that its arguments fit together."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.ops.deform_conv.arguments import Tensors

Pair = tuple[int, int]

# Offsets are limited to this many pixels: far outside any image, but still exact in float32 and as an index.
FAR_PX = float(2**24)


@dataclass(frozen=True)
class Geometry:
    """The sizes of one call; every pair is (y, x)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    offset_groups: int
    out_size: Pair

    @property
    def num_taps(self) -> int:
        """The number of samples of a channel for one output value."""
        return self.kernel[0] * self.kernel[1]

    def tap_positions(self, axis: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return where a plain convolution samples along an axis (0: y, 1: x), as (output position, tap)."""
        index = torch.arange(self.num_taps, device=device)
        tap = index // self.kernel[1] if axis == 0 else index % self.kernel[1]
        out = torch.arange(self.out_size[axis], device=device)
        positions = out[:, None] * self.stride[axis] - self.padding[axis] + tap * self.dilation[axis]
        return positions.to(dtype)


def position_dtype(input: Tensor) -> torch.dtype:
    """Return the dtype of positions and interpolation, under any autocast: float64 for float64 input, else float32."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def pair(value: int | Pair, name: str, minimum: int) -> Pair:
    """Return `value` as (y, x), or raise a ValueError that says which numbers are allowed."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    try:
        y, x = map(operator.index, values)  # accepts NumPy's integers too
    except (TypeError, ValueError):
        y = x = minimum - 1
    if min(y, x) < minimum:
        raise ValueError(f"{name} is {value!r}; it must be an int or a pair (y, x) of ints, each at least {minimum}")
    return y, x


def count(value: int, name: str) -> int:
    """Return `value` as an int, or raise a ValueError if it is not an int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value!r}; it must be an int of at least 1")
    return number


def check(tensors: Tensors, *, stride: int | Pair, padding: int | Pair, dilation: int | Pair) -> Geometry:
    """Return the geometry of a call, or raise a ValueError that says what does not fit."""
    _check_tensors(tensors)
    input, offset, weight, _, mask = tensors
    kernel = (weight.shape[2], weight.shape[3])
    pairs = pair(stride, "stride", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    geometry = Geometry(
        kernel,
        *pairs,
        groups=_groups(input, weight),
        offset_groups=_offset_groups(offset, kernel, input.shape[1]),
        out_size=out_size(input, kernel, *pairs),
    )
    _check_positions(offset, mask, input, geometry)
    return geometry


def _check_tensors(tensors: Tensors) -> None:
    input, weight, bias = tensors.input, tensors.weight, tensors.bias
    given = {name: tensor for name, tensor in tensors._asdict().items() if tensor is not None}
    for name, tensor in given.items():
        if name != "bias" and tensor.dim() != 4:
            raise ValueError(f"{name} has {tensor.dim()} dimensions, shape {tuple(tensor.shape)}; it must have 4")
    if weight.shape[2] == 0 or weight.shape[3] == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; the kernel must be at least 1x1")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; the weight needs ({weight.shape[0]},)")
    for name, tensor in given.items():
        if tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device} and input on {input.device}; move one")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}; it must be a floating-point tensor")


def _groups(input: Tensor, weight: Tensor) -> int:
    channels, (channels_out, per_group) = input.shape[1], weight.shape[:2]
    if channels == 0 or per_group == 0 or channels % per_group:
        raise ValueError(
            f"input has {channels} channels; the weight takes {per_group} per group and needs a multiple of that"
        )
    groups = channels // per_group
    if channels_out % groups:
        raise ValueError(
            f"weight has {channels_out} output channels; they must divide into {groups} groups "
            f"({channels} input channels / {per_group})"
        )
    return groups


def _offset_groups(offset: Tensor, kernel: Pair, channels: int) -> int:
    per_group = 2 * kernel[0] * kernel[1]
    num = offset.shape[1]
    if num == 0 or num % per_group:
        raise ValueError(
            f"offset has {num} channels; a {kernel[0]}x{kernel[1]} kernel needs a multiple of {per_group} "
            f"(2 * {kernel[0]} * {kernel[1]})"
        )
    groups = num // per_group
    if channels % groups:
        raise ValueError(
            f"offset has {num} channels, which makes {groups} offset groups ({num} / {per_group}); "
            f"the {channels} input channels do not divide into that many"
        )
    return groups


def out_size(input: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return height and width of the output, or raise a ValueError if the kernel is larger than the padded input."""
    y, x = (_out_length(axis, input, kernel, stride, padding, dilation) for axis in (0, 1))
    return y, x


def _out_length(axis: int, input: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> int:
    reach = dilation[axis] * (kernel[axis] - 1) + 1
    padded = input.shape[2 + axis] + 2 * padding[axis]
    if padded < reach:
        direction = ("high", "wide")[axis]
        raise ValueError(
            f"input is {padded} pixels {direction} with its padding; the dilated kernel needs at least {reach}"
        )
    return (padded - reach) // stride[axis] + 1


def _check_positions(offset: Tensor, mask: Tensor | None, input: Tensor, geometry: Geometry) -> None:
    wanted = {"offset": (offset, offset.shape[1])}
    if mask is not None:
        wanted["mask"] = (mask, geometry.offset_groups * geometry.num_taps)
    for name, (tensor, channels) in wanted.items():
        shape = (input.shape[0], channels, *geometry.out_size)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; this convolution needs {shape}")
