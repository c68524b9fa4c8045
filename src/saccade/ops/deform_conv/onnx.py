"""Export of the operator to ONNX: as one standard `DeformConv`, or through `GridSample` for runtimes without it.

Onnxscript comes with the exporter, and is imported when the exporter calls a translation, not with saccade.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

# A value of the graph that is being built, or None. Its class belongs to torch's exporter, and is not public.
Value = Any


def translation_table(use: Literal["DeformConv", "GridSample"] = "DeformConv") -> dict[Any, Callable[..., Value]]:
    """Return the `custom_translation_table` that lets `torch.onnx.export(..., dynamo=True)` export `deform_conv2d`.

    Batch and image size may be dynamic. "DeformConv" is one node and needs opset 19 (torch's default is 20).
    "GridSample" is for runtimes without it and needs opset 18: one node samples the image for all taps, and a strided
    `Conv` sums the samples. Their number is that of the input's values times that of the kernel taps.
    `backend="reference"` is not exported as one operator, and needs no table.

    *Conventions:* 16-bit tensors are cast to float32 and the result is cast back, since positions must be float32 and
    runtimes differ in the 16-bit types that they support; float64 is kept. ONNX adds the offset to the whole pixel
    position before it splits off the fraction; Saccade keeps the two apart. The rounding of that sum moves samples by
    up to `size * 2**-24` pixels, and with "GridSample" by about three times that. Non-finite offsets sample outside;
    with "DeformConv" this depends on the runtime.

    Args:
        use: the ONNX operator that samples the image.

    Raises:
        ValueError: if the name is unknown. Within the exporter's error: if the opset lacks the operator, or channels
            or the kernel have dynamic sizes.

    >>> list(translation_table())
    [<OpOverload(op='saccade.deform_conv2d', overload='default')>]
    """
    translations = {"DeformConv": _deform_conv, "GridSample": _grid_sample}
    if use not in translations:
        raise ValueError(f"use is {use!r}; known: {', '.join(translations)}")
    return {torch.ops.saccade.deform_conv2d.default: translations[use]}


def _deform_conv(
    input: Value,
    offset: Value,
    weight: Value,
    bias: Value,
    mask: Value,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Value:
    from onnxscript import evaluator, opset19

    opset = getattr(evaluator.default(), "opset", opset19)  # the exporter's evaluator has the requested opset
    if opset.version < 19:
        raise ValueError(
            f"the opset is {opset.version}, but DeformConv needs 19: export with opset_version=19 or more, or "
            'with translation_table(use="GridSample")'
        )
    dtype, kernel, groups, offset_groups = _sizes(input, offset, weight)
    result = opset19.DeformConv(
        *(_cast(value, dtype) for value in (input, weight, offset, bias, mask)),
        dilations=dilation,
        group=groups,
        kernel_shape=kernel,
        offset_group=offset_groups,
        pads=[*padding, *padding],
        strides=stride,
    )
    return result if weight.dtype == dtype else _cast(result, weight.dtype)


def _grid_sample(
    input: Value,
    offset: Value,
    weight: Value,
    bias: Value,
    mask: Value,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Value:
    """Build an image of samples, with a block of kernel size for each output position, and convolve it by blocks."""
    op = _opset()
    dtype, kernel, groups, offset_groups = _sizes(input, offset, weight)
    channels, out_size = input.shape[1], op.Shape(offset, start=2)
    images = op.Reshape(_cast(input, dtype), _ints(-1, channels // offset_groups, 0, 0))
    # (batch * group, height, kernel_h, width, kernel_w, dy and dx)
    offset = op.Reshape(_cast(offset, dtype), op.Concat(_ints(-1, *kernel, 2), out_size, axis=0))
    offset = op.Transpose(offset, perm=[0, 4, 1, 5, 2, 3])
    base = _base_positions(out_size, kernel, stride, padding, dilation)
    grid = _normalized(op.Add(offset, op.Cast(base, to=dtype)), op.Cast(op.Shape(images, start=2), to=dtype))
    blocks = op.Mul(out_size, _ints(*kernel))
    grid = op.Reshape(grid, op.Concat(_ints(-1), blocks, _ints(2), axis=0))
    samples = op.GridSample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=0)
    if mask is not None:
        mask = op.Reshape(_cast(mask, dtype), op.Concat(_ints(-1, *kernel), out_size, axis=0))
        mask = op.Transpose(mask, perm=[0, 3, 1, 4, 2])
        samples = op.Mul(samples, op.Reshape(mask, op.Concat(_ints(-1, 1), blocks, axis=0)))
    samples = op.Reshape(samples, _ints(-1, channels, 0, 0))
    kernels, bias = _cast(weight, dtype), _cast(bias, dtype)
    result = op.Conv(samples, kernels, bias, group=groups, kernel_shape=kernel, strides=kernel)
    return result if weight.dtype == dtype else _cast(result, weight.dtype)


def _base_positions(
    out_size: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Value:
    """Return where a plain convolution samples, in pixels: (height, kernel_h, width, kernel_w, y and x)."""
    op = _opset()
    axes = []
    for axis, behind, unit in ((0, (2, 3, 4), (1, 0)), (1, (2,), (0, 1))):
        length = op.Squeeze(op.Slice(out_size, _ints(axis), _ints(axis + 1)))
        out = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
        taps = _ints(*(tap * dilation[axis] - padding[axis] for tap in range(kernel[axis])))
        positions = op.Add(op.Mul(op.Unsqueeze(out, _ints(1)), _ints(stride[axis])), taps)
        axes.append(op.Mul(op.Unsqueeze(positions, _ints(*behind)), _ints(*unit)))
    return op.Add(*axes)


def _normalized(positions: Value, size: Value) -> Value:
    """Convert positions in pixels (..., y and x) to GridSample's (..., x and y), with -1 and 1 at the image's edges."""
    op = _opset()
    half, one, outside = (op.CastLike(number, size) for number in (0.5, 1.0, -4.0))
    # Positions outside, and NaN, which compares as false, become one position, so that runtimes need not handle them.
    inside = op.And(op.Greater(positions, op.Neg(one)), op.Less(positions, size))
    positions = op.Gather(op.Where(inside, positions, outside), _ints(1, 0), axis=5)
    # With align_corners=0, since align_corners=1 has no scale for a side of one pixel.
    half_size = op.Mul(op.Gather(size, _ints(1, 0)), half)
    return op.Div(op.Sub(positions, op.Sub(half_size, half)), half_size)


def _sizes(input: Value, offset: Value, weight: Value) -> tuple[Any, list[int], int, int]:
    """Return the dtype to compute in, the size of the kernel, and the numbers of groups and offset groups."""
    from onnx_ir import DataType

    sizes = [input.shape[1], offset.shape[1], *weight.shape[1:]]
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"input, offset and weight have shapes {input.shape}, {offset.shape} and {weight.shape}; "
            "the channels and the kernel must have fixed sizes in ONNX"
        )
    channels, offset_channels, per_group, *kernel = sizes
    dtype = DataType.DOUBLE if input.dtype == DataType.DOUBLE else DataType.FLOAT
    return dtype, kernel, channels // per_group, offset_channels // (2 * kernel[0] * kernel[1])


def _cast(value: Value, dtype: Any) -> Value:
    return value if value is None or value.dtype == dtype else _opset().Cast(value, to=dtype)


def _opset() -> Any:
    from onnxscript import opset18  # the oldest that the exporter writes; it converts this to the requested one

    return opset18


def _ints(*values: int) -> Value:
    return _opset().Constant(value_ints=values)
