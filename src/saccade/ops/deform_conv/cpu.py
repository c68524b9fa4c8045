"""Deformable convolution on the CPU at full speed: the C++ kernels in `cpp/`, built when Saccade is installed.

The kernels sample and multiply in float32, whatever the dtype of the tensors; only float64 input is computed in
float64. Their results do not depend on the number of threads.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.ops.deform_conv.arguments import Gradients, Needs, Tensors, empty_gradients, empty_output
from saccade.ops.deform_conv.geometry import Geometry

_missing = None
try:
    from saccade.ops.deform_conv import _cpu
except ImportError as error:
    _missing = str(error)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# The kernels number an image's values in 32 bits. They pad its channels to vectors of at most 16, and add a border
# around it.
MOST_VALUES, PADDING = 2**31 - 1, 16


def instruction_sets() -> list[str]:
    """Return the instruction sets whose kernels this processor can run, best first; none if they were not built."""
    return [] if _missing else _cpu.instruction_sets()


def unavailable() -> str | None:
    """Return why this installation cannot run the backend, or None if it can."""
    if _missing:
        return f"its kernels were not built when Saccade was installed, for lack of a C++ compiler ({_missing})"
    return None


def why_not(tensors: Tensors, geometry: Geometry) -> str | None:
    """Return why this backend does not support these inputs, or None if it does."""
    input = tensors.input
    if input.device.type != "cpu":
        return f"it supports cpu; input is on {input.device}"
    for name, tensor in tensors._asdict().items():
        if tensor is not None and tensor.dtype not in DTYPES:
            return f"it supports {', '.join(str(d) for d in DTYPES)}; {name} is {tensor.dtype}"
    channels, height, width = input.shape[1:]
    if (height + 3) * (width + 2) * -(-channels // PADDING) * PADDING > MOST_VALUES:
        return f"it numbers an image's values in 32 bits; {channels} channels of {height}x{width} are too many"
    return None


def forward(tensors: Tensors, geometry: Geometry) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 input in float64)."""
    out = empty_output(tensors, geometry.out_size)
    if out.numel():
        input, offset, weight, bias, mask = tensors
        given = input.detach(), offset.detach(), weight.detach(), _detached(bias), _detached(mask)
        _cpu.forward(instruction_sets()[0], *given, _settings(geometry), torch.get_num_threads(), out)
    return out


def backward(
    grad: Float[Tensor, "batch channels_out height width"], tensors: Tensors, geometry: Geometry, needs: Needs
) -> Gradients:
    """Return the gradients that are needed, each in its tensor's dtype."""
    gradients = empty_gradients(tensors, needs)
    if grad.numel():
        input, offset, weight, _, mask = tensors
        given = grad.detach(), input.detach(), offset.detach(), weight.detach(), _detached(mask)
        _cpu.backward(instruction_sets()[0], *given, _settings(geometry), torch.get_num_threads(), *gradients)
    else:
        for gradient in gradients:
            if gradient is not None:
                gradient.zero_()
    return gradients


def _detached(tensor: Tensor | None) -> Tensor | None:
    # Torch does not export a tensor that requires a gradient.
    return None if tensor is None else tensor.detach()


def _settings(geometry: Geometry) -> list[int]:
    pairs = geometry.stride, geometry.padding, geometry.dilation
    return [number for pair in pairs for number in pair] + [geometry.groups, geometry.offset_groups]
