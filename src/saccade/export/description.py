"""What a program needs to know of an exported model, stored in its file as JSON."""

from __future__ import annotations

import torch

import saccade
from saccade.checkpoint import Header
from saccade.clips import FrameFormat, Size
from saccade.export.forms import Form
from saccade.labels import Labels

METADATA = "saccade"
"""The name of the metadata: a key of `metadata_props` in ONNX, a name of `extra_files` in torch."""

_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.int64: "int64", torch.uint8: "uint8"}


def described(
    header: Header, labels: Labels, frame_format: FrameFormat, size: Size, digest: str, form: Form
) -> dict[str, Any]:
    """Return what is stored in the file of one form.

    Args:
        header: the header of the checkpoint.
        labels: the classes.
        frame_format: the frames that the model expects.
        size: (height, width) of the frames.
        digest: the SHA-256 of the checkpoint.
        form: the form of the model.
    """
    channels = frame_format.channels
    tensors = [
        {"name": name, "shape": shape, "dtype": _DTYPES[tensor.dtype]}
        for name, shape, tensor in zip(form.inputs, form.shapes(), form.example, strict=True)
    ]
    frames, *states = tensors
    return {
        "format": 1,
        "saccade": saccade.__version__,
        "model": header.kind,
        "form": form.name,
        "checkpoint_sha256": digest,
        "classes": list(labels.names),
        "exclusive": labels.exclusive,
        "none": labels.none,
        "nothing": labels.nothing,
        "separator": labels.separator,
        "min_confidence": labels.min_confidence,
        # The logits have been divided by it.
        "temperature": {"applied": True, "value": header.training.get("temperature")},
        "frames": {
            **frames,
            "channels": channels,
            "colours": "RGB" if channels == 3 else "grey",
            "height": size[0],
            "width": size[1],
            "fps": frame_format.fps,
            "range": [0, 255],
            "normalised": "inside the model",
        },
        "states": [{**state, "next": f"next_{state['name']}", "initial": 0} for state in states],
        "outputs": list(form.outputs),
    }
