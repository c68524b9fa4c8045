"""Deformable convolution on the CPU at full speed: the C++ kernels in `cpp/`, built when Saccade is installed.

The kernels sample in float32, and multiply in float32 as well whatever the dtype of the tensors is, or all in float64.
Their results do not depend on the number of threads.
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
# The kernels number an image's values in 32 bits. So many stand for one at most: channels come in vectors of 16, and
# around the image lies a border.
MOST_VALUES, PADDING = 2**31 - 1, 16


def instruction_sets() -> list[str]:
    """Return the kernels that this processor can run, the best first; none if they were not built."""
    return [] if _missing else _cpu.instruction_sets()


def unavailable() -> str | None:
    """Say why this installation cannot run the backend."""
    if _missing:
        return f"its kernels were not built when Saccade was installed, for want of a C++ compiler ({_missing})"
    return None


def why_not(tensors: Tensors, geometry: Geometry) -> str | None:
    """Say why this backend cannot take these inputs."""
    input = tensors.input
    if input.device.type != "cpu":
        return f"it is made for the cpu; input is on {input.device}"
    for name, tensor in tensors._asdict().items():
        if tensor is not None and tensor.dtype not in DTYPES:
            return f"it is made for {', '.join(str(d) for d in DTYPES)}; {name} is {tensor.dtype}"
    channels, height, width = input.shape[1:]
    if (height + 3) * (width + 2) * -(-channels // PADDING) * PADDING > MOST_VALUES:
        return f"it numbers an image's values in 32 bits; {channels} channels of {height}x{width} are too many"
    return None


def forward(tensors: Tensors, geometry: Geometry) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 stays)."""
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
    # What requires a gradient is not handed out of torch.
    return None if tensor is None else tensor.detach()


def _settings(geometry: Geometry) -> list[int]:
    pairs = geometry.stride, geometry.padding, geometry.dilation
    return [number for pair in pairs for number in pair] + [geometry.groups, geometry.offset_groups]
