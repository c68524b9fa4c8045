"""Operators: tensors in, tensors out; no parameters, no state."""

from saccade.ops.deform_conv import deform_conv2d
from saccade.ops.deform_conv.onnx import translation_table as onnx_translation_table

__all__ = ["deform_conv2d", "onnx_translation_table"]
