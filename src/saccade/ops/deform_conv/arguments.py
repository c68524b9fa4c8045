"""The tensor arguments of a deformable convolution, and memory for its results."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# For each of `Tensors`: whether its gradient is needed, and the gradient if so.
Needs = tuple[bool, bool, bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class Tensors(NamedTuple):
    """The tensors of a call, in the order of the operator's arguments."""

    input: Float[Tensor, "batch channels_in height_in width_in"]
    offset: Float[Tensor, "batch offset_channels height width"]
    weight: Float[Tensor, "channels_out channels_per_group kernel_h kernel_w"]
    bias: Float[Tensor, " channels_out"] | None
    mask: Float[Tensor, "batch mask_channels height width"] | None


def empty_gradients(tensors: Tensors, needs: Needs) -> Gradients:
    """Return uninitialised memory for the gradients that are needed, each like its tensor."""
    a, b, c, d, e = (
        torch.empty_like(tensor) if needed and tensor is not None else None
        for tensor, needed in zip(tensors, needs, strict=True)
    )
    return a, b, c, d, e


def memory_format(input: Tensor) -> torch.memory_format:
    """Return the memory format of the output, which is that of the input."""
    channels_last = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def empty_output(tensors: Tensors, out_size: tuple[int, int]) -> Float[Tensor, "batch channels_out height width"]:
    """Return uninitialised memory for the output, in the dtype of the weight and the memory format of the input."""
    input, weight = tensors.input, tensors.weight
    shape = (input.shape[0], weight.shape[0], *out_size)
    return torch.empty(shape, dtype=weight.dtype, device=input.device, memory_format=memory_format(input))
