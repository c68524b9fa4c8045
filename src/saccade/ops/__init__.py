"""Operators: tensors in, tensors out; no parameters, no state."""

from saccade.ops.deform_conv import deform_conv2d

__all__ = ["deform_conv2d"]
