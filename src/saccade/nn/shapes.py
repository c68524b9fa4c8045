"""Checks of the input of a layer, which report a wrong shape or dtype in one line before an inner layer fails."""

from __future__ import annotations

from torch import Tensor, nn

from saccade.ops.deform_conv import autocast


def check_shape(name: str, tensor: Tensor, *wanted: int | str) -> None:
    """Raise ValueError unless a tensor has the wanted shape; only its batch may be empty.

    Args:
        name: the name of the tensor, in the plural.
        tensor: the tensor.
        wanted: the size of each dimension, or its name if any size is allowed.

    >>> import torch
    >>> check_shape("frames", torch.zeros(2, 64, 64), "batch", 3, "height", "width")
    Traceback (most recent call last):
    ValueError: frames have shape (2, 64, 64); (batch, 3, height, width) is needed
    """
    sizes = tuple(tensor.shape)
    fits = len(sizes) == len(wanted) and all(
        size == needed if isinstance(needed, int) else needed == "batch" or size > 0
        for size, needed in zip(sizes, wanted, strict=True)
    )
    if not fits:
        empty = ", and only the batch may be empty" if len(sizes) == len(wanted) and 0 in sizes[1:] else ""
        raise ValueError(f"{name} have shape {sizes}; ({', '.join(map(str, wanted))}) is needed{empty}")


def check_dtype(name: str, tensor: Tensor, layer: nn.Module) -> None:
    """Raise ValueError unless a tensor has the dtype of a layer's weights, or autocast casts both to one dtype."""
    weight = next(layer.parameters(), tensor)
    if tensor.dtype == weight.dtype or (tensor.is_floating_point() and autocast.dtype_of(tensor.device.type)):
        return
    raise ValueError(f"{name} are {tensor.dtype}, the weights {weight.dtype}; cast one, or use autocast")
